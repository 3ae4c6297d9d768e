from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from time import sleep
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat.backup.databases import Database
from ccat.backup.definitions import as_yaml
from ccat.backup.manifest import DEFINITIONS, DUMP, MANIFEST, PARTS, Manifest
from ccat.backup.place import backups_in, dated_later, draft, held, name_of, remove, superfluous
from ccat.backup.programs import major_version, program, run
from ccat.backup.rows import count_rows
from ccat.backup.telling import progress
from ccat.backup.verifying import measure, verify
from ccat.stack.private import write_private
from ccat_ops_db import models
from ccat_ops_db.queries.definitions import written_definitions
from ccat_ops_db.schema import revision_on
from ccat_service.database import DatabaseConnection

_NEXT_NAME: Final = timedelta(milliseconds=100)
_SERVER_VERSION: Final = sa.text("SHOW server_version_num")
_ONE_SNAPSHOT: Final = sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_PATIENCE: Final = sa.text("SET LOCAL idle_in_transaction_session_timeout = 0")
"""The snapshot is shown to `pg_dump` for as long as that takes, by a connection that does nothing meanwhile."""


@dataclass(frozen=True)
class Made:
    """A backup that was made and verified, and the older ones that went for it."""

    path: Path
    manifest: Manifest
    removed: Sequence[Path]
    dated_later: Sequence[Path]
    """Others of this installation that lie there, and say that they are newer."""


def make_backup(database: Database, directory: Path, *, keep: int | None) -> Made:
    """Make a backup in a directory, verify it, and only then remove older ones of this installation but `keep` with it.

    What is dated later is left alone, and does not count: it says nothing about which is the newest.
    Whatever goes wrong, nothing half is left under a backup's name. Raises BackupError, DatabaseUnreachable, and what
    says that the schema is not that of this version.
    """
    directory = directory.absolute()
    with held(directory):
        taken_at = _moment(directory)
        with draft(directory, name_of(taken_at)) as partial:
            manifest = _write(database, partial, taken_at=taken_at)
            verify(partial)
        there = backups_in(directory)
        old = superfluous(there, manifest, keep=keep) if keep is not None else []
        for one in old:
            remove(one)
        later = [one.path for one in dated_later(there, manifest)]
        return Made(directory / name_of(taken_at), manifest, [one.path for one in old], later)


def _moment(directory: Path) -> datetime:
    """Now, to the second by which a backup is named; where one has that name, the next second."""
    while (directory / name_of(datetime.now(UTC))).exists():
        sleep(_NEXT_NAME.total_seconds())
    return datetime.now(UTC).replace(microsecond=0)


def _write(database: Database, partial: Path, *, taken_at: datetime) -> Manifest:
    """Everything of one snapshot; the manifest comes last."""
    with closing(DatabaseConnection(database.url, "ccat backup")) as connection:
        connection.require_current_schema()
        with connection.transaction() as session:
            session.execute(_ONE_SNAPSHOT)
            session.execute(_PATIENCE)
            told = _facts(session)
            heading = f"All definitions of installation {told['installation_id']}; `ccat apply -f` takes them."
            write_private(partial / DEFINITIONS, as_yaml(written_definitions(session), heading=heading))
            postgresql = _dump(session, partial / DUMP)
    manifest = Manifest.model_validate(
        {
            **told,
            "taken_at": taken_at,
            "program_version": version("ccat-data-center"),
            "postgresql": postgresql,
            "data_dir": str(database.stack.root) if database.stack else None,
            "parts": {name: measure(partial / name) for name in PARTS},
        }
    )
    write_private(partial / MANIFEST, manifest.model_dump_json(indent=2))
    return manifest


def _facts(session: Session) -> dict[str, object]:
    return {
        "installation_id": session.scalars(sa.select(models.Installation.installation_id)).one(),
        "schema_revision": revision_on(session.connection()),
        "database_bytes": session.scalar(sa.select(sa.func.pg_database_size(sa.func.current_database()))),
        "rows": count_rows(session),
    }


def _dump(session: Session, file: Path) -> int:
    """Have the whole database dumped as the session sees it; the major version of what did."""
    server = int(session.scalar(_SERVER_VERSION) or 0) // 10_000
    pg_dump = program("pg_dump", at_least=server)
    snapshot = session.scalar(sa.select(sa.func.pg_export_snapshot()))
    file.touch(mode=0o600)
    command = [str(pg_dump), "--format=custom", f"--snapshot={snapshot}", f"--file={file}", "--no-password"]
    command += ["--lock-wait-timeout=60s"]  # somebody may be changing the schema
    with progress("Dumping the database") as show:
        run(command, session.connection().engine, look=lambda: show(file.stat().st_size))
    return major_version(pg_dump) or server
