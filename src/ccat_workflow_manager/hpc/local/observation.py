"""What the files and processes of a local job mean, and what has to end: decisions only."""

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final

from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.hpc.local.files import Job
from ccat_workflow_manager.hpc.local.marks import KILLED, ExitMark, Limit

_STOPPED_BY_TIMEOUT: Final = frozenset({124, KILLED})
_CLOCK_STEP: Final = timedelta(milliseconds=50)
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_SLOWNESS: Final = timedelta(seconds=1)
"""What `timeout` may take, beside the grace, before it counts as gone."""


class Ending(Enum):
    """Who of a job has to be killed."""

    SOFTWARE = auto()
    """All but its first process, which writes down how it ended."""
    ALL = auto()


@dataclass(frozen=True, kw_only=True)
class Now:
    """The moment and the place of a look, and the time that is given to whoever is asked to end."""

    time: datetime
    uptime: float
    host: str
    grace: timedelta


def ending(job: Job, now: Now) -> Ending | None:
    """Say who has to be killed: what a job leaves behind, and what had its time and its grace."""
    if job.is_settled or job.record.host != now.host:
        return None
    if job.has_ended:
        return Ending.ALL if job.exit is None else Ending.SOFTWARE
    since = [moment for moment in (_cancelled_for(job, now), _limit_passed_for(job, now)) if moment is not None]
    overdue = max(since, default=timedelta(days=-1))
    if overdue < timedelta():
        return None
    return Ending.ALL if overdue > now.grace + _SLOWNESS else Ending.SOFTWARE


def passed_its_time(job: Job, now: Now) -> bool:
    """Whether a job that still runs should long have been stopped: nothing is left of what watches its time."""
    if job.start is None or job.start.process is None or job.has_ended or job.record.host != now.host:
        return False
    overtime = timedelta(seconds=now.uptime - job.start.uptime) - job.record.spec.time_limit
    return overtime > now.grace + _SLOWNESS


def interpret(job: Job, *, has_processes: bool, host: str) -> JobObservation:
    """Say what a job is doing, given whether one that must end still had processes on this host."""
    wall_time = _wall_time(job)
    exit_code = job.exit.exit_code if job.exit else None
    timed_out = exit_code not in {None, 0} and _has_timed_out(job, exit_code, wall_time)
    return JobObservation(
        state=_state(job, has_processes=has_processes, is_here=job.record.host == host),
        exit_code=exit_code,
        timed_out=timed_out,
        out_of_memory=not timed_out and exit_code not in {None, 0} and _ran_out_of_memory(job),
        cancelled=(job.was_forestalled and not job.was_given_up) or job.was_cancelled_in_time,
        started_at=None if job.start is None or job.was_forestalled else job.start.moment(job.start.uptime),
        ended_at=_ended_at(job),
        wall_time=wall_time,
        cpu_time=_cpu_time(job.exit) if job.exit else None,
        peak_memory_bytes=job.peak_memory,
        host=job.record.host,
    )


def _cancelled_for(job: Job, now: Now) -> timedelta | None:
    return None if job.cancelled_at is None else now.time - job.cancelled_at - now.grace


def _limit_passed_for(job: Job, now: Now) -> timedelta | None:
    return None if job.limit_marked_at is None else max(timedelta(), now.time - job.limit_marked_at)


def _state(job: Job, *, has_processes: bool, is_here: bool) -> JobState:
    """An end counts only when no process is left that could still write."""
    if not job.has_started and job.directory_exists:
        return JobState.PENDING
    if not is_here and job.exit is None and not job.was_forestalled:
        return JobState.UNKNOWN
    if not job.is_settled and (has_processes or not job.has_ended):
        return JobState.RUNNING
    if job.was_given_up:
        return JobState.LOST
    has_verdict = job.was_forestalled or (job.exit is not None and job.exit.exit_code is not None) or job.limit
    return JobState.FINISHED if has_verdict else JobState.LOST


def _has_timed_out(job: Job, exit_code: int | None, wall_time: timedelta | None) -> bool:
    if wall_time is None or exit_code not in _STOPPED_BY_TIMEOUT:
        return job.limit is Limit.TIME
    return job.limit is Limit.TIME or wall_time + _CLOCK_STEP >= job.record.spec.time_limit


def _ran_out_of_memory(job: Job) -> bool:
    the_kernel_did = job.exit is not None and job.exit.exit_code == KILLED and job.exit.oom_kills > 0
    return job.limit is Limit.MEMORY or the_kernel_did


def _ended_at(job: Job) -> datetime | None:
    if job.exit is None or job.exit.uptime is None or job.start is None:
        return job.exit.ended_at if job.exit else None
    return job.start.moment(job.exit.uptime)


def _wall_time(job: Job) -> timedelta | None:
    if job.start is None or job.exit is None or job.exit.uptime is None:
        return None
    return timedelta(seconds=job.exit.uptime - job.start.uptime)


def _cpu_time(mark: ExitMark) -> timedelta | None:
    if mark.user_ticks is None or mark.system_ticks is None:
        return None
    return timedelta(seconds=(mark.user_ticks + mark.system_ticks) / _TICKS)
