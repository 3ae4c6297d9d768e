from collections.abc import Callable
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from ccat_ops_db.errors import CcatError

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x6363_6174  # "ccat": key of the advisory lock under which one process migrates at a time


class SchemaOutdated(CcatError):
    """The database's schema is not the one that this version of the software was written for."""

    code = "schema_outdated"

    def __init__(self, found: str | None, wanted: str | None) -> None:
        if found is None:
            problem, mend = "has no schema yet", "Create it with `opsdb_init`"
        else:
            problem, mend = f"has schema revision {found}, this version needs {wanted}", "Run `opsdb_migrate`"
        super().__init__(f"The operations database {problem}. {mend}, then start this process again.")


class SchemaTooNew(CcatError):
    """The database was migrated by a newer version of the software."""

    code = "schema_too_new"

    def __init__(self, found: str) -> None:
        super().__init__(
            f"The operations database has schema revision {found}, which this version does not know: a newer version "
            "migrated it. Start that version, or go back with its `opsdb_migrate --to REVISION`."
        )


def alembic_config(connection: sa.Connection | None = None) -> Config:
    """Configuration of Alembic that finds the migrations, on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def head() -> str | None:
    """Revision of the schema that this version of the software was written for."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def revision_of(engine: sa.Engine) -> str | None:
    """Revision of the database's schema; None where there is no schema."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def require_current_schema(engine: sa.Engine) -> None:
    """Raise SchemaOutdated or SchemaTooNew, which name the command that mends it, unless the schema fits."""
    found = revision_of(engine)
    if found == head():
        return
    if found is not None and not _is_known(found):
        raise SchemaTooNew(found)
    raise SchemaOutdated(found, head())


def _is_known(revision: str) -> bool:
    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    return revision in known


def migrate(engine: sa.Engine, *, to: str = "head") -> tuple[str | None, str | None]:
    """Bring the schema to revision `to`, and return the revisions before and after; others wait meanwhile."""
    before = revision_of(engine)
    if before is not None and not _is_known(before):
        raise SchemaTooNew(before)
    _run(engine, lambda config: command.upgrade(config, to))
    return before, revision_of(engine)


def downgrade(engine: sa.Engine, *, to: str) -> None:
    """Take the schema back to an earlier revision; `base` removes everything, data included."""
    _run(engine, lambda config: command.downgrade(config, to))


def _run(engine: sa.Engine, change: Callable[[Config], None]) -> None:
    with engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        change(alembic_config(connection))
