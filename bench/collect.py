from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import sqlalchemy as sa
import typer

from bench.chains import define
from bench.figures import Figure, once
from bench.system import System, system
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import RunStatus
from ccat_service.database import DatabaseConnection
from ccat_workflow_manager.hpc.base import JobSpec
from ccat_workflow_manager.hpc.fake.backend import FakeBackend
from ccat_workflow_manager.hpc.fake.software import Running, Scripted
from ccat_workflow_manager.verbs.collecting import collect_runs
from ccat_workflow_manager.verbs.executing import hand_in_attempts
from ccat_workflow_manager.verbs.observing import observe_locations
from ccat_workflow_manager.verbs.starting import start_runs
from ccat_workflow_manager.verbs.triggering import create_wanted_runs
from ccat_workflow_manager.verbs.workplace import Workplace

_OTHERS: Final = 10


def measure(
    *, size: Annotated[int, typer.Option(min=10, help="So many products of one run; ten others have a tenth.")] = 10_000
) -> Iterator[Figure]:
    """How many products a second are checked, put on disk and registered: those of one large run and of ten others.

    And how many inputs of one run are fixed, looked at, linked and told to the software.
    """
    with system(1 + _OTHERS) as one:
        pipeline_id = define(one, steps=1)
        large, *others = _ended(one, _workplace(one, size), pipeline_id)
        collector = _workplace(one, size)
        alone = once(lambda: _all_of([large], collect_runs(collector, [large])))
        yield Figure("large_run_products_per_s", size / alone)
        together = once(lambda: _all_of(others, collect_runs(collector, others)))
        yield Figure("products_per_s", _registered(one) / (alone + together), at_least=2000)
    with system(size) as one:
        yield Figure("inputs_per_s", size / once(lambda: _prepared(one, size)))


def _prepared(one: System, size: int) -> None:
    """Let one run take all packages, and hand it in."""
    pipeline_id, now = define(one, steps=1, group_by=()), datetime.now(UTC)
    with transaction(one.engine) as session:
        create_wanted_runs(session, pipeline_id, now=now, by="bench")
        run_ids = session.scalars(sa.select(models.ExecutedReductionStep.id)).all()
    with transaction(one.engine) as session:
        start_runs(session, run_ids, now=now, by="bench")
    _all_of(run_ids, hand_in_attempts(_workplace(one, 1), run_ids))
    [found] = one.base.rglob("input")
    if len(list((found / "raw").iterdir())) != size:
        raise ValueError(f"not {size} inputs in {found}")


def _workplace(one: System, size: int) -> Workplace:
    written = iter([size, *[max(1, size // 10)] * _OTHERS])

    def write(spec: JobSpec) -> Running:
        output = Path(spec.environment["WORKFLOW_OUTPUT_DIR"]) / "science"
        for number in range(next(written)):
            (output / f"{number}.fits").write_text(f"{spec.name} {number}")
        return Scripted(code=0)

    url = one.engine.url.render_as_string(hide_password=False)
    backends, bases = {one.location_id: FakeBackend(write)}, {one.location_id: one.base}
    return Workplace(DatabaseConnection(url, "bench"), backends, bases, "bench")


def _ended(one: System, workplace: Workplace, pipeline_id: int) -> Sequence[int]:
    """Runs whose jobs have ended well, that of the many products first."""
    now = datetime.now(UTC)
    with transaction(one.engine) as session:
        create_wanted_runs(session, pipeline_id, now=now, by="bench")
        run_ids = session.scalars(sa.select(models.ExecutedReductionStep.id)).all()
        start_runs(session, run_ids, now=now, by="bench")
    submitted = hand_in_attempts(workplace, run_ids)
    while _collecting(one) < len(submitted):
        observe_locations(workplace, [one.location_id])
    return submitted


def _collecting(one: System) -> int:
    run = models.ExecutedReductionStep
    with transaction(one.engine) as session:
        where = run.status == RunStatus.COLLECTING_RESULTS
        return session.scalar(sa.select(sa.func.count()).select_from(run).where(where)) or 0


def _registered(one: System) -> int:
    with transaction(one.engine) as session:
        return session.scalar(sa.select(sa.func.count()).select_from(models.DataProduct)) or 0


def _all_of(wanted: Sequence[int], done: Sequence[int]) -> None:
    if sorted(done) != sorted(wanted):
        raise ValueError(f"{len(done)} of {len(wanted)} runs")
