import getpass
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from ccat_ops_db import models
from ccat_ops_db.states import LocationType
from ccat_service.database import DatabaseConnection
from ccat_service.servers import OpsDbSettings
from ccat_service.settings import SettingsError
from ccat_workflow_manager.places import ServedLocation, refuse_shared, serve
from ccat_workflow_manager.settings import WorkflowManagerSettings

DEFAULT_DATA_DIR: Final = Path(".ccat")


def default_data_dir() -> Path:
    """Data directory of the embedded stack where no other is named."""
    return Path(os.environ.get("CCAT_DATA_DIR") or DEFAULT_DATA_DIR)


def find_settings() -> None:
    """Let this process and its children read the settings of the embedded stack, unless others are at hand.

    What CCAT_CONFIG names, or a `ccat.toml` in the current directory, comes first.
    """
    embedded = default_data_dir() / "ccat.toml"
    if "CCAT_CONFIG" not in os.environ and not Path("ccat.toml").exists() and embedded.exists():
        os.environ["CCAT_CONFIG"] = str(embedded.absolute())


def open_database(process: str) -> DatabaseConnection:
    """The operations database named by the settings; nothing is connected yet."""
    return DatabaseConnection(OpsDbSettings.load().database_url(), f"ccat {process}")


@contextmanager
def transaction(process: str) -> Iterator[Session]:
    """One transaction of a command that ends with it: committed at the end, rolled back on any error.

    Raises SchemaOutdated or SchemaTooNew, with the command that mends it.
    """
    with closing(open_database(process)) as database:
        database.require_current_schema()
        with database.transaction() as session:
            yield session


def process_name(process: str) -> str:
    """Name under which a process claims work and signs moves: unique among all that run at once."""
    return f"{process}@{socket.gethostname()}:{os.getpid()}"


def person() -> str:
    """Who types, as far as the operating system knows: to sign what people decide."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # nobody has this number, as may be in a container
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def served_locations(database: DatabaseConnection, settings: WorkflowManagerSettings) -> list[ServedLocation]:
    """The processing locations named by the settings; raises SettingsError for one that cannot be served."""
    known = {location.id: location for location in all_locations(database)}
    for number in settings.processing_location_id:
        if number not in known:
            where = f"{settings.env_prefix()}PROCESSING_LOCATION_ID"
            raise SettingsError(where, f"{number} is no location of this database")
    numbers = dict.fromkeys(settings.processing_location_id)
    served = [serve(known[number], default_base=settings.pipeline_base_dir) for number in numbers]
    refuse_shared(served)
    base, is_set = settings.pipeline_base_dir, "pipeline_base_dir" in settings.model_fields_set
    if is_set and not any(base.is_relative_to(one.root) for one in served):
        roots = ", ".join(f"{one.root} ({one.name})" for one in served)
        raise SettingsError(f"{settings.env_prefix()}PIPELINE_BASE_DIR", f"{base} is outside of {roots}")
    return served


def run_base(session: Session, run: models.ExecutedReductionStep) -> Path | None:
    """Root of the run directories where a run is, as its location and the settings here tell; None without one."""
    location = session.get_one(models.DataLocation, run.data_location_id)
    try:
        default_base: Path = WorkflowManagerSettings.load().pipeline_base_dir
    except SettingsError:  # who only looks needs none
        default_base = WorkflowManagerSettings.model_fields["pipeline_base_dir"].default
    try:
        return serve(location, default_base=default_base).base
    except SettingsError:
        return None


def all_locations(database: DatabaseConnection) -> Sequence[models.DataLocation]:
    """Every location, with its site."""
    location = models.DataLocation
    query = sa.select(location).options(joinedload(location.site)).order_by(location.id)
    with database.transaction() as session:
        return session.scalars(query).all()


def roots_of(locations: Iterable[models.DataLocation]) -> dict[int, Path]:
    """Directories of those that are disks, by id, but for those of runs: of these tells who works there."""
    disks = [one for one in locations if isinstance(one, models.DiskDataLocation)]
    return {one.id: Path(one.path) for one in disks if one.location_type is not LocationType.PROCESSING}
