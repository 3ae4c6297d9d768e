"""A job becomes a process: in a session of its own, so that it outlives whoever started it."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Final

from ccat_service.processes import boot_id
from ccat_workflow_manager.hpc.base import JobSpec
from ccat_workflow_manager.hpc.local.host import oom_kills, uptime

_JOB_SCRIPT: Final = str(Path(__file__).with_name("job.sh"))
_OPENED: Final = Path("/proc/self/fd")
_STREAMS: Final = range(3)
_DEFAULT_SIGNALS: Final = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def launch(spec: JobSpec, *, grace: timedelta, cgroup: Path | None, on_end: Callable[[], None]) -> None:
    """Start a job, and call `on_end` from a thread when its first process has ended, should we live to see it.

    Raises OSError where no process can be made.
    """
    command = job_command(spec, grace=grace, cgroup=cgroup)
    pid = os.posix_spawn(
        command[0],
        command,
        {**spec.environment, **spec.marks},
        file_actions=_streams(),
        setsid=True,
        setsigmask=(),
        setsigdef=_DEFAULT_SIGNALS,
    )
    Thread(target=_await, args=(pid, on_end), name=spec.name, daemon=True).start()


def job_command(spec: JobSpec, *, grace: timedelta, cgroup: Path | None = None) -> list[str]:
    """Return the command of a job's first process."""
    return [
        "/bin/sh",
        _JOB_SCRIPT,
        str(spec.directory),
        str(spec.working_directory),
        str(spec.stdout),
        str(spec.stderr),
        f"{spec.time_limit.total_seconds():.3f}",
        f"{grace.total_seconds():.3f}",
        boot_id(),
        f"{time.time() - uptime():.3f}",
        str(oom_kills()),
        str(cgroup or ""),
        *spec.command,
    ]


def _streams() -> list[tuple[int, int] | tuple[int, int, str, int, int]]:
    """What a job's shell finds open: nothing of ours, whatever a library has left inheritable."""
    opened = [(os.POSIX_SPAWN_OPEN, stream, "/dev/null", os.O_RDWR, 0) for stream in _STREAMS]
    return [*opened, *((os.POSIX_SPAWN_CLOSE, number) for number in _inheritable())]


def _inheritable() -> list[int]:
    numbers = [int(entry.name) for entry in _OPENED.iterdir()]
    return [number for number in numbers if number not in _STREAMS and _is_inheritable(number)]


def _is_inheritable(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:  # closed meanwhile
        return False


def _await(pid: int, on_end: Callable[[], None]) -> None:
    with contextlib.suppress(ChildProcessError):  # where children are nobody's concern, none is ever waited for
        os.waitpid(pid, 0)
    on_end()
