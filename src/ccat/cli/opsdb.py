"""`opsdb_init` and `opsdb_migrate`: create the operations database, and bring its schema to another revision."""

import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from uuid import UUID

import sqlalchemy as sa
import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported, run_for_programs
from ccat.cli.output import AsJson, print_json, print_table
from ccat.wiring import find_settings, open_database
from ccat_ops_db import migrating
from ccat_ops_db.errors import CcatError
from ccat_ops_db.models import DataLocation, DiskDataLocation, Installation, LocationType
from ccat_ops_db.session import without_password
from ccat_ops_db.verbs.initialization import initialize, reference_data
from ccat_service.settings import Environment, current_environment

StorageRoot = Annotated[
    Path, typer.Option(envvar="CCAT_STORAGE_ROOT", help="Directory below which new locations keep their files.")
]
Drop = Annotated[bool, typer.Option("--drop", help="First remove all tables with all they hold; files stay.")]
Yes = Annotated[bool, typer.Option("--yes", help="Drop without asking.")]
To = Annotated[str, typer.Option(metavar="REVISION", help="Revision to go to, forward or back.")]

init_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
migrate_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class DropInProduction(CcatError):
    """Somebody asked to drop the operations database of a production installation."""

    code = "drop_in_production"

    def __init__(self) -> None:
        super().__init__(
            "CCAT_ENV is production: the operations database of a production installation is never dropped. "
            "Nothing was changed."
        )


class DropNotConfirmed(CcatError):
    """Nobody confirmed that the operations database is to be dropped."""

    code = "drop_not_confirmed"

    def __init__(self, database: str) -> None:
        super().__init__(
            f"Nobody confirmed that {database} is to be dropped: answer `y` at a terminal, or give --yes. "
            "Nothing was changed."
        )


@dataclass(frozen=True, kw_only=True)
class Migration:
    """From which revision to which the schema went; the same where it was there already."""

    revision_before: str | None
    revision: str | None


@dataclass(frozen=True, kw_only=True)
class Location:
    """A location that is there after the initialization."""

    name: str
    type: LocationType
    path: str | None
    """Root directory, of a disk."""


@dataclass(frozen=True, kw_only=True)
class Initialized:
    """What an initialized database is."""

    database: str
    schema: Migration
    installation_id: UUID
    is_new: bool
    """Whether it had no reference data before."""
    locations: list[Location]


@init_app.command()
def opsdb_init(
    *, storage_root: StorageRoot = Path("/data"), drop: Drop = False, yes: Yes = False, json: AsJson = False
) -> None:
    """Create the operations database with its reference data; what exists already is left as it is."""
    with reported(as_json=json):
        result = make_ready(storage_root.absolute(), drop=drop, confirmed=yes)
        if json:
            print_json(result)
        else:
            show(result)


@migrate_app.command()
def opsdb_migrate(*, to: To = "head", json: AsJson = False) -> None:
    """Bring the schema of the operations database to the revision that this version of the software needs."""
    with reported(as_json=json):
        with closing(open_database("opsdb_migrate")) as database:
            migration = _migrate(database.engine, to=to)
        if json:
            print_json(migration)
        else:
            typer.echo(_sentence(migration))


def init_main() -> None:
    """Console script `opsdb_init`."""
    find_settings()
    if "--json" in sys.argv:
        run_for_programs(init_app, sys.argv[1:])
    init_app()


def migrate_main() -> None:
    """Console script `opsdb_migrate`."""
    find_settings()
    if "--json" in sys.argv:
        run_for_programs(migrate_app, sys.argv[1:])
    migrate_app()


def make_ready(storage_root: Path, *, drop: bool = False, confirmed: bool = False) -> Initialized:
    """What `opsdb_init` does."""
    if drop and current_environment() is Environment.PRODUCTION:
        raise DropInProduction
    with closing(open_database("opsdb_init")) as database:
        if drop:
            _drop(database.engine, confirmed=confirmed)
        migration = _migrate(database.engine, to="head")
        with database.transaction() as session:
            copies = 2 if current_environment() is Environment.PRODUCTION else 1
            is_new = initialize(session, reference_data(), storage_root=storage_root, archive_copies=copies)
            return Initialized(
                database=without_password(database.engine.url),
                schema=migration,
                installation_id=session.scalars(sa.select(Installation.installation_id)).one(),
                is_new=is_new,
                locations=_locations(session),
            )


def _drop(engine: sa.Engine, *, confirmed: bool) -> None:
    database = without_password(engine.url)
    question = f"Drop all tables of the operations database {database}, with all they hold?"
    if not confirmed and not (sys.stdin.isatty() and typer.confirm(question, err=True)):
        raise DropNotConfirmed(database)
    migrating.drop(engine)


def _migrate(engine: sa.Engine, *, to: str) -> Migration:
    before, after = migrating.migrate(engine, to=to)
    return Migration(revision_before=before, revision=after)


def _locations(session: Session) -> list[Location]:
    rows = sa.select(DataLocation).order_by(DataLocation.id)
    return [
        Location(
            name=f"{one.site.short_name}/{one.name}",
            type=one.location_type,
            path=one.path if isinstance(one, DiskDataLocation) else None,
        )
        for one in session.scalars(rows)
    ]


def show(result: Initialized) -> None:
    """Tell people what an initialized database is."""
    typer.echo(f"Operations database {result.database}, installation {result.installation_id}.")
    typer.echo(_sentence(result.schema))
    print_table("Locations", ["name", "type", "path"], [(one.name, one.type, one.path) for one in result.locations])


def _sentence(migration: Migration) -> str:
    if migration.revision_before == migration.revision:
        return f"The schema has revision {migration.revision} already."
    return f"The schema went from revision {migration.revision_before or 'none'} to {migration.revision}."
