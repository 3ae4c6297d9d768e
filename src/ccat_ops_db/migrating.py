from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from psycopg.errors import DependentObjectsStillExist
from sqlalchemy.exc import InternalError

from ccat_ops_db.errors import CcatError
from ccat_ops_db.schema import VERSION_TABLE, SchemaTooNew, revision_on, revisions
from ccat_ops_db.session import connect

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x6363_6174  # "ccat": key of the advisory lock under which one process migrates at a time
_OUR_TABLES: Final = sa.text(
    """
    SELECT quote_ident(relname) FROM pg_class JOIN pg_constraint ON conrelid = pg_class.oid
    WHERE relnamespace = current_schema()::regnamespace AND contype = 'p' AND conname = 'pk_' || relname
    """
)
"""Tables whose primary key has the name that our models' naming convention gives: those of a newer version too."""


class UnknownRevision(CcatError):
    """A revision of the schema was asked for that this version of the software does not have."""

    code = "unknown_revision"

    def __init__(self, revision: str, known: Collection[str]) -> None:
        super().__init__(f"There is no schema revision `{revision}`; there are `{min(known)}` to `{max(known)}`.")


class DependedUpon(CcatError):
    """Something that is not ours is built upon our tables, so that they cannot be dropped."""

    code = "depended_upon"

    def __init__(self, dependencies: str) -> None:
        super().__init__(
            f"The tables of the operations database cannot be dropped: {', '.join(dependencies.splitlines())}. "
            "Drop what depends on them first; nothing was changed."
        )


class StillWithdrawn(CcatError):
    """The schema was to go back to one that cannot keep what people have withdrawn."""

    code = "still_withdrawn"

    def __init__(self, withdrawn: Collection[str], revision: str) -> None:
        super().__init__(
            f"A schema before {revision} has no room for what is withdrawn: {', '.join(withdrawn)}. `ccat reinstate` "
            "takes back what `ccat withdrawals` lists; before that the schema cannot go back. Nothing was changed."
        )


class StillExcluded(CcatError):
    """The schema was to go back to one that cannot keep what people have excluded."""

    code = "still_excluded"

    def __init__(self, excluded: Collection[str], revision: str) -> None:
        super().__init__(
            f"A schema before {revision} has no room for {', '.join(excluded)}. `ccat readmit` lifts what "
            "`ccat exclusions` lists; before that the schema cannot go back. Nothing was changed."
        )


def alembic_config(connection: sa.Connection | None = None) -> Config:
    """Configuration of Alembic that finds the migrations, on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def migrate(engine: sa.Engine, *, to: str = "head") -> tuple[str | None, str | None]:
    """Bring the schema on or back to revision `to`, and return the revisions before and after.

    One transaction; others that migrate wait meanwhile. Going back loses what only the later revisions have room for;
    raises StillWithdrawn and StillExcluded where that would be what holds of people's words.
    """
    with _alone(engine) as connection:
        return migrate_within(connection, to=to)


def migrate_within(connection: sa.Connection, *, to: str = "head") -> tuple[str | None, str | None]:
    """The same in the transaction of a caller whom nobody else meets there."""
    history = revisions()
    target = history[-1] if to == "head" else to
    if target not in history:
        raise UnknownRevision(to, history)
    before = revision_on(connection)
    if before is not None and before not in history:
        raise SchemaTooNew(before)
    goes_back = before is not None and history.index(target) < history.index(before)
    step = command.downgrade if goes_back else command.upgrade
    step(alembic_config(connection), target)
    return before, revision_on(connection)


def drop(engine: sa.Engine) -> None:
    """Remove the tables of the operations database, those of a newer version too, and leave what others put beside.

    One transaction. Raises DependedUpon where something of others is built upon our tables.
    """
    with _alone(engine) as connection:
        tables = connection.scalars(_OUR_TABLES).all()
        try:
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {', '.join([*tables, VERSION_TABLE])}"))
        except InternalError as error:
            if isinstance(error.orig, DependentObjectsStillExist):
                raise DependedUpon(error.orig.diag.message_detail or str(error.orig)) from error
            raise


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction during which no other process changes the schema."""
    with connect(engine) as connection, connection.begin():
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        yield connection
