"""What the stack runs on top of PostgreSQL and Redis."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccat.stack.services import ServiceSpec


@dataclass(frozen=True, kw_only=True)
class Program:
    """Everything that is ours in a stack."""

    preparations: Sequence[ServiceSpec]
    """Commands that run one after the other, each to its end, before the services."""
    services: Sequence[ServiceSpec]
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


def whole_program(*, storage_root: Path) -> Program:
    """Every process of the system; files of the seeded locations lie below `storage_root`."""
    return Program(
        preparations=[
            ServiceSpec(
                name="opsdb_init",
                command=[
                    *(sys.executable, "-c", "from ccat.cli.opsdb import init_main; init_main()"),
                    *("--storage-root", str(storage_root)),
                ],
            ),
            ServiceSpec(
                name="opsdb_migrate",
                command=[sys.executable, "-c", "from ccat.cli.opsdb import migrate_main; migrate_main()"],
            ),
        ],
        services=[ServiceSpec(name=name, command=[sys.executable, "-m", "ccat", name]) for name in SERVICES],
        processing_locations=_processing_locations,
    )


def _processing_locations(database_url: str) -> Sequence[int]:
    import sqlalchemy as sa  # noqa: PLC0415 a third of the start of `ccat status` and `ccat down`, which ask nothing

    from ccat_ops_db.models import DataLocation, LocationType  # noqa: PLC0415 as above
    from ccat_ops_db.session import create_engine, transaction  # noqa: PLC0415 as above

    engine = create_engine(database_url, application_name="ccat up")
    processing = sa.select(DataLocation.id).where(DataLocation.location_type == LocationType.PROCESSING)
    with transaction(engine) as session:
        found = session.scalars(processing.order_by(DataLocation.id)).all()
    engine.dispose()
    return found
