from pathlib import Path
from typing import Final

import sqlalchemy as sa

from ccat_ops_db.errors import CcatError
from ccat_ops_db.session import connect

VERSION_TABLE: Final = "alembic_version"
_TABLE: Final = "installation"
"""Of every schema that there was."""
OLDEST_SERVER: Final = 18
_VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"


class SchemaOutdated(CcatError):
    """The database's schema is not the one that this version of the software was written for."""

    code = "schema_outdated"

    def __init__(self, found: str | None, wanted: str | None) -> None:
        if found is None:
            problem, mend = "has no schema yet", "Create it with `opsdb_init`"
        else:
            problem, mend = f"has schema revision {found}, this version needs {wanted}", "Run `opsdb_migrate`"
        super().__init__(f"The operations database {problem}. {mend}, then start this process again.")


class ServerTooOld(CcatError):
    """The database server lacks what statements of this software need."""

    code = "server_too_old"

    def __init__(self, found: str) -> None:
        super().__init__(
            f"The operations database runs on PostgreSQL {found}, and {OLDEST_SERVER} or newer is needed. Upgrade that "
            "server, or name another one in CCAT_OPS_DB_URL."
        )


class SchemaTooNew(CcatError):
    """The database was migrated by a newer version of the software."""

    code = "schema_too_new"

    def __init__(self, found: str) -> None:
        super().__init__(
            f"The operations database has schema revision {found}, which this version does not know: a newer version "
            "migrated it. Start that version, or go back with its `opsdb_migrate --to REVISION`."
        )


class RestoreUnfinished(CcatError):
    """A backup was being restored into the database, and whoever did so was stopped half-way."""

    code = "restore_unfinished"

    def __init__(self) -> None:
        super().__init__(
            "A backup was being restored into the operations database, and that was never finished, so that nothing "
            "can be done with it. Restore it once more, with the same command: `ccat restore` begins anew there."
        )


def revisions() -> list[str]:
    """Every revision of the schema that this version of the software knows, the oldest first.

    Read from the names of the migrations, which begin with it: no process needs Alembic to refuse a wrong schema.
    """
    return sorted(path.name.split("_")[0] for path in _VERSIONS.glob("[0-9]*.py"))


def head() -> str | None:
    """Revision of the schema that this version of the software was written for."""
    known = revisions()
    return known[-1] if known else None


def revision_of(engine: sa.Engine) -> str | None:
    """Revision of the database's schema; None where there is no schema.

    Raises DatabaseUnreachable and ServerTooOld.
    """
    with connect(engine) as connection:
        return revision_on(connection)


def revision_on(connection: sa.Connection) -> str | None:
    """The same on an open connection; raises ServerTooOld and RestoreUnfinished."""
    version = connection.scalar(sa.text("SHOW server_version"))
    if int(version.split(".")[0]) < OLDEST_SERVER:
        raise ServerTooOld(version)
    tables = sa.inspect(connection)
    if not tables.has_table(VERSION_TABLE):
        return None
    found: str | None = connection.scalar(sa.select(sa.column("version_num")).select_from(sa.table(VERSION_TABLE)))
    if found is None and tables.has_table(_TABLE):  # a restore says last which schema it is
        raise RestoreUnfinished
    return found


def require_current_schema(engine: sa.Engine) -> None:
    """Raise SchemaOutdated or SchemaTooNew, which name the command that mends it, unless the schema fits.

    Raises DatabaseUnreachable.
    """
    found, wanted = revision_of(engine), head()
    if found is not None and found not in revisions():
        raise SchemaTooNew(found)
    if found != wanted:
        raise SchemaOutdated(found, wanted)
