"""What Slurm's commands print, as values. The fields are named by us, so they are the same in every version."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from ccat_workflow_manager.hpc.slurm.commands import SACCT_FIELDS, SEPARATOR, SQUEUE_FIELDS

_TOO_LITTLE: Final = {"n/a", "", "N/A", "Unknown", "None", "NONE", "(null)", "None assigned"}
_CLUSTER_LINE: Final = "CLUSTER: "
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE: Final = re.compile(r"(?P<number>[0-9.]+)(?P<unit>[KMGT]?)")
_TIME: Final = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>[0-9.]+)")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What Slurm says of one job; None is not known."""

    job_id: str
    name: str
    state: str
    """One word, as `COMPLETED`."""
    reason: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    host: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    peak_memory_bytes: int | None = None
    cpu_time: timedelta | None = None
    suspended: timedelta | None = None


def parse_squeue(text: str) -> Mapping[str, Row]:
    """Read the answer to `commands.squeue`, by job id; an array that waits stands for its jobs one by one."""
    rows = (_squeue_row(line) for line in text.splitlines() if line.strip() and not line.startswith(_CLUSTER_LINE))
    return {row.job_id: row for row in rows if row}


def parse_sacct(text: str) -> Mapping[str, Row]:
    """Read the answer to `commands.sacct`, by job id; the steps of a job tell of the memory that it used."""
    found: dict[str, Row] = {}
    for fields in (line.split(SEPARATOR) for line in text.splitlines()):
        if len(fields) != len(SACCT_FIELDS):
            continue
        value = dict(zip(SACCT_FIELDS, fields, strict=True))
        job_id, _, step = value["JobID"].partition(".")
        if not step:
            found[job_id] = _sacct_row(job_id, value)
        elif (used := parse_size(value["MaxRSS"])) is not None and job_id in found:
            most = max(used, found[job_id].peak_memory_bytes or 0)
            found[job_id] = replace(found[job_id], peak_memory_bytes=most)
    return found


def parse_sbatch(text: str) -> str | None:
    """Read the id that `sbatch --parsable` prints, which the name of a cluster may follow; None if there is none."""
    found = re.search(r"^(\d+)(?:;\S*)?$", text.strip(), re.MULTILINE)
    return found[1] if found else None


def parse_sinfo(text: str) -> tuple[int, int] | None:
    """Read CPUs that jobs may have, and that none has; None where no line tells."""
    found = re.findall(r"^(\d+)/(\d+)/\d+/\d+\s*$", text, re.MULTILINE)
    taken, idle = sum(int(a) for a, _ in found), sum(int(b) for _, b in found)
    return (taken + idle, idle) if found else None


def parse_size(text: str) -> int | None:
    """Read a size in bytes, such as `1.5M`."""
    found = _SIZE.fullmatch(text.strip())
    return int(float(found["number"]) * _UNITS[found["unit"]]) if found else None


def parse_duration(text: str) -> timedelta | None:
    """Read a time such as `1-02:03:04` or `02:03.456`."""
    found = _TIME.fullmatch(text.strip())
    if not found:
        return None
    days, hours = int(found["days"] or 0), int(found["hours"] or 0)
    return timedelta(days=days, hours=hours, minutes=int(found["minutes"]), seconds=float(found["seconds"]))


def _squeue_row(line: str) -> Row | None:
    fields = line.strip().split(SEPARATOR, len(SQUEUE_FIELDS) - 1)
    if len(fields) != len(SQUEUE_FIELDS):
        return None
    job_id, name, state, start, end, host, reason = fields
    return Row(
        job_id=job_id,
        name=name,
        state=_word(state),
        reason=_known(reason),
        started_at=_moment(start),
        ended_at=_moment(end),
        host=_known(host),
    )


def _sacct_row(job_id: str, value: Mapping[str, str]) -> Row:
    code, _, signal = value["ExitCode"].partition(":")
    state = value["State"]
    return Row(
        job_id=job_id,
        name=value["JobName"].strip(),
        state=_word(state),
        reason=state if " " in state else None,  # CANCELLED by 1000
        started_at=_moment(value["Start"]),
        ended_at=_moment(value["End"]),
        host=_known(value["NodeList"]),
        exit_code=int(code) if code.isdecimal() else None,
        signal=int(signal) if signal.isdecimal() and signal != "0" else None,
        cpu_time=parse_duration(value["TotalCPU"]),
        suspended=parse_duration(value["Suspended"]),
    )


def _word(state: str) -> str:
    """The state alone, without who cancelled it or a mark that the name was cut."""
    return state.split(maxsplit=1)[0].rstrip("+") if state.strip() else ""


def _known(text: str) -> str | None:
    return None if text.strip() in _TOO_LITTLE else text.strip()


def _moment(text: str) -> datetime | None:
    """A moment as Slurm tells it in UTC, in which it is asked."""
    try:
        return datetime.fromisoformat(text.strip()).replace(tzinfo=UTC)
    except ValueError:
        return None
