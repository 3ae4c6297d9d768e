"""What a look at a job means for its run."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ccat_ops_db.plan.timeouts import TIME_OUTS
from ccat_ops_db.states import FailureClass, Resource, RunStatus
from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.plan.outcomes import Followed, Outcome, has_to_end, outcome, waits_for

NOW = datetime(2026, 4, 5, 12, 0, tzinfo=UTC)
LIMIT, SECOND = timedelta(hours=1), timedelta(seconds=1)
SUBMITTED = Followed(RunStatus.SUBMITTED, LIMIT, submitted_at=NOW - LIMIT)
RUNNING = replace(SUBMITTED, status=RunStatus.RUNNING)
COLLECT = Outcome(RunStatus.COLLECTING_RESULTS)
WAITING, UNKNOWN, LOST = (JobObservation(state=one) for one in (JobState.PENDING, JobState.UNKNOWN, JobState.LOST))
BEGAN = JobObservation(state=JobState.RUNNING, started_at=NOW - LIMIT)


def failed(kind: FailureClass, exhausted: Resource | None = None) -> Outcome:
    return Outcome(RunStatus.FAILED, failure=kind, exhausted=exhausted)


def finished(exit_code: int, *, timed_out: bool = False, cancelled: bool = False) -> JobObservation:
    return JobObservation(state=JobState.FINISHED, exit_code=exit_code, timed_out=timed_out, cancelled=cancelled)


@pytest.mark.parametrize(
    ("followed", "seen", "expected"),
    [
        (SUBMITTED, WAITING, None),
        (SUBMITTED, UNKNOWN, None),
        (SUBMITTED, BEGAN, Outcome(RunStatus.RUNNING)),
        (SUBMITTED, finished(0), COLLECT),
        (SUBMITTED, LOST, failed(FailureClass.INFRASTRUCTURE)),
        (RUNNING, BEGAN, None),
        (RUNNING, UNKNOWN, None),
        (RUNNING, finished(0), COLLECT),
        (RUNNING, finished(1), failed(FailureClass.PAYLOAD)),
        (RUNNING, finished(65), failed(FailureClass.DATA)),
        (RUNNING, finished(75), failed(FailureClass.INFRASTRUCTURE)),
        (RUNNING, finished(78), failed(FailureClass.CONFIGURATION)),
        (RUNNING, finished(124, timed_out=True), failed(FailureClass.RESOURCES, Resource.TIME)),
        (
            RUNNING,
            replace(finished(137), out_of_memory=True),
            failed(FailureClass.RESOURCES, Resource.MEMORY),
        ),
        (RUNNING, LOST, failed(FailureClass.INFRASTRUCTURE)),
    ],
)
def test_a_look_leads_here(followed: Followed, seen: JobObservation, expected: Outcome | None) -> None:
    assert outcome(followed, seen, now=NOW) == expected


def test_a_job_that_somebody_else_cancelled_at_the_cluster_is_cancelled() -> None:
    found = outcome(RUNNING, replace(finished(143, cancelled=True), started_at=NOW - LIMIT), now=NOW)
    assert found == Outcome(RunStatus.CANCELLED, "its job was cancelled at the cluster, by somebody else than us")


# A wish to cancel


@pytest.mark.parametrize(
    ("seen", "to", "answer"),
    [
        (finished(143, cancelled=True), RunStatus.CANCELLED, "cancelled"),
        (replace(LOST, cancelled=True), RunStatus.CANCELLED, "cancelled"),
        (LOST, RunStatus.CANCELLED, "cancelled"),
        (finished(1), RunStatus.CANCELLED, "cancelled"),
        (finished(0, cancelled=True), RunStatus.CANCELLED, "cancelled"),
        (finished(0), RunStatus.COLLECTING_RESULTS, "too late: its job had ended well"),
        (BEGAN, None, None),
        (UNKNOWN, None, None),
    ],
)
def test_a_run_that_is_to_be_cancelled_is_so_when_its_job_is_over_unless_that_ended_well(
    seen: JobObservation, to: RunStatus | None, answer: str | None
) -> None:
    found = outcome(replace(RUNNING, is_to_be_cancelled=True), seen, now=NOW)
    assert (found and found.to, found and found.answer) == (to, answer)


def test_a_job_ends_when_that_is_wished_and_not_twice() -> None:
    wished = replace(RUNNING, is_to_be_cancelled=True)
    assert [has_to_end(wished, one, now=NOW) for one in (WAITING, BEGAN, UNKNOWN, LOST, finished(0))] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert not has_to_end(RUNNING, BEGAN, now=NOW)
    assert "it is being cancelled" in (waits_for(wished, BEGAN) or "")


# Time-outs


@pytest.mark.parametrize("followed", [SUBMITTED, RUNNING])
def test_a_job_that_nobody_can_tell_anything_of_counts_as_failed_only_when_it_must_have_ended(
    followed: Followed,
) -> None:
    since = NOW - LIMIT - timedelta(minutes=10)
    assert outcome(replace(followed, unknown_since=since), UNKNOWN, now=NOW) is None
    given_up = outcome(replace(followed, unknown_since=since), UNKNOWN, now=NOW + SECOND)
    assert given_up is not None
    assert (given_up.failure, given_up.may_live) == (FailureClass.INFRASTRUCTURE, True)
    wished = replace(followed, unknown_since=since, is_to_be_cancelled=True)
    cancelled = outcome(wished, UNKNOWN, now=NOW + SECOND)
    assert cancelled is not None
    assert (cancelled.to, cancelled.may_live) == (RunStatus.CANCELLED, True)


def test_a_job_that_runs_on_after_its_limit_is_ended_and_gets_more_time() -> None:
    start = NOW - LIMIT - TIME_OUTS[RunStatus.RUNNING].after
    assert not has_to_end(RUNNING, replace(BEGAN, started_at=start), now=NOW)
    assert has_to_end(RUNNING, replace(BEGAN, started_at=start - SECOND), now=NOW)
    ended = replace(finished(143, cancelled=True), started_at=start - SECOND, ended_at=NOW)
    found = outcome(RUNNING, ended, now=NOW + LIMIT)
    assert found is not None
    assert (found.failure, found.exhausted) == (FailureClass.RESOURCES, Resource.TIME)
    assert found.because == "its job ran on after its time limit of 1:00:00, and was ended"


def test_a_job_that_does_not_start_is_taken_back_and_tried_again() -> None:
    late = replace(SUBMITTED, submitted_at=NOW - TIME_OUTS[RunStatus.SUBMITTED].after - SECOND)
    assert has_to_end(late, WAITING, now=NOW)
    assert not has_to_end(late, UNKNOWN, now=NOW)
    taken_back = JobObservation(state=JobState.FINISHED, cancelled=True)
    found = outcome(late, taken_back, now=NOW)
    assert found is not None
    assert (found.to, found.failure) == (RunStatus.FAILED, FailureClass.INFRASTRUCTURE)
    assert found.because == "the cluster did not start its job within 7 days, 0:00:00"


def test_every_status_in_which_a_run_may_stay_has_a_time_out() -> None:
    assert set(TIME_OUTS) == set(RunStatus) - {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}


def test_what_is_told_of_a_job_that_does_not_run() -> None:
    assert waits_for(SUBMITTED, replace(WAITING, queue_reason="2 jobs wait")) == "its job waits: 2 jobs wait"
    assert waits_for(SUBMITTED, WAITING) == "its job waits: the cluster gives no reason"
    told = "the cluster cannot tell what its job does; it counts as failed only after its time limit"
    assert waits_for(SUBMITTED, UNKNOWN) == told
    away = replace(UNKNOWN, trouble="its disk is away: /data")
    assert waits_for(RUNNING, away) == told.replace("does;", "does (its disk is away: /data);")
    assert waits_for(RUNNING, BEGAN) is None
    assert waits_for(RUNNING, finished(0)) is None
