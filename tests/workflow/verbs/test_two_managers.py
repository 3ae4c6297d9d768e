"""Two trigger-managers on one database, as two hosts would run them: nothing is made twice, and nothing is missed."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat.stack.redis import RedisAddress
from ccat_ops_db import models
from ccat_ops_db.gap.evaluation import come_by
from ccat_ops_db.session import in_transaction
from ccat_ops_db.states import RunStatus
from ccat_workflow_manager.verbs.requesting import Opened, Wish, open_wish
from tests.workflow.verbs.manager_process import ManagerProcess
from tests.workflow.verbs.works import Works, eventually

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID = {"key": "grid", "group_by": ["source"]}
MINUTE = timedelta(minutes=1)
CHANGES = sa.select(sa.func.count()).select_from(models.PendingChange)


@pytest.fixture
def managers(works: Works, redis_address: RedisAddress, tmp_path: Path) -> Iterator[tuple[ManagerProcess, ...]]:
    """Two of them; whoever is not killed lives until the end."""
    with ExitStack() as whatever_happens:
        both = tuple(
            ManagerProcess("trigger-manager", works, redis_address, log=tmp_path / f"manager-{number}")
            for number in range(2)
        )
        for manager in both:
            whatever_happens.callback(manager.kill)
        for manager in both:
            eventually(manager.has_started)
        yield both
        for manager in both:
            manager.stop()


def test_each_sub_group_gets_one_run_while_packages_arrive_and_a_manager_dies(
    works: Works, managers: tuple[ManagerProcess, ...]
) -> None:
    works.define(CALIBRATE, GRID)
    for number in range(20):
        works.archived(f"p{number}", source=["M17", "Saturn"][number % 2])
        if number == 10:
            managers[0].kill()
    eventually(lambda: not works.session(lambda session: session.scalar(CHANGES)))
    runs = Counter((run.reduction_step.key, run.sub_group_key) for run in works.runs(status=RunStatus.PENDING))
    assert set(runs.values()) == {1}
    assert Counter(step for step, _ in runs) == {"calibrate": 20, "grid": 2}


@pytest.mark.usefixtures("managers")
def test_each_sub_group_tick_and_request_is_acted_on_once_while_both_managers_live(works: Works) -> None:
    this_minute = datetime.now(UTC).replace(second=0, microsecond=0)
    ticks = {f"nightly-{number}": this_minute - (2 + number) * MINUTE for number in range(4)}
    works.define(CALIBRATE, GRID, name="always")
    works.define(GRID, name="on-request", trigger="manual")
    for name, tick in ticks.items():
        works.define(GRID, name=name, trigger="cron", trigger_config={"cron": f"{tick:%M %H} * * *"})
    arrive(works, "first")
    eventually(lambda: works.session(is_quiet))
    assert works.all(models.Trigger) == []
    for name, tick in ticks.items():
        arrive(works, f"before {name}")
        works.session(partial(come_due, pipeline=name, tick=tick))
        arrive(works, f"after {name}")
        if name == "nightly-1":
            assert in_transaction(works.engine, ask).requested == 2
    eventually(lambda: works.session(is_quiet))
    triggers, made, steps = works.session(triggers_and_runs)
    assert triggers == Counter([("on-request", None), *ticks.items()])
    assert set(made.values()) == {1}
    each = Counter({(name, "grid", tick): 2 for name, tick in [("always", None), *triggers]})
    assert steps == each + Counter({("always", "calibrate", None): 2 * 9})


def arrive(works: Works, name: str) -> None:
    """A package of each of two sources."""
    for source in ("M17", "Saturn"):
        works.archived(f"{name} of {source}", source=source)


def is_quiet(session: Session) -> bool:
    """Whether every pipeline was looked at, after all that happened and came due."""
    evaluation = models.PipelineEvaluation
    waits = sa.or_(evaluation.due_at.is_(None), evaluation.due_at <= sa.func.now())
    pipelines = sa.select(models.Pipeline.id).outerjoin(evaluation, evaluation.pipeline_id == models.Pipeline.id)
    return not session.scalar(CHANGES) and not session.scalars(pipelines.where(waits)).all()


def come_due(session: Session, *, pipeline: str, tick: datetime) -> None:
    """Let it be as if nobody had looked at a pipeline since shortly before this tick."""
    evaluation = models.PipelineEvaluation
    is_its = evaluation.pipeline_id == sa.select(models.Pipeline.id).filter_by(name=pipeline).scalar_subquery()
    session.execute(sa.update(evaluation).where(is_its).values(last_tick_at=tick - MINUTE))
    come_by(session, is_its)


def ask(session: Session) -> Opened:
    return open_wish(session, Wish("on-request", "a test"), now=datetime.now(UTC), by="a person")


Made = tuple[Counter[tuple[str, datetime | None]], Counter[tuple[int, str]], Counter[tuple[str, str, datetime | None]]]


def triggers_and_runs(session: Session) -> Made:
    """How often there are: a trigger of a pipeline and tick; a run of a sub-group; one of a step for such a trigger."""
    run, step, trigger = models.ExecutedReductionStep, models.ReductionStep, models.Trigger
    pipeline = models.Pipeline
    opened = sa.select(pipeline.name, trigger.tick_at).join(trigger, trigger.pipeline_id == pipeline.id)
    created = (
        sa.select(pipeline.name, step.key, trigger.tick_at, step.id, run.sub_group_key)
        .join_from(run, pipeline, pipeline.id == run.pipeline_id)
        .join(step, step.id == run.reduction_step_id)
        .outerjoin(trigger, trigger.id == run.trigger_id)
    )
    rows = session.execute(created).all()
    return (
        Counter((name, tick) for name, tick in session.execute(opened)),
        Counter((step_id, sub_group) for *_, step_id, sub_group in rows),
        Counter((name, key, tick) for name, key, tick, *_ in rows),
    )
