import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat.backup.databases import database_for_restoring
from ccat.backup.errors import BackupTooNew, DatabaseNotEmpty, RestoredDiffers
from ccat.backup.manifest import DUMP, Manifest
from ccat.backup.programs import contents, program, run
from ccat.backup.rows import count_rows
from ccat.backup.telling import progress
from ccat.backup.verifying import verify
from ccat.stack.directory import StackDirectory
from ccat_ops_db.migrating import migrate_within
from ccat_ops_db.schema import VERSION_TABLE, RestoreUnfinished, head, revision_on, revisions
from ccat_ops_db.session import connect, without_password
from ccat_ops_db.verbs.restoring import become_another_installation, places_but, relocate, trust_no_archive
from ccat_service.database import DatabaseConnection
from ccat_workflow_manager.verbs.disowning import Disowned, disown_runs

_TABLES: Final = sa.text("""
    SELECT relname FROM pg_class c
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    ORDER BY relname
""")
_SIZE: Final = sa.select(sa.func.pg_database_size(sa.func.current_database()))
_VERSION_ROW: Final = re.compile(rf"^(?=\d+; .* TABLE DATA \S+ {VERSION_TABLE} )", re.MULTILINE)
"""Where the table of contents of a dump names the row that says which schema it is."""


@dataclass(frozen=True)
class Restored:
    """An installation that was made of a backup."""

    database: str
    manifest: Manifest
    schema_revision: str
    installation_id: UUID
    disowned: Disowned
    relocated: Sequence[str]
    """Locations that lie elsewhere than those of the backup."""
    kept: Mapping[str, str]
    """Where the others lie, by their names: just where they did."""
    unread: int
    """Copies in archives that count for nothing until they were read."""


def restore(backup: Path, data_dir: Path | None, *, moves: Mapping[str, str], by: str) -> Restored:
    """Make an installation of a backup, in an empty database: another one than it is of, in which everything is paused.

    Until all of it is done no process starts there, and it can be done again. Raises BackupError before anything is
    made where the backup is damaged, or newer than this version.
    """
    manifest = verify(backup)
    known = revisions()
    if manifest.schema_revision not in known:
        newest, made_by = known[-1], manifest.program_version
        raise BackupTooNew(backup, revision=manifest.schema_revision, known=newest, version=made_by)
    with (
        database_for_restoring(data_dir) as database,
        closing(DatabaseConnection(database.url, "ccat restore")) as connection,
    ):
        said = frozenset(moves)
        if manifest.data_dir and database.stack:
            moves = {str(StackDirectory(Path(manifest.data_dir)).storage): str(database.stack.storage), **moves}
        clears = _require_empty(connection.engine)
        _load(backup / DUMP, connection.engine, manifest, clears=clears)
        with connection.transaction() as session:
            return _take_over(session, manifest, moves=moves, said=said, by=by)


def _require_empty(engine: sa.Engine) -> bool:
    """Whether there is what a restore left that was stopped half-way; raises DatabaseNotEmpty for anything else."""
    with connect(engine) as connection:
        try:
            revision_on(connection)
        except RestoreUnfinished:
            return True
        if tables := connection.scalars(_TABLES).all():
            raise DatabaseNotEmpty(without_password(engine.url), tables)
    return False


def _load(dump: Path, engine: sa.Engine, manifest: Manifest, *, clears: bool) -> None:
    """All of the dump in one transaction, but for the row that says which schema it is: so nothing starts there."""
    command = [str(program("pg_restore", at_least=manifest.postgresql)), "--single-transaction", "--exit-on-error"]
    command += ["--no-owner", "--no-privileges", "--no-password", *(["--clean", "--if-exists"] if clears else [])]
    with (
        tempfile.NamedTemporaryFile("w", prefix="ccat-") as wanted,
        progress("Restoring the database", total=manifest.database_bytes) as show,
        connect(engine).execution_options(isolation_level="AUTOCOMMIT") as watching,
    ):
        wanted.write(_VERSION_ROW.sub(";", contents(dump, version=manifest.postgresql)))
        wanted.flush()
        command += [f"--use-list={wanted.name}", str(dump)]
        run(command, engine, look=lambda: show(watching.scalar(_SIZE) or 0))


def _take_over(
    session: Session, manifest: Manifest, *, moves: Mapping[str, str], said: Collection[str], by: str
) -> Restored:
    """Check what was loaded, bring it to the schema of now, and let it be an installation of its own."""
    found = count_rows(session, manifest.rows)
    if differing := {name: (found[name], rows) for name, rows in manifest.rows.items() if found[name] != rows}:
        raise RestoredDiffers(differing)
    column = sa.column("version_num", sa.Text())
    session.execute(sa.insert(sa.table(VERSION_TABLE, column)).values(version_num=manifest.schema_revision))
    migrate_within(session.connection())
    of_old = f"of the installation {manifest.installation_id.hex[:8]} as it was at {manifest.taken_at:%F %H:%M} UTC"
    because = f"it was a run {of_old}, and this is another one, which was restored from a backup of that"
    disowned = disown_runs(session, because=because, by=by, now=datetime.now(UTC))
    told = f"restored from a backup {of_old}; end what still runs of that, bring its files, then `ccat resume --all`"
    moved = relocate(session, moves, said=said)
    return Restored(
        database=without_password(session.connection().engine.url),
        manifest=manifest,
        schema_revision=str(head()),
        installation_id=become_another_installation(session, because=told, by=by),
        disowned=disowned,
        relocated=moved,
        kept=places_but(session, moved),
        unread=trust_no_archive(session),
    )
