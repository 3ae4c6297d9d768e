"""Staging goes on for as long as any run wants it, and no longer; who comes while it ends gets it all the same."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.managers import TransferContext, tick
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.scheduling import LANES, schedule_next
from ccat_data_transfer.verbs.staging import stage
from ccat_ops_db import models
from ccat_ops_db.session import create_engine, transaction
from ccat_ops_db.states import PhysicalCopyStatus, RunStatus, Status
from ccat_ops_db.verbs.cancelling import request_cancel
from ccat_ops_db.verbs.staging import cancel_unwanted, request_staging
from tests.workflow.verbs.works import Works, eventually


@pytest.fixture
def two(works: Works) -> Works:
    """Two runs in STAGING_DATA that share one staging job, which nobody has begun."""
    works.define({"key": "one", "group_by": ["source"]}, {"key": "two", "group_by": ["source"]})
    works.observe(os.urandom(3_000_000).hex())
    works.create()
    works.start()
    assert {run.status for run in works.runs()} == {RunStatus.STAGING_DATA}
    return works


def cancel_run(works: Works, step: str) -> None:
    [run] = [run for run in works.runs() if run.reduction_step.key == step]
    works.session(lambda session: request_cancel(session, [run.id], because="clouds", by="a", now=datetime.now(UTC)))
    eventually(lambda: works.follow() == 0 and works.run(id=run.id).status is RunStatus.CANCELLED)


def cancel_jobs(works: Works) -> int:
    return works.session(lambda session: cancel_unwanted(session, by="transfer-manager"))


def statuses(works: Works) -> list[Status]:
    return [job.status for job in works.all(models.StagingJob)]


def ask(works: Works) -> list[int]:
    packages = [package.id for package in works.all(models.RawDataPackage)]
    return works.session(lambda session: request_staging(session, packages, works.location_id))


def test_staging_is_cancelled_once_the_last_run_that_wants_it_is_and_a_run_that_comes_again_asks_anew(
    two: Works,
) -> None:
    cancel_run(two, "one")
    assert cancel_jobs(two) == 0
    cancel_run(two, "two")
    assert cancel_jobs(two) == 1
    assert statuses(two) == [Status.CANCELLED]
    assert two.transfer() == 0
    two.define({"key": "three", "group_by": ["source"]}, name="other")
    two.until(RunStatus.COMPLETED)
    assert statuses(two) == [Status.CANCELLED, Status.COMPLETED]


def test_the_transfer_manager_cancels_in_its_round(two: Works) -> None:
    for step in ("one", "two"):
        cancel_run(two, step)
    assert tick(TransferContext(engine=two.engine, app=two.post, name="transfer-manager")) == 1
    [change] = two.all(models.StatusChange, noun="staging_job", to_status="cancelled")
    assert (change.by, change.because) == ("transfer-manager", "no run wants it any more")


def test_what_a_failed_run_waits_for_goes_on_as_long_as_it_is_to_be_tried_again(two: Works) -> None:
    for run in two.runs():
        two.fail(run.id)
    two.execute(sa.update(models.ExecutedReductionStep).values(retry_at=datetime.now(UTC) + timedelta(hours=1)))
    assert cancel_jobs(two) == 0
    two.execute(sa.update(models.ExecutedReductionStep).values(retry_at=None))
    assert cancel_jobs(two) == 1


def test_what_no_run_ever_asked_for_is_nobodys_to_cancel(works: Works) -> None:
    works.observe("one ")
    assert len(ask(works)) == 1
    assert cancel_jobs(works) == 0
    assert statuses(works) == [Status.PENDING]


def test_staging_that_is_under_way_ends_at_its_next_chunk_and_leaves_nothing_half(two: Works) -> None:
    [lane] = [lane for lane in LANES if lane.operation is Operation.STAGING]
    lease = timedelta(minutes=1)
    job_id = two.session(lambda session: schedule_next(session, lane, two.location_id, by="manager", lease=lease))
    assert job_id is not None
    engine = create_engine(two.engine.url.render_as_string(hide_password=False), application_name="worker")
    ended: list[int] = []

    @sa.event.listens_for(engine, "begin")
    def cancel_in_the_middle(_: Any) -> None:
        if not ended and list(two.root.rglob("*.partial-*/*")):
            for step in ("one", "two"):
                cancel_run(two, step)
            ended.append(cancel_jobs(two))

    stage(Worker(engine=engine, name="worker", lease=timedelta(microseconds=1)), job_id)
    engine.dispose()

    assert (ended, statuses(two)) == ([1], [Status.CANCELLED])
    assert list((two.root / "cologne/ramses").rglob("raw/*")) == []
    assert PhysicalCopyStatus.STAGED not in {copy.status for copy in two.all(models.PhysicalCopy)}
    assert cancel_jobs(two) == 0


def test_what_is_asked_for_just_now_is_not_cancelled(two: Works) -> None:
    packages = [package.id for package in two.all(models.RawDataPackage)]
    for step in ("one", "two"):
        cancel_run(two, step)
    with transaction(two.engine) as session:
        assert request_staging(session, packages, two.location_id) == []
        assert cancel_jobs(two) == 0
    assert cancel_jobs(two) == 1


def test_who_asks_while_staging_is_being_cancelled_waits_for_that_and_gets_a_job_of_his_own(two: Works) -> None:
    for step in ("one", "two"):
        cancel_run(two, step)
    with ThreadPoolExecutor(1) as other:
        with transaction(two.engine) as session:
            assert cancel_unwanted(session, by="transfer-manager") == 1
            asked = other.submit(ask, two)
            eventually(lambda: _waits(two))
        assert len(asked.result(10)) == 1
    assert statuses(two) == [Status.CANCELLED, Status.PENDING]


def test_who_asks_while_another_does_waits_and_gets_the_job_that_is_left_without_it(works: Works) -> None:
    works.observe("one ")
    [package] = works.all(models.RawDataPackage)
    with ThreadPoolExecutor(1) as other, transaction(works.engine) as session:
        assert len(request_staging(session, [package.id], works.location_id)) == 1
        asked = other.submit(ask, works)
        eventually(lambda: _waits(works))
        session.rollback()
        assert len(asked.result(10)) == 1
    with ThreadPoolExecutor(1) as other:
        with transaction(works.engine) as session:
            session.execute(sa.delete(models.StagingJob))
            assert len(request_staging(session, [package.id], works.location_id)) == 1
            asked = other.submit(ask, works)
            eventually(lambda: _waits(works))
        assert asked.result(10) == []
    assert statuses(works) == [Status.PENDING]


def _waits(works: Works) -> bool:
    """Whether anybody waits for a lock."""
    with transaction(works.engine) as session:
        return bool(session.scalar(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
