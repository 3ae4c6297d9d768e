"""What the stack runs on top of PostgreSQL and Redis."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from ccat.stack.redis import RedisAddress, has_key
from ccat.stack.services import ServiceSpec


@dataclass(frozen=True, kw_only=True)
class Program:
    """Everything that is ours in a stack."""

    preparations: Sequence[ServiceSpec]
    """Commands that run one after the other, each to its end, before the services."""
    services: Callable[[RedisAddress], Sequence[ServiceSpec]]
    """Long-running processes, given where they show signs of life."""
    processing_locations: Callable[[str], Sequence[int]]
    """Given the URL of the prepared database, the ids of the locations that this stack processes at."""


SERVICES = (
    "trigger-manager",
    "workflow-manager",
    "result-manager",
    "celery-worker",
    "transfer-manager",
    "transfer-worker",
)
"""Long-running commands of `ccat`, each one process."""


def whole_program(*, storage_root: Path, initialize: Callable[[Path], object], run: Callable[[str], object]) -> Program:
    """Every process of the system; files of the seeded locations lie below `storage_root`.

    `initialize` makes the database ready, `run` is the process of a name; both are called in forked processes.
    """
    return Program(
        preparations=[
            ServiceSpec(
                name="opsdb_init",
                call=partial(initialize, storage_root),
                environment={"CCAT_DEBUG": "1"},
            )
        ],
        services=lambda redis: [_service(name, redis, call=partial(run, name)) for name in SERVICES],
        processing_locations=partial(_open_locations, storage_root),
    )


def _service(name: str, redis: RedisAddress, *, call: Callable[[], object]) -> ServiceSpec:
    return ServiceSpec(
        name=name,
        call=call,
        is_ready=lambda pid: has_key(redis, f"health:*:{name}:*-{pid}"),
        ready_within=timedelta(minutes=3),  # six of them start at once, perhaps on a small busy machine
    )


def _open_locations(storage_root: Path, database_url: str) -> Sequence[int]:
    """Make the directories of the locations in this stack, and return those where something is processed."""
    import sqlalchemy as sa  # noqa: PLC0415 hundreds of modules that only this one question needs

    from ccat_ops_db.models import DiskDataLocation, LocationType  # noqa: PLC0415 as above
    from ccat_ops_db.session import create_engine, transaction  # noqa: PLC0415 as above

    engine = create_engine(database_url, application_name="ccat up")
    with transaction(engine) as session:
        locations = session.scalars(sa.select(DiskDataLocation).order_by(DiskDataLocation.id)).all()
    engine.dispose()
    for location in locations:
        if Path(location.path).is_relative_to(storage_root):
            Path(location.path).mkdir(parents=True, exist_ok=True)
    return [location.id for location in locations if location.location_type is LocationType.PROCESSING]
