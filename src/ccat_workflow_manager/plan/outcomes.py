from dataclasses import dataclass

from ccat_ops_db.states import FailureClass, RunStatus
from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.hpc.failures import failure_class


@dataclass(frozen=True)
class Outcome:
    """Where a look at its job takes a run, and the kind of failure where that is FAILED."""

    to: RunStatus
    failure: FailureClass | None = None


def outcome(status: RunStatus, observation: JobObservation) -> Outcome | None:
    """What an observation means for a SUBMITTED or RUNNING run; None where there is nothing to do."""
    if observation.state is JobState.RUNNING and status is RunStatus.SUBMITTED:
        return Outcome(RunStatus.RUNNING)
    if not observation.is_over:
        return None
    failure = failure_class(observation)
    if observation.cancelled:
        return Outcome(RunStatus.CANCELLED)
    return Outcome(RunStatus.COLLECTING_RESULTS) if failure is None else Outcome(RunStatus.FAILED, failure)
