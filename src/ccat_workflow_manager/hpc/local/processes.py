"""Which processes of this host belong to jobs."""

import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from ccat_service.processes import ProcessIdentity

JOB_VARIABLE: Final = "CCAT_JOB_DIRECTORY"
"""In the environment of every job: it tells a job's processes from all others, even when they leave its session."""

_PROC: Final = Path("/proc")


def processes_by_job() -> Mapping[Path, list[int]]:
    """Return the pids of all living processes of jobs, by the job's directory: one look at the whole host."""
    found = defaultdict(list)
    for pid in _pids():
        directory = _job_directory(pid)
        if directory and ProcessIdentity.of(pid):
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
