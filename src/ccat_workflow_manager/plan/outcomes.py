from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ccat_ops_db.plan.timeouts import TIME_OUTS, UNKNOWN_TOO_LONG
from ccat_ops_db.states import FailureClass, Resource, RunStatus
from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.hpc.failures import failure_class
from ccat_workflow_manager.plan.resources import exhausted

_IS_BEING_CANCELLED: Final = "it is being cancelled: the cluster was asked to end its job, and has not confirmed that"
_TOO_LATE: Final = "too late: its job had ended well"
_CANCELLED: Final = "cancelled"


@dataclass(frozen=True)
class Followed:
    """What the meaning of a look at a job depends on, beside the look."""

    status: RunStatus
    time_limit: timedelta
    submitted_at: datetime
    unknown_since: datetime | None = None
    is_to_be_cancelled: bool = False

    def is_overdue(self, started_at: datetime | None, *, now: datetime) -> bool:
        """Whether the time-out of its status is over."""
        since = started_at or self.submitted_at
        timeout = TIME_OUTS[RunStatus.SUBMITTED if started_at is None else RunStatus.RUNNING]
        return now > timeout.ends_at(since, time_limit=self.time_limit)


@dataclass(frozen=True)
class Outcome:
    """Where a look at its job takes a run."""

    to: RunStatus
    because: str = ""
    """Why, where the job alone does not say it."""
    failure: FailureClass | None = None
    """Kind of the failure where it is FAILED."""
    exhausted: Resource | None = None
    """Of what it needed more than it had."""
    answer: str | None = None
    """What became of the wish to cancel it, if there was one."""
    may_live: bool = False
    """Whether its job may live somewhere all the same."""


def outcome(followed: Followed, seen: JobObservation, *, now: datetime) -> Outcome | None:
    """What an observation means for a SUBMITTED or RUNNING run; None where there is nothing to do.

    UNKNOWN is no failure, until the job must have ended even if it started when it was last known.
    """
    if seen.state is JobState.RUNNING and followed.status is RunStatus.SUBMITTED:
        return Outcome(RunStatus.RUNNING)
    if seen.state is JobState.UNKNOWN and _is_given_up(followed, now=now):
        return _of_unknown(followed)
    if not seen.is_over:
        return None
    if followed.is_to_be_cancelled:
        return _of_wish(seen)
    return _of_cancelled(followed, seen, now=now) if seen.cancelled else _of_end(seen)


def has_to_end(followed: Followed, seen: JobObservation, *, now: datetime) -> bool:
    """Whether the cluster is to end a job: somebody wishes that, or the time-out of its status is over."""
    if seen.is_over:
        return False
    return followed.is_to_be_cancelled or (
        seen.state is not JobState.UNKNOWN and followed.is_overdue(seen.started_at, now=now)
    )


def waits_for(followed: Followed, seen: JobObservation) -> str | None:
    """Why a run does not go on as it should, or that nobody can tell; None where it does."""
    if seen.is_over:
        return None
    if followed.is_to_be_cancelled:
        return _IS_BEING_CANCELLED
    match seen.state:
        case JobState.PENDING:
            return f"its job waits: {seen.queue_reason or 'the cluster gives no reason'}"
        case JobState.UNKNOWN:
            why = f" ({seen.trouble})" if seen.trouble else ""
            return f"the cluster cannot tell what its job does{why}; it counts as failed only after its time limit"
        case _:
            return None


def _is_given_up(followed: Followed, *, now: datetime) -> bool:
    since = followed.unknown_since
    return since is not None and now - since > followed.time_limit + UNKNOWN_TOO_LONG


def _of_unknown(followed: Followed) -> Outcome:
    because = "the cluster could not tell what became of the job until its time limit was long over"
    if followed.is_to_be_cancelled:
        return Outcome(RunStatus.CANCELLED, because, answer=f"{_CANCELLED}: {because}", may_live=True)
    return Outcome(RunStatus.FAILED, because, FailureClass.INFRASTRUCTURE, may_live=True)


def _of_wish(seen: JobObservation) -> Outcome:
    """A job that ended well before the cluster heard of the wish is as any other; a failure is not tried again."""
    if seen.cancelled or failure_class(seen) is not None:
        return Outcome(RunStatus.CANCELLED, answer=_CANCELLED)
    return Outcome(RunStatus.COLLECTING_RESULTS, answer=_TOO_LATE)


def _of_cancelled(followed: Followed, seen: JobObservation, *, now: datetime) -> Outcome:
    """A job that was ended though nobody wished its run to be cancelled: by its time-out, or by somebody else."""
    if not followed.is_overdue(seen.started_at, now=seen.ended_at or now):
        because = "its job was cancelled at the cluster, by somebody else than us"
        return Outcome(RunStatus.CANCELLED, because)
    if seen.started_at is None:
        because = f"the cluster did not start its job within {TIME_OUTS[RunStatus.SUBMITTED].after}"
        return Outcome(RunStatus.FAILED, because, FailureClass.INFRASTRUCTURE)
    because = f"its job ran on after its time limit of {followed.time_limit}, and was ended"
    return Outcome(RunStatus.FAILED, because, FailureClass.RESOURCES, Resource.TIME)


def _of_end(seen: JobObservation) -> Outcome:
    failure = failure_class(seen)
    if failure is None:
        return Outcome(RunStatus.COLLECTING_RESULTS)
    return Outcome(RunStatus.FAILED, failure=failure, exhausted=exhausted(seen))
