import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

from ccat_workflow_manager.hpc.base import BackendUnavailable
from ccat_workflow_manager.hpc.local.files import JobFiles
from ccat_workflow_manager.hpc.local.processes import Process, processes_of, signal_all

_POLL: Final = timedelta(milliseconds=20)


def kill_jobs(base: Path, *, within: timedelta = timedelta(seconds=10)) -> None:
    """Kill every process of the jobs of a base directory, where a stack is to leave nothing behind; they count as lost.

    Whoever could start jobs must have ended before. Raises BackendUnavailable if a process does not die.
    """
    deadline = time.monotonic() + within.total_seconds()
    while remaining := _remaining(base):
        if time.monotonic() > deadline:
            raise BackendUnavailable("local", f"the processes {[one.pid for one in remaining]} do not die")
        signal_all(remaining, signal.SIGKILL)
        time.sleep(_POLL.total_seconds())


def _remaining(base: Path) -> list[Process]:
    starts = {job.record.spec.directory: job.start for job in JobFiles(base).live()}
    if not starts:
        return []
    found = processes_of({directory: start.process if start else None for directory, start in starts.items()})
    return [one for processes in found.values() for one in processes]
