"""What a Job and its pods together say of a job."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from kubernetes.client import V1ContainerState, V1ContainerStateTerminated, V1JobCondition, V1PodCondition

from ccat_workflow_manager.hpc.cluster.conclusion import ABSENT, Heard, Phase
from ccat_workflow_manager.hpc.cluster.marks import Marks
from ccat_workflow_manager.hpc.kubernetes.seeing import SeenJob, SeenPod

_OVERDUE: Final = timedelta(minutes=2)
"""After a pod should have ended, until its node counts as gone: more than clocks differ."""
_BEING_MADE: Final = frozenset({"ContainerCreating", "PodInitializing"})
"""What a container waits for where all is well; all else that one waits for is a trouble."""
_NEVER_RAN: Final = frozenset({"StartError", "ContainerCannotRun"})
_FORGOTTEN: Final = "ContainerStatusUnknown"
_BY_SIGNAL: Final = 128
_ENDED_FROM_OUTSIDE: Final = frozenset({137, 143})
"""What software leaves that SIGKILL or SIGTERM ended."""
_DEADLINE: Final = "DeadlineExceeded"
_CUT_OFF: Final = "somebody deleted its Job while it ran"
_NOT_THERE: Final = "neither its Job nor its pod is there: its time after the end was over, or somebody deleted it"


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """Why the container of a pod does not start, and since when at least its node has tried."""

    why: str
    since: datetime


def pod_of(pods: Sequence[SeenPod], *, started_as: str | None) -> SeenPod | None:
    """Return the pod that took the start mark, else the last that was made."""
    by_age = sorted(pods, key=lambda pod: (pod.name == started_as, pod.made_at or datetime.min.replace(tzinfo=UTC)))
    return by_age[-1] if by_age else None


def stuck(pod: SeenPod | None) -> Stuck | None:
    """Say why a container does not start, where more patience alone is not likely to help."""
    waiting = _state(pod).waiting if pod else None
    since = pod.status.start_time or pod.made_at if pod else None
    if waiting is None or since is None or (waiting.reason or "") in {"", *_BEING_MADE}:
        return None
    said = f"{waiting.reason}: {waiting.message}" if waiting.message else str(waiting.reason)
    return Stuck(why=said, since=since)


def cut_off(marks: Marks, *, time_limit: timedelta) -> bool | None:
    """Whether software was ended from outside before its time was over, as its marks say; None where they do not."""
    if marks.exit is None:
        return None
    started_at = marks.start.started_at if marks.start else None
    is_in_time = started_at is None or marks.exit.ended_at - started_at < time_limit
    return is_in_time and marks.exit.exit_code in _ENDED_FROM_OUTSIDE


def hear(
    job: SeenJob | None,
    pod: SeenPod | None,
    *,
    now: datetime,
    started_as: str | None = None,
    was_cut_off: bool | None = None,
    is_cancelled: bool = False,
) -> Heard:
    """Put together what Kubernetes says of a job.

    `started_as` is the pod in its start mark; `was_cut_off` says that of its exit mark, None where there is none.
    A pod says more than its Job, and sooner. A job that we cancelled was not taken from us, and is over when neither
    is there, as its Job stays until its pod has ended.
    """
    if pod is not None:
        ended = pod.status.phase in {"Succeeded", "Failed"} or _is_overdue(pod, now=now)
        heard = _ended_pod(pod) if ended else _living_pod(pod)
        if ended and started_as not in {None, pod.name} and was_cut_off is not False:
            heard = replace(heard, is_lost=True, reason=f"its pod {started_as} was taken away, and another one made")
    elif job is None or (job.is_ending and not _is_over(job)):  # Kubernetes makes no pod for a Job that is ending
        heard = replace(ABSENT, reason=_CUT_OFF if was_cut_off else _NOT_THERE, is_lost=bool(was_cut_off))
    else:
        heard = _job_alone(job, was_cut_off=was_cut_off)
    if not is_cancelled:
        return heard
    phase = Phase.ENDED if heard.phase is Phase.ABSENT else heard.phase
    return replace(heard, phase=phase, cancelled=True, is_lost=False)


def _living_pod(pod: SeenPod) -> Heard:
    if pod.status.phase == "Pending":
        return Heard(phase=Phase.PENDING, reason=_why_pending(pod), host=pod.node)
    running = _state(pod).running
    return Heard(phase=Phase.RUNNING, host=pod.node, started_at=running.started_at if running else None)


def _ended_pod(pod: SeenPod) -> Heard:
    end, has_succeeded = _state(pod).terminated, pod.status.phase == "Succeeded"
    if end is None:
        heard = Heard(phase=Phase.ENDED, host=pod.node, exit_code=0 if has_succeeded else None)
    else:
        heard = replace(_ended_container(end), host=pod.node, started_at=end.started_at, ended_at=end.finished_at)
        if heard.out_of_memory:
            return heard
        if pod.status.reason == _DEADLINE and end.started_at is not None:
            return replace(heard, timed_out=True)
    taken = None if has_succeeded else _why_taken(pod, end)
    return heard if taken is None else replace(heard, is_lost=True, reason=taken)


def _ended_container(end: V1ContainerStateTerminated) -> Heard:
    """How a container ended; a code above 128 says that a signal ended its first process."""
    if end.reason == "OOMKilled":
        return Heard(phase=Phase.ENDED, out_of_memory=True, exit_code=end.exit_code)
    if end.reason in _NEVER_RAN:
        return Heard(phase=Phase.ENDED, reason=_sentence(end.reason, end.message))
    if end.exit_code > _BY_SIGNAL:
        return Heard(phase=Phase.ENDED, reason=f"signal {end.exit_code - _BY_SIGNAL} ended it")
    return Heard(phase=Phase.ENDED, exit_code=end.exit_code)


def _why_taken(pod: SeenPod, end: V1ContainerStateTerminated | None) -> str | None:
    """Why a pod ended that the software did not end: its node or the cluster itself wanted so."""
    if end is not None and end.reason == _FORGOTTEN:
        return f"its node {pod.node} has lost its container"
    disrupted = _condition(pod.status.conditions, "DisruptionTarget")
    if pod.status.reason is not None:
        return _sentence(pod.status.reason, pod.status.message)
    if disrupted is not None:
        return _sentence(disrupted.reason, disrupted.message)
    if pod.status.phase not in {"Succeeded", "Failed"}:
        return f"its node {pod.node} does not answer"
    if pod.ends_by is not None and end is not None and end.exit_code > _BY_SIGNAL:
        return "somebody, or its Job, had its pod ended"
    return None


def _job_alone(job: SeenJob, *, was_cut_off: bool | None) -> Heard:
    """What a Job says whose pod is not there, yet or any more."""
    complete, failed = (_condition(job.status.conditions, kind) for kind in ("Complete", "Failed"))
    if complete is not None:
        ended_at = job.status.completion_time or complete.last_transition_time
        return Heard(phase=Phase.ENDED, exit_code=0, ended_at=ended_at)
    if failed is not None and failed.reason == _DEADLINE:
        return Heard(phase=Phase.ENDED, timed_out=True, ended_at=failed.last_transition_time)
    if failed is not None:
        why = "its pod is gone: its node was emptied or went away, or somebody deleted it"
        reason, at = _sentence(why, failed.message), failed.last_transition_time
        return Heard(phase=Phase.ENDED, reason=reason, is_lost=was_cut_off is not False, ended_at=at)
    if job.status.failed or job.status.succeeded or job.status.terminating:
        return Heard(phase=Phase.RUNNING)  # its conditions follow
    if job.is_suspended:
        return Heard(phase=Phase.PENDING, reason="its Job is suspended: a queue of the cluster, or somebody, holds it")
    told = (
        f"Kubernetes has made no pod for it yet; `kubectl describe job {job.name}` says if a quota or a policy forbids"
    )
    return Heard(phase=Phase.PENDING, reason=told)


def _is_over(job: SeenJob) -> bool:
    return any(_condition(job.status.conditions, kind) for kind in ("Complete", "Failed"))


def _is_overdue(pod: SeenPod, *, now: datetime) -> bool:
    return pod.ends_by is not None and now - pod.ends_by > _OVERDUE


def _why_pending(pod: SeenPod) -> str | None:
    trouble = stuck(pod)
    if trouble is not None:
        return f"its container does not start: {trouble.why}"
    placed = _condition(pod.status.conditions, "PodScheduled", status="False")
    if placed is not None:
        return _sentence(placed.reason, placed.message)
    if pod.node is None:
        return "it waits for a node"
    return f"its container is being made on {pod.node}"


def _sentence(reason: str | None, message: str | None) -> str:
    return ": ".join(part for part in (reason, message) if part) or "Kubernetes does not say why"


def _state(pod: SeenPod) -> V1ContainerState:
    statuses = pod.status.container_statuses or ()
    return (statuses[0].state if statuses else None) or V1ContainerState()


def _condition(
    conditions: Sequence[V1PodCondition] | Sequence[V1JobCondition] | None, kind: str, *, status: str = "True"
) -> V1PodCondition | V1JobCondition | None:
    return next((one for one in conditions or () if one.type == kind and one.status == status), None)
