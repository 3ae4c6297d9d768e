"""What the kernel says about the processes of jobs. Identity is pid, start time and boot: a pid alone is reused."""

import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

JOB_VARIABLE: Final = "CCAT_JOB_DIRECTORY"
"""In the environment of every job: it tells a job's processes from all others, even when they leave its session."""

_PROC: Final = Path("/proc")
_GONE: Final = frozenset("ZX")


class ProcessIdentity(BaseModel):
    """A process of some host, for ever."""

    model_config = ConfigDict(frozen=True)

    pid: int
    start_ticks: int
    boot_id: str

    def is_alive(self) -> bool:
        """Whether this very process still does anything; a zombie does not."""
        return self.boot_id == boot_id() and _start_ticks(self.pid) == self.start_ticks


def boot_id() -> str:
    """Return the id of this boot of the host."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    state, *fields = stat[stat.rindex(")") + 2 :].split()  # the name in front may contain anything
    return None if state in _GONE else int(fields[18])


def processes_by_job() -> Mapping[Path, list[int]]:
    """Return the pids of all living processes of jobs, by the job's directory: one look at the whole host."""
    found = defaultdict(list)
    for pid in _pids():
        directory = _job_directory(pid)
        if directory and _start_ticks(pid) is not None:
            found[directory].append(pid)
    return found


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _job_directory(pid: int) -> Path | None:
    wanted = f"{JOB_VARIABLE}=".encode()
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # gone, or somebody else's
        return None
    value = next((entry for entry in environment.split(b"\0") if entry.startswith(wanted)), None)
    return None if value is None else Path(os.fsdecode(value.removeprefix(wanted)))


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes, some of which may have gone meanwhile."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
