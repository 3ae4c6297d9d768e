"""Limits, as the workflow-manager keeps them: nothing is exceeded, nobody starves, and room is used at once."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from ccat.cli import app
from ccat.stack.redis import RedisAddress
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import RunReason, RunStatus
from ccat_ops_db.verbs.limiting import limit_location
from ccat_workflow_manager import managers
from ccat_workflow_manager.managers import advance_runs
from ccat_workflow_manager.verbs.starting import start_runs
from tests.workflow.verbs.manager_process import ManagerProcess
from tests.workflow.verbs.works import LOCATION_NAME, Works, eventually

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}
LIVE = (RunStatus.STAGING_DATA, RunStatus.SUBMITTED, RunStatus.RUNNING, RunStatus.COLLECTING_RESULTS)
STAGING, PENDING = RunStatus.STAGING_DATA, RunStatus.PENDING
_Run = models.ExecutedReductionStep


def staging(works: Works) -> Counter[str]:
    """How many runs of each pipeline were started."""
    names = {one.id: one.name for one in works.all(models.Pipeline)}
    return Counter(names[run.pipeline_id] for run in works.runs(status=STAGING))


def end(works: Works, run_id: int) -> None:
    """Have a run that was started end on paper."""
    to = RunStatus.CANCELLED
    works.session(lambda session: advance(session, _Run, [run_id], to=to, because="a test", by="a test"))


def test_a_full_pipeline_does_not_keep_others_from_starting_however_many_wait(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(managers, "_BATCH", 5)
    works.archived(*(f"p{number}" for number in range(12)))
    works.define(CALIBRATE, name="important", priority=9, limits={"live": 2})
    works.define(CALIBRATE, name="other", limits={"live": 3})
    works.create()
    works.advance()
    assert staging(works) == {"important": 2, "other": 3}
    told = Counter(run.waiting_for for run in works.runs(status=PENDING))
    assert told == {
        "2 of 2 runs of pipeline `important` are live": 10,
        "3 of 3 runs of pipeline `other` are live": 9,
    }
    assert works.advance() == 0


def test_what_one_limit_holds_takes_no_room_of_another(works: Works) -> None:
    works.archived(*(f"p{number}" for number in range(5)))
    works.define(CALIBRATE, name="important", priority=9, limits={"live": 1})
    works.define(CALIBRATE, name="other")
    works.session(lambda session: limit_location(session, LOCATION_NAME, 3))
    works.create()
    works.advance()
    assert staging(works) == {"important": 1, "other": 2}


def test_what_waits_for_a_limit_keeps_its_place(works: Works) -> None:
    works.define(CALIBRATE, limits={"live": 1})
    works.archived("first", "second")
    works.create()
    works.advance()
    [waits] = works.runs(status=PENDING)
    assert waits.held_by_limit
    works.archived("third")
    works.create()
    end(works, works.run(status=STAGING).id)
    works.advance()
    assert works.run(status=STAGING).id == waits.id


def test_with_room_for_one_run_everything_comes_to_its_end_one_after_the_other(works: Works) -> None:
    works.define(CALIBRATE, GRID, limits={"live": 1})
    for text in ("one ", "two "):
        works.observe(text)

    def look() -> bool:
        works.round()
        assert sum(run.status in LIVE for run in works.runs()) <= 1
        return works.activity().is_over

    eventually(look)
    assert Counter(run.reduction_step.key for run in works.runs(status=RunStatus.COMPLETED))["calibrate"] == 2


def test_what_waits_for_something_else_takes_no_room(works: Works) -> None:
    works.define(CALIBRATE, GRID, limits={"live": 1})
    works.observe("one ")
    works.until(RunStatus.COMPLETED)
    works.create()
    [grid] = works.runs(status=PENDING)
    works.apply(
        {
            "software": [
                {"name": "toy-calibrate", "versions": [works.version(), works.version(version="2.0", series="2")]}
            ]
        }
    )
    works.create()
    assert works.advance() > 0
    works.advance()
    assert [run.reduction_step.key for run in works.runs(status=STAGING)] == ["calibrate"]
    [waits] = works.runs(id=grid.id)
    assert (waits.waiting_for or "").startswith("waits for calibrate")
    assert not waits.held_by_limit


def test_what_waits_for_a_limit_is_looked_at_when_a_run_ends_and_not_from_time_to_time(works: Works) -> None:
    works.define(CALIBRATE, limits={"live": 1})
    works.archived("one", "two")
    works.create()
    context = works.context()
    while advance_runs(context):
        pass
    assert context.due is None
    ends = {f"executed_reduction_step:{status}" for status in ("completed", "failed", "cancelled")}
    assert ends <= set(managers.workflow_manager(context).wakes_on)


def test_a_manager_looks_again_when_the_window_for_redoing_opens(works: Works) -> None:
    soon = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=5)
    window = {"from": f"{soon:%H:%M}", "to": f"{soon + timedelta(hours=1):%H:%M}"}
    works.define(CALIBRATE, limits={"redo_between": window})
    works.archived("one")
    works.create()
    works.execute(sa.update(_Run).values(reason=RunReason.RECIPE_CHANGED))
    context = works.context()
    advance_runs(context)
    assert works.run().waiting_for == (
        f"pipeline `toy` redoes from {window['from']} to {window['to']} (UTC) only: it may again at {soon:%F %H:%M} UTC"
    )
    assert context.due == soon


def test_a_run_is_told_its_place_among_those_that_wait_for_the_same(works: Works) -> None:
    works.define(CALIBRATE, limits={"live": 1})
    works.archived("one", "two", "three")
    works.create()
    works.advance()
    environment = {"CCAT_OPS_DB_URL": works.engine.url.render_as_string(hide_password=False)}
    places = []
    for run in works.runs(status=PENDING):
        said = CliRunner().invoke(app, ["run", "why", str(run.id)], env=environment).stdout
        assert "what holds it up: 1 of 1 runs of pipeline `toy` are live\n" in said
        places.append(next(line for line in said.splitlines() if line.startswith("its place")))
    assert places == [f"its place: {number} of 2 runs that wait for this, as of now" for number in (1, 2)]
    works.define(CALIBRATE, limits={"live": 9})
    said = CliRunner().invoke(app, ["run", "why", str(works.runs(status=PENDING)[0].id)], env=environment).stdout
    assert "what holds it up" not in said


def test_of_two_managers_that_start_runs_of_two_pipelines_at_once_none_exceeds_the_limit_of_their_location(
    works: Works,
) -> None:
    works.archived("one", "two")
    works.define(CALIBRATE, name="first")
    works.define(CALIBRATE, name="second")
    works.session(lambda session: limit_location(session, LOCATION_NAME, 3))
    works.create()
    runs = works.runs()
    halves = [[run.id for run in runs if run.pipeline_id == one.id] for one in works.all(models.Pipeline)]
    together = threading.Barrier(2, timeout=10)

    def start(run_ids: list[int]) -> int:
        with transaction(works.engine) as session:
            session.execute(sa.text("SELECT 1"))
            together.wait()
            started = start_runs(session, run_ids, now=datetime.now(UTC), by="a test")
            time.sleep(0.2)  # the other one counts meanwhile, unless it has to wait
            return len(started.started)

    with ThreadPoolExecutor() as pool:
        assert sum(pool.map(start, halves)) == 3
    assert len(works.runs(status=STAGING)) == 3
    assert [run.waiting_for for run in works.runs(status=PENDING)] == [f"3 of 3 runs at `{LOCATION_NAME}` are live"]


@pytest.fixture
def two_managers(works: Works, redis_address: RedisAddress, tmp_path: Path) -> Iterator[tuple[ManagerProcess, ...]]:
    both = tuple(
        ManagerProcess("workflow-manager", works, redis_address, log=tmp_path / f"manager-{number}")
        for number in range(2)
    )
    for manager in both:
        eventually(manager.has_started)
    yield both
    for manager in both:
        manager.stop()


@pytest.mark.usefixtures("two_managers")
def test_two_processes_never_exceed_a_limit_and_use_room_at_once(works: Works) -> None:
    works.session(lambda session: limit_location(session, LOCATION_NAME, 3))
    works.define(CALIBRATE, name="first", limits={"live": 2})
    works.define(CALIBRATE, name="second", limits={"live": 2})
    works.archived(*(f"p{number}" for number in range(6)))
    works.create()

    def full() -> bool:
        found = staging(works)
        assert found.total() <= 3
        assert max(found.values(), default=0) <= 2
        return found.total() == 3

    for _ in range(4):
        begun = time.monotonic()
        eventually(full)
        assert time.monotonic() - begun < 2, "it was found by polling"
        end(works, works.runs(status=STAGING)[0].id)
