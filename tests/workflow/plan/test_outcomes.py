"""What a look at a job means for its run."""

from datetime import timedelta

import pytest

from ccat_ops_db.states import FailureClass, RunStatus
from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.plan.outcomes import Outcome, outcome, waits_for

LIMIT = timedelta(hours=1)
SUBMITTED, RUNNING = RunStatus.SUBMITTED, RunStatus.RUNNING
COLLECT, CANCELLED = Outcome(RunStatus.COLLECTING_RESULTS), Outcome(RunStatus.CANCELLED)


def failed(kind: FailureClass) -> Outcome:
    return Outcome(RunStatus.FAILED, kind)


def finished(exit_code: int, *, timed_out: bool = False, cancelled: bool = False) -> JobObservation:
    return JobObservation(state=JobState.FINISHED, exit_code=exit_code, timed_out=timed_out, cancelled=cancelled)


@pytest.mark.parametrize(
    ("status", "seen", "expected"),
    [
        (SUBMITTED, JobObservation(state=JobState.PENDING), None),
        (SUBMITTED, JobObservation(state=JobState.UNKNOWN), None),
        (SUBMITTED, JobObservation(state=JobState.RUNNING), Outcome(RUNNING)),
        (SUBMITTED, finished(0), COLLECT),
        (SUBMITTED, JobObservation(state=JobState.LOST), failed(FailureClass.INFRASTRUCTURE)),
        (SUBMITTED, JobObservation(state=JobState.FINISHED, cancelled=True), CANCELLED),
        (RUNNING, JobObservation(state=JobState.RUNNING), None),
        (RUNNING, JobObservation(state=JobState.UNKNOWN), None),
        (RUNNING, finished(0), COLLECT),
        (RUNNING, finished(1), failed(FailureClass.PAYLOAD)),
        (RUNNING, finished(65), failed(FailureClass.DATA)),
        (RUNNING, finished(75), failed(FailureClass.INFRASTRUCTURE)),
        (RUNNING, finished(78), failed(FailureClass.CONFIGURATION)),
        (
            RUNNING,
            finished(124, timed_out=True),
            failed(FailureClass.RESOURCES),
        ),
        (RUNNING, finished(143, cancelled=True), CANCELLED),
        (RUNNING, JobObservation(state=JobState.LOST, cancelled=True), CANCELLED),
        (RUNNING, JobObservation(state=JobState.LOST), failed(FailureClass.INFRASTRUCTURE)),
    ],
)
def test_a_look_leads_here(status: RunStatus, seen: JobObservation, expected: Outcome | None) -> None:
    assert outcome(status, seen, unknown_for=timedelta(), time_limit=LIMIT) == expected


@pytest.mark.parametrize("status", [SUBMITTED, RUNNING])
def test_a_job_that_nobody_can_tell_anything_of_counts_as_failed_only_when_it_must_have_ended(
    status: RunStatus,
) -> None:
    seen, grace = JobObservation(state=JobState.UNKNOWN), timedelta(minutes=10)
    second = timedelta(seconds=1)
    assert outcome(status, seen, unknown_for=LIMIT + grace, time_limit=LIMIT) is None
    given_up = outcome(status, seen, unknown_for=LIMIT + grace + second, time_limit=LIMIT)
    assert given_up == failed(FailureClass.INFRASTRUCTURE)


def test_what_is_told_of_a_job_that_does_not_run() -> None:
    waiting = JobObservation(state=JobState.PENDING, queue_reason="2 jobs wait before it")
    assert waits_for(waiting) == "its job waits: 2 jobs wait before it"
    assert waits_for(JobObservation(state=JobState.PENDING)) == "its job waits: the cluster gives no reason"
    told = "the cluster cannot tell what its job does; it counts as failed only after its time limit"
    assert waits_for(JobObservation(state=JobState.UNKNOWN)) == told
    assert waits_for(JobObservation(state=JobState.RUNNING)) is None
    assert waits_for(finished(0)) is None
