"""What the files and processes of a local job mean: decisions only."""

import re
from datetime import timedelta
from typing import Final

from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.hpc.local.files import ExitMark, Job

_STOPPED_BY_TIMEOUT: Final = frozenset({124, 137})
_KILLED: Final = 137
_CLOCK_STEP: Final = timedelta(milliseconds=50)
_SHELL_TIME: Final = re.compile(r"(?P<minutes>\d+)m(?P<seconds>\d+[.,]\d+)s")


def interpret(job: Job, *, has_processes: bool, host: str) -> JobObservation:
    """Say what a job is doing, given whether one that must end still had processes on this host."""
    wall_time = _wall_time(job)
    exit_code = job.exit.exit_code if job.exit else None
    return JobObservation(
        state=_state(job, has_processes=has_processes, is_here=job.record.host == host),
        exit_code=exit_code,
        timed_out=exit_code in _STOPPED_BY_TIMEOUT
        and wall_time is not None
        and wall_time + _CLOCK_STEP >= job.record.spec.time_limit,
        out_of_memory=exit_code == _KILLED and job.exit is not None and job.exit.oom_kills > 0,
        cancelled=job.was_forestalled or _cancelled_in_time(job),
        started_at=None if job.start is None or job.was_forestalled else job.start.started_at,
        ended_at=job.exit.ended_at if job.exit else None,
        wall_time=wall_time,
        cpu_time=_cpu_time(job.exit) if job.exit else None,
        host=job.record.host,
    )


def _state(job: Job, *, has_processes: bool, is_here: bool) -> JobState:
    """An end counts only when no process is left that could still write."""
    if not job.has_started and job.directory_exists:
        return JobState.PENDING
    if not is_here and job.exit is None and not job.was_forestalled:
        return JobState.UNKNOWN
    if not job.is_settled and (has_processes or not job.has_ended):
        return JobState.RUNNING
    has_verdict = job.was_forestalled or (job.exit is not None and job.exit.exit_code is not None)
    return JobState.FINISHED if has_verdict else JobState.LOST


def _cancelled_in_time(job: Job) -> bool:
    return job.cancelled_at is not None and (job.exit is None or job.cancelled_at <= job.exit.ended_at)


def _wall_time(job: Job) -> timedelta | None:
    if job.start is None or job.exit is None or job.exit.uptime is None:
        return None
    return timedelta(seconds=job.exit.uptime - job.start.uptime)


def _cpu_time(mark: ExitMark) -> timedelta | None:
    parts = [_SHELL_TIME.fullmatch(text) for text in (mark.user, mark.system)]
    return sum((_duration(part) for part in parts if part), timedelta()) if all(parts) else None


def _duration(time: re.Match[str]) -> timedelta:
    return timedelta(minutes=int(time["minutes"]), seconds=float(time["seconds"].replace(",", ".")))
