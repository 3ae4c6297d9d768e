import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Final

from ccat_workflow_manager.hpc.base import BackendUnavailable
from ccat_workflow_manager.hpc.local.files import JobFiles
from ccat_workflow_manager.hpc.local.processes import processes_by_job, signal_all

_POLL: Final = timedelta(milliseconds=20)


def kill_jobs(base: Path, *, within: timedelta = timedelta(seconds=10)) -> None:
    """Kill every process of the jobs of a base directory, where a stack is to leave nothing behind; they count as lost.

    Whoever could start jobs must have ended before. Raises BackendUnavailable if a process does not die.
    """
    deadline = time.monotonic() + within.total_seconds()
    ours = [job.record.spec.directory for job in JobFiles(base).live()]
    while remaining := [pid for directory, pids in processes_by_job().items() if directory in ours for pid in pids]:
        if time.monotonic() > deadline:
            raise BackendUnavailable("local", f"the processes {remaining} do not die")
        signal_all(remaining, signal.SIGKILL)
        time.sleep(_POLL.total_seconds())
