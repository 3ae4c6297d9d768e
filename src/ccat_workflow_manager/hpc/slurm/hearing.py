"""What Slurm's controller and its accounting together say of a job."""

from dataclasses import replace
from typing import Final

from ccat_workflow_manager.hpc.cluster.conclusion import ABSENT, Heard, Phase
from ccat_workflow_manager.hpc.slurm.parsing import Row

_PENDING: Final = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
)
_UNNAMED: Final = "allocation"
_LOST: Final = {
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "it was preempted by a job that goes first",
    "REVOKED": "another cluster took it",
    "DEADLINE": "it could not end before its deadline",
    "LAUNCH_FAILED": "Slurm could not launch it",
    "RECONFIG_FAIL": "its node could not be made ready",
}
_NOT_LAUNCHED: Final = 53
"""What Slurm accounts for as a signal where a host could not start a job, or open the file for its output."""
_ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", *_LOST})
_ENDING: Final = "COMPLETING"
_WHY: Final = {
    "Priority": "jobs of a higher priority go first",
    "Resources": "it waits for nodes to become free",
    "JobHeldUser": "somebody holds it: `scontrol release` lets it go",
    "JobHeldAdmin": "an administrator of the cluster holds it",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is not active",
    "ReqNodeNotAvail": "a node that it needs is not available",
    "JobArrayTaskLimit": "so many of its array run as may at once",
    "BadConstraints": "no node is as it asks: change its `constraint`, or what it asks for",
    "PartitionTimeLimit": "it asks for more time than its partition gives: lower its `time_hours`, or the "
    "`jobs_per_task` of its location, or name another partition",
    "QOSMaxWallDurationPerJobLimit": "it asks for more time than its QOS gives: lower its `time_hours`, or the "
    "`jobs_per_task` of its location, or name another `qos`",
    "AssocMaxWallDurationPerJobLimit": "it asks for more time than its account gives: lower its `time_hours`, or the "
    "`jobs_per_task` of its location, or name another `account`",
    "AssocGrpCPUMinutesLimit": "its account has used up its time: ask the cluster for more, or name another `account`",
    "InvalidAccount": "its account may not be used there: name another `account`",
    "InvalidQOS": "its QOS may not be used there: name another `qos`",
    "PartitionNodeLimit": "it asks for more nodes than its partition gives: lower its `nodes`, or name another",
}
"""Reasons that Slurm gives with one word, as people say them; others are told as they are."""


def has_ended(row: Row | None) -> bool:
    """Whether Slurm says that a job is over."""
    return row is not None and row.state in _ENDED


def of_job(name: str, queued: Row | None, accounted: Row | None) -> tuple[Row | None, Row | None]:
    """What the controller and the accounting say of a job, without what they say of another one by its number.

    Numbers are given again where the cluster counts anew or has forgotten jobs, so a row counts for the job with its
    name only. The accounting hears that name up to five seconds after it heard of the job: until then a row without
    one counts where it tells the start that the controller tells.
    """
    queued = queued if queued is not None and queued.name == name else None
    if queued and accounted and accounted.name == _UNNAMED and accounted.started_at == queued.started_at:
        return queued, replace(accounted, name=name)
    return queued, accounted if accounted is not None and accounted.name == name else None


def hear(queued: Row | None, accounted: Row | None, *, name: str) -> Heard:
    """Put together what the controller and the accounting say of a job; what they say of another one is left out."""
    queued, accounted = of_job(name, queued, accounted)
    if queued is not None and queued.state in _PENDING:
        return Heard(phase=Phase.PENDING, reason=_why(queued.reason))
    if queued is not None and queued.state not in _ENDED:  # also a state of a later version: it is not over
        return _running(queued, accounted)
    ended = _end(queued, accounted)
    if ended is not None:
        return _ended(ended)
    if accounted is not None:
        told = f"Slurm accounts for it as {accounted.state}, and its controller does not know it"
        return replace(ABSENT, reason=told)
    return ABSENT


def _end(queued: Row | None, accounted: Row | None) -> Row | None:
    """What tells how a job ended: the accounting, once it has written all of it down.

    There the state comes first, and a code of 0 with it; the moment and the code come later.
    """
    if accounted is None or accounted.state not in _ENDED:
        return queued
    if accounted.ended_at is not None or queued is None:
        return accounted
    return replace(
        queued,
        peak_memory_bytes=accounted.peak_memory_bytes,
        cpu_time=accounted.cpu_time,
        suspended=accounted.suspended,
    )


def _running(row: Row, accounted: Row | None) -> Heard:
    """It lives, or its hosts clean up after it: then its measures are there."""
    return Heard(
        phase=Phase.RUNNING,
        is_ending=row.state == _ENDING,
        started_at=row.started_at,
        host=row.host,
        peak_memory_bytes=accounted.peak_memory_bytes if accounted else None,
        cpu_time=accounted.cpu_time if accounted else None,
    )


def _ended(row: Row) -> Heard:
    code = 0 if row.state == "COMPLETED" else (row.exit_code or None) if row.signal is None else None
    by_signal = _by_signal(row.signal) if row.signal is not None else None
    return Heard(
        phase=Phase.ENDED,
        reason=_LOST.get(row.state) or by_signal or row.reason,
        exit_code=code,
        timed_out=row.state == "TIMEOUT",
        out_of_memory=row.state == "OUT_OF_MEMORY",
        cancelled=row.state == "CANCELLED",
        is_lost=row.state in _LOST,
        started_at=row.started_at,
        ended_at=row.ended_at,
        host=row.host,
        peak_memory_bytes=row.peak_memory_bytes,
        cpu_time=row.cpu_time,
        suspended=row.suspended,
    )


def _by_signal(signal: int) -> str:
    return "its host could not launch it" if signal == _NOT_LAUNCHED else f"signal {signal} ended it"


def _why(reason: str | None) -> str | None:
    if reason is None:
        return None
    word = reason.split(",")[0].split("(")[0].strip()
    return f"{_WHY[word]} ({reason})" if word in _WHY else reason
