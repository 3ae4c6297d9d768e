"""How long a run may stay where it is: every status but PENDING has an end that comes by itself."""

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.plan.timeouts import TIME_OUTS
from ccat_ops_db.session import transaction
from ccat_ops_db.states import FailureClass, RunStatus
from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.hpc.local.backend import LocalBackend
from ccat_workflow_manager.verbs.cancelling import locations_to_follow
from ccat_workflow_manager.verbs.executing import hand_in_attempts
from ccat_workflow_manager.verbs.failing import Failure, fail_attempts, give_up_uncollected
from ccat_workflow_manager.verbs.observing import observe_locations
from ccat_workflow_manager.verbs.waiting_for_data import fail_unstaged_runs
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import MERGE, Works, eventually, prepare_attempts

GRID = {"key": "grid", "group_by": ["source"]}
LONG = timedelta(seconds=1)
"""More than enough."""


@pytest.fixture
def grid(works: Works) -> Works:
    """An installation with one run that has not started."""
    works.observe("one ")
    works.define(GRID, scripts={"grid": MERGE})
    works.create()
    return works


def after(status: RunStatus) -> datetime:
    return datetime.now(UTC) + TIME_OUTS[status].after + LONG


def put_back(works: Works, **moments: timedelta) -> None:
    """Let moments of the only attempt be longer ago."""
    attempt = models.RunAttempt
    values = {name: getattr(attempt, name) - ago - LONG for name, ago in moments.items()}
    works.execute(sa.update(attempt).values(values))


def test_what_does_not_start_is_only_reported(grid: Works, say: Say) -> None:
    run_id = grid.run().id
    assert "how long" not in say("run", "why", run_id).stdout
    grid.execute(sa.update(models.ExecutedReductionStep).values(created_at=datetime.now(UTC) - timedelta(days=8)))
    assert "it is reported; nothing else" in say("run", "why", run_id).stdout


def test_data_that_do_not_come_in_time_fail_the_attempt_which_is_tried_again(grid: Works) -> None:
    grid.start()
    place = [grid.location_id]
    fail = {"by": "workflow-manager"}
    assert grid.session(lambda session: fail_unstaged_runs(session, place, now=datetime.now(UTC), **fail)) == 0
    now = after(RunStatus.STAGING_DATA)
    assert grid.session(lambda session: fail_unstaged_runs(session, place, now=now, **fail)) == 1
    run = grid.run()
    assert (run.status, run.failure_class, run.retry_at is None) == (
        RunStatus.FAILED,
        FailureClass.INFRASTRUCTURE,
        False,
    )
    assert run.failure == "its data were not there within 1 day, 0:00:00"


def test_data_that_are_there_are_not_said_to_be_late(grid: Works) -> None:
    grid.start()
    fail: dict[str, Any] = {"now": after(RunStatus.STAGING_DATA), "by": "workflow-manager"}
    place, full = [grid.location_id], {"free_bytes": 0, "total_bytes": 1, "space_checked_at": datetime.now(UTC)}
    location = sa.update(models.DataLocation).where(models.DataLocation.id == grid.location_id)
    grid.execute(location.values(full | {"free_space_reserve_bytes": 1}))
    assert grid.session(lambda session: fail_unstaged_runs(session, place, **fail)) == 0, "its disk has no room"
    grid.execute(location.values(dict.fromkeys(full, None) | {"free_space_reserve_bytes": 0}))
    grid.transfer()
    assert grid.session(lambda session: fail_unstaged_runs(session, place, **fail)) == 0, "no worker is there"
    grid.until(RunStatus.COMPLETED)


def test_who_prepares_an_attempt_while_its_data_are_given_up_comes_first(grid: Works) -> None:
    grid.start()
    run, attempt = models.ExecutedReductionStep, models.RunAttempt
    fail: dict[str, Any] = {"now": after(RunStatus.STAGING_DATA), "by": "workflow-manager"}

    def waits() -> bool:
        stuck = sa.text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(grid.session(lambda session: session.scalar(stuck)))

    with ThreadPoolExecutor() as pool:
        with transaction(grid.engine) as worker:
            worker.execute(sa.select(run.id).with_for_update())
            worker.execute(sa.update(attempt).values(prepared_at=datetime.now(UTC)))
            manager = pool.submit(grid.session, lambda it: fail_unstaged_runs(it, [grid.location_id], **fail))
            eventually(waits)
        assert manager.result() == 0
    assert grid.run().status is RunStatus.STAGING_DATA


def test_what_is_said_of_an_attempt_that_another_followed_fails_nothing(grid: Works) -> None:
    grid.start()
    [first] = grid.run().attempts
    grid.fail(grid.run().id, FailureClass.INFRASTRUCTURE)
    grid.retry_now()
    grid.start()
    told = {first.id: Failure(FailureClass.INFRASTRUCTURE, "late news")}
    staging: dict[str, Any] = {"expected": [RunStatus.STAGING_DATA], "now": datetime.now(UTC), "by": "a worker"}
    assert grid.session(lambda session: fail_attempts(session, told, **staging)) == []
    assert grid.run().status is RunStatus.STAGING_DATA


def test_what_was_lost_while_it_ran_has_all_its_time_again(grid: Works) -> None:
    grid.start()
    grid.transfer()
    run, here = models.ExecutedReductionStep, grid.location_id
    seen = [JobState.RUNNING, JobState.LOST]

    class Losing(LocalBackend):
        def __init__(self) -> None:
            pass

        def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
            return dict.fromkeys(job_ids, JobObservation(state=seen.pop(0)))

        def logs(self, job_id: str, *, lines: int = 50) -> str:
            return f"nothing of {job_id} in {lines}"

    prepare_attempts(grid.workplace, [grid.run().id])
    hand_in_attempts(grid.workplace, [grid.run().id])
    grid.execute(sa.update(run).values(trouble_since=datetime.now(UTC) - timedelta(hours=30), trouble_count=1))
    losing = replace(grid.workplace, backends={here: Losing()})
    observe_locations(losing, [here])
    observe_locations(losing, [here])
    assert (grid.run().status, grid.run().trouble_count) == (RunStatus.FAILED, 2)
    assert grid.run().retry_at is not None


def test_a_job_that_nobody_hands_in_is_looked_for_before_its_attempt_fails(grid: Works) -> None:
    grid.start()
    grid.transfer()
    run_id, place = grid.run().id, [grid.location_id]
    assert prepare_attempts(grid.workplace, [run_id]) == [run_id]
    assert observe_locations(grid.workplace, place) == 0
    put_back(grid, prepared_at=TIME_OUTS[RunStatus.STAGING_DATA].after)
    assert grid.session(lambda s: locations_to_follow(s, place, now=datetime.now(UTC))) == place
    assert observe_locations(grid.workplace, place) == 1
    assert grid.run().failure == "its job was not handed in within 1 day, 0:00:00: no worker handed it in"
    assert grid.run().retry_at is not None


def test_a_job_that_the_cluster_has_is_not_failed_however_late_it_is_written_down(grid: Works) -> None:
    grid.start()
    grid.transfer()
    run_id, place = grid.run().id, [grid.location_id]

    class Dying(LocalBackend):
        def __init__(self) -> None:
            self.__dict__.update(grid.workplace.backends[grid.location_id].__dict__)

        def submit(self, spec: object) -> str:
            super().submit(spec)  # type: ignore[arg-type]  # it is handed on as it came
            raise SystemExit

    assert prepare_attempts(grid.workplace, [run_id]) == [run_id]
    with pytest.raises(SystemExit):
        hand_in_attempts(replace(grid.workplace, backends={grid.location_id: Dying()}), [run_id])
    put_back(grid, prepared_at=TIME_OUTS[RunStatus.STAGING_DATA].after)
    observe_locations(grid.workplace, place)
    assert grid.run().status is RunStatus.STAGING_DATA
    assert hand_in_attempts(grid.workplace, [run_id]) == [run_id]
    grid.until(RunStatus.COMPLETED)


def test_a_job_that_does_not_start_in_time_is_taken_back_and_tried_again(grid: Works) -> None:
    grid.start()
    grid.transfer()
    run_id, here = grid.run().id, grid.location_id
    taken_back: list[str] = []

    class Full(LocalBackend):
        def __init__(self) -> None:
            pass

        def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
            is_over = JobState.FINISHED if taken_back else JobState.PENDING
            return dict.fromkeys(job_ids, JobObservation(state=is_over, cancelled=bool(taken_back)))

        def cancel(self, job_ids: Collection[str]) -> None:
            taken_back.extend(job_ids)

        def logs(self, job_id: str, *, lines: int = 50) -> str:
            return f"nothing of {job_id} in {lines}"

    prepare_attempts(grid.workplace, [run_id])
    hand_in_attempts(grid.workplace, [run_id])
    full = replace(grid.workplace, backends={here: Full()})
    observe_locations(full, [here])
    assert taken_back == []
    put_back(grid, submitted_at=TIME_OUTS[RunStatus.SUBMITTED].after)
    observe_locations(full, [here])
    assert len(taken_back) == 1
    observe_locations(full, [here])
    run = grid.run()
    assert (run.status, run.failure_class, run.retry_at is None) == (
        RunStatus.FAILED,
        FailureClass.INFRASTRUCTURE,
        False,
    )


def test_what_cannot_be_collected_in_time_is_given_up_and_its_payload_not_repeated(grid: Works) -> None:
    grid.start()
    grid.transfer()
    run_id, place = grid.run().id, [grid.location_id]
    prepare_attempts(grid.workplace, [run_id])
    hand_in_attempts(grid.workplace, [run_id])
    eventually(lambda: (observe_locations(grid.workplace, place), grid.run().status is RunStatus.COLLECTING_RESULTS)[1])
    now = after(RunStatus.COLLECTING_RESULTS)

    def give_up(at: datetime) -> int:
        return grid.session(lambda session: give_up_uncollected(session, place, now=at, by="manager"))

    assert give_up(datetime.now(UTC)) == 0
    put_back(grid, ended_at=TIME_OUTS[RunStatus.COLLECTING_RESULTS].after)
    assert give_up(datetime.now(UTC)) == 0, "nobody saw it end before, and so nobody tried"
    assert give_up(now) == 1
    run = grid.run()
    assert (run.status, run.failure_class, run.retry_at) == (RunStatus.FAILED, FailureClass.INFRASTRUCTURE, None)
    assert (run.failure or "").endswith(f"what it made stays in {run.attempts[0].directory}")
