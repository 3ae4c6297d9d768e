"""From what a cluster says of a job, and what the job's own files say, to what is known of it."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from ccat_workflow_manager.hpc.base import GIGABYTE, JobObservation, JobState
from ccat_workflow_manager.hpc.cluster.marks import ExitMark, JobRecord, Marks

PATIENCE: Final = timedelta(seconds=65)
"""After the end of a job, until its marks are seen on a disk that other hosts write. By NFS it may take a minute until
a file is seen that was looked for before it was there."""
_CLOCKS_DIFFER: Final = timedelta(seconds=5)
_ENDED_BY_SIGNAL: Final = frozenset({137, 143})
_TO_END: Final = timedelta(seconds=10)
"""After the end of a job that shares its task with others, until it is sure that its task was not ended with it."""
_TO_SAY_WHY: Final = timedelta(minutes=1)
"""After a job left the exit mark of a failure, until a cluster that takes it for alive, or clears up after it, will not
say why it failed."""
_TAKEN_BACK: Final = "the cluster gave it to a host, and cancelled it before it started there"
_NOBODY_TELLS: Final = "the cluster does not know it any more, and it has left no word of its end"
_ENDED_BY_TIMEOUT: Final = frozenset({124, 137})
_KILLED: Final = 137


class Phase(StrEnum):
    """What a cluster says of a job. ABSENT: it does not know it, any more or at all, which says nothing of its end."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What a cluster says of one job; None is not known."""

    phase: Phase
    is_ending: bool = False
    """Whether its end is decided, and its hosts clear up after it: how it ended is told after that."""
    reason: str | None = None
    """Why it is PENDING, or how it ENDED where its software did not end it."""
    exit_code: int | None = None
    """Of its first process; None where a signal ended that."""
    timed_out: bool = False
    out_of_memory: bool = False
    cancelled: bool = False
    """Whether somebody asked the cluster for its end."""
    is_lost: bool = False
    """Whether it was taken from it: a host that broke down, or a job that went before it."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    host: str | None = None
    peak_memory_bytes: int | None = None
    cpu_time: timedelta | None = None
    suspended: timedelta | None = None
    """For how long its processes were kept from running: its own clock goes on meanwhile."""


ABSENT: Final = Heard(phase=Phase.ABSENT)
_LIVE: Final = {Phase.PENDING: JobState.PENDING, Phase.RUNNING: JobState.RUNNING}


def conclude(
    record: JobRecord, marks: Marks, heard: Heard, *, now: datetime, patience: timedelta = PATIENCE
) -> JobObservation:
    """Say what is known of a job: its exit mark tells how the software ended, whatever the cluster says of the job.

    A job of which neither speaks is UNKNOWN, and never over. For `patience` after its end its marks are waited for.
    """
    if record.place is None:
        heard = _alone(marks, heard, now=now)
    else:
        heard = _in_turn(marks, heard, now=now, patience=patience)
    heard = _with_memory(record, marks, heard)
    if heard.phase in _LIVE:
        return _seen(_LIVE[heard.phase], marks, heard, queue_reason=heard.reason)
    if heard.is_lost and not (marks.exit and marks.exit.exit_code == 0):
        return _seen(JobState.LOST, marks, heard, trouble=heard.reason)
    if marks.exit:
        found = _finished(marks, marks.exit, heard, time_limit=record.time_limit)
        held_up = _held_up(found, heard, time_limit=record.time_limit)
        return _seen(JobState.LOST, marks, heard, trouble=held_up) if held_up else found
    if heard.phase is Phase.ENDED:
        return _ended_without_a_mark(marks, heard, now=now, patience=patience)
    if marks.was_forestalled:
        is_ours = _was_cancelled(marks, heard)
        lost = "the cluster forgot it before it started" if not is_ours else None
        return _seen(JobState.FINISHED if is_ours else JobState.LOST, marks, heard, trouble=lost)
    return _seen(JobState.UNKNOWN, marks, heard, trouble=heard.reason or _NOBODY_TELLS)


def _alone(marks: Marks, heard: Heard, *, now: datetime) -> Heard:
    """What the cluster says of a job; that it lives only as long as the job itself has not left another word.

    A controller that died has forgotten its last seconds, and a host may tell it of the end minutes later.
    """
    if heard.phase not in _LIVE or marks.exit is None:
        return heard
    is_clear = marks.exit.exit_code == 0 or marks.cancelled_at is not None
    if not is_clear and now - marks.exit.ended_at < _TO_SAY_WHY:
        return heard
    return replace(heard, phase=Phase.ENDED, reason=None)


def _in_turn(marks: Marks, heard: Heard, *, now: datetime, patience: timedelta) -> Heard:
    """What the cluster says of a task that runs several jobs one after the other, as far as it is about one of them."""
    if marks.was_forestalled and heard.phase is not Phase.ABSENT:
        is_ours = marks.cancelled_at is not None
        return Heard(phase=Phase.ENDED, cancelled=is_ours, is_lost=not is_ours, reason="it had been given up")
    if heard.phase is Phase.RUNNING or (heard.phase is Phase.PENDING and marks.exit):  # its start may be forgotten
        return _while_its_task_runs(marks, heard, now=now)
    if heard.phase is Phase.ENDED and not marks.has_start:
        if heard.ended_at is not None and now - heard.ended_at < patience:
            return Heard(phase=Phase.PENDING, reason="its array task has ended, maybe before its turn")
        reason = heard.reason or "nothing is known of why"
        return replace(heard, is_lost=True, cancelled=False, reason=f"its array task ended before its turn: {reason}")
    if heard.phase is Phase.ENDED and marks.exit:
        return _as_its_task_ended(marks.exit, heard)
    return replace(heard, exit_code=None)


def _as_its_task_ended(end: ExitMark, heard: Heard) -> Heard:
    """What ended a task ended the job that ran then; what was over before had an end of its own."""
    is_last = heard.ended_at is None or end.ended_at > heard.ended_at - _CLOCKS_DIFFER
    was_hit = is_last and end.exit_code != 0
    was_killed = heard.out_of_memory and end.exit_code == _KILLED
    own = Heard(phase=Phase.ENDED, host=heard.host, out_of_memory=was_killed, suspended=heard.suspended)
    if not was_hit:
        return own
    return replace(
        own, reason=heard.reason, timed_out=heard.timed_out, cancelled=heard.cancelled, is_lost=heard.is_lost
    )


def _while_its_task_runs(marks: Marks, heard: Heard, *, now: datetime) -> Heard:
    if marks.exit is None:
        waits = Heard(phase=Phase.PENDING, reason="others of its array task go before it")
        return heard if marks.has_start else waits
    by_signal = marks.exit.exit_code in _ENDED_BY_SIGNAL and marks.cancelled_at is None
    # of a task that is asked to end its software may hear before what writes down that it was asked
    is_asked = marks.exit.was_asked or heard.is_ending
    by_wish = is_asked and marks.exit.exit_code != 0 and marks.cancelled_at is None
    longest = _TO_SAY_WHY if heard.is_ending else _TO_END
    if (by_signal or by_wish) and now - marks.exit.ended_at < longest:  # its task may be about to end too
        return heard
    # Slurm tells only at the end of a task whether the kernel killed for memory; nobody else kills and lets it go on.
    was_killed = by_signal and marks.exit.exit_code == _KILLED
    return Heard(phase=Phase.ENDED, host=heard.host, out_of_memory=was_killed)


def _with_memory(record: JobRecord, marks: Marks, heard: Heard) -> Heard:
    """Say of a job that was killed and used more memory than it asked for that this is why: not every cluster does."""
    was_killed = marks.exit.exit_code == _KILLED if marks.exit else heard.exit_code is None
    is_other = heard.phase is not Phase.ENDED or heard.timed_out or heard.cancelled
    if was_killed and not is_other and (heard.peak_memory_bytes or 0) > record.memory_gb * GIGABYTE:
        return replace(heard, out_of_memory=True)
    return heard


def _finished(marks: Marks, end: ExitMark, heard: Heard, *, time_limit: timedelta) -> JobObservation:
    started_at = marks.start.started_at if marks.start else None
    wall_time = end.ended_at - started_at if started_at else None
    timed_out = end.exit_code in _ENDED_BY_TIMEOUT and wall_time is not None and wall_time >= time_limit
    out_of_memory = heard.out_of_memory and end.exit_code != 0 and not timed_out
    return JobObservation(
        state=JobState.FINISHED,
        exit_code=end.exit_code,
        timed_out=timed_out or (heard.timed_out and end.exit_code != 0 and not out_of_memory),
        out_of_memory=out_of_memory,
        cancelled=_was_cancelled(marks, heard),
        started_at=started_at,
        ended_at=end.ended_at,
        wall_time=wall_time,
        cpu_time=end.cpu_time,
        peak_memory_bytes=heard.peak_memory_bytes,
        host=(marks.start.host if marks.start else None) or heard.host,
    )


def _held_up(found: JobObservation, heard: Heard, *, time_limit: timedelta) -> str | None:
    """Why a job took longer than it may, where that was not its own doing."""
    suspended = heard.suspended or timedelta()
    if not found.timed_out or not suspended or (found.wall_time or timedelta()) - suspended >= time_limit:
        return None
    return f"the cluster suspended it for {suspended.total_seconds():.0f} s, and its time limit passed meanwhile"


def _ended_without_a_mark(marks: Marks, heard: Heard, *, now: datetime, patience: timedelta) -> JobObservation:
    """It ended, as the cluster says, and left no exit mark that is seen, yet or at all."""
    if _was_taken_back(marks, heard):
        return replace(_seen(JobState.LOST, marks, heard, trouble=_TAKEN_BACK), cancelled=False)
    if _was_cancelled(marks, heard):
        return _seen(JobState.FINISHED, marks, heard, exit_code=heard.exit_code)
    if heard.timed_out or heard.out_of_memory:
        return _seen(JobState.FINISHED, marks, heard, exit_code=heard.exit_code or _KILLED)
    if heard.ended_at is not None and now - heard.ended_at < patience:
        return _seen(JobState.RUNNING, marks, heard)
    began = marks.has_start and not marks.was_forestalled
    if heard.exit_code is not None and began:
        return _seen(JobState.FINISHED, marks, heard, exit_code=heard.exit_code)
    how = heard.reason or (f"exit code {heard.exit_code}" if heard.exit_code is not None else "no exit code")
    when = "it ended" if began else "it ended before its software started"
    return _seen(JobState.LOST, marks, heard, trouble=f"{when}: {how}")


def _was_taken_back(marks: Marks, heard: Heard) -> bool:
    """Whether the cluster itself cancelled a job that it had given to a host, before that began with it.

    So it does where its controller died and gives a number again that a host still has a job of.
    """
    return heard.cancelled and marks.cancelled_at is None and heard.host is not None and not marks.has_start


def _was_cancelled(marks: Marks, heard: Heard) -> bool:
    if marks.cancelled_at is not None:
        return marks.exit is None or marks.cancelled_at <= marks.exit.ended_at
    return heard.cancelled


def _seen(
    state: JobState,
    marks: Marks,
    heard: Heard,
    *,
    exit_code: int | None = None,
    queue_reason: str | None = None,
    trouble: str | None = None,
) -> JobObservation:
    """What is known of a job without the help of an exit mark."""
    started_at = (marks.start.started_at if marks.start else None) or heard.started_at
    ended_at = heard.ended_at if state in {JobState.FINISHED, JobState.LOST} else None
    return JobObservation(
        state=state,
        exit_code=exit_code,
        timed_out=state is JobState.FINISHED and heard.timed_out,
        out_of_memory=state is JobState.FINISHED and heard.out_of_memory and not heard.timed_out,
        cancelled=_was_cancelled(marks, heard),
        started_at=started_at,
        ended_at=ended_at,
        wall_time=ended_at - started_at if started_at and ended_at and ended_at >= started_at else None,
        cpu_time=heard.cpu_time,
        peak_memory_bytes=heard.peak_memory_bytes,
        host=(marks.start.host if marks.start else None) or heard.host,
        queue_reason=queue_reason,
        trouble=trouble,
    )
