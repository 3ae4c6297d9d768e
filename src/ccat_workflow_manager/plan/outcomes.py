from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from ccat_ops_db.states import FailureClass, RunStatus
from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.hpc.failures import failure_class

_UNKNOWN_TOO_LONG: Final = timedelta(minutes=10)
"""Beyond its time limit, after which a job that nobody can tell anything of has ended, wherever it ran."""


@dataclass(frozen=True)
class Outcome:
    """Where a look at its job takes a run, and the kind of failure where that is FAILED."""

    to: RunStatus
    failure: FailureClass | None = None


def outcome(
    status: RunStatus, observation: JobObservation, *, unknown_for: timedelta, time_limit: timedelta
) -> Outcome | None:
    """What an observation means for a SUBMITTED or RUNNING run; None where there is nothing to do.

    UNKNOWN is no failure, until the job must have ended even if it started when it was last known.
    """
    if observation.state is JobState.RUNNING and status is RunStatus.SUBMITTED:
        return Outcome(RunStatus.RUNNING)
    if observation.state is JobState.UNKNOWN and unknown_for > time_limit + _UNKNOWN_TOO_LONG:
        return Outcome(RunStatus.FAILED, FailureClass.INFRASTRUCTURE)
    if not observation.is_over:
        return None
    failure = failure_class(observation)
    if observation.cancelled:
        return Outcome(RunStatus.CANCELLED)
    return Outcome(RunStatus.COLLECTING_RESULTS) if failure is None else Outcome(RunStatus.FAILED, failure)


def waits_for(observation: JobObservation) -> str | None:
    """Why a job does not run, or that nobody can tell; None where it runs or is over."""
    match observation.state:
        case JobState.PENDING:
            return f"its job waits: {observation.queue_reason or 'the cluster gives no reason'}"
        case JobState.UNKNOWN:
            return "the cluster cannot tell what its job does; it counts as failed only after its time limit"
        case _:
            return None
