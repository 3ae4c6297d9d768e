"""What a look at a job means for its run."""

import pytest

from ccat_ops_db.states import FailureClass, RunStatus
from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.plan.outcomes import Outcome, outcome

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
    assert outcome(status, seen) == expected
