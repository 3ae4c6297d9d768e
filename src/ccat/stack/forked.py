"""Our own processes, forked from the supervisor: it imports the code once, and each of them is there at once."""

import contextlib
import gc
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NoReturn, TextIO

from setproctitle import setproctitle

_POLL = timedelta(milliseconds=20)
_OUR_FILES = 3
"""Standard input, output and errors are the child's own; whatever else is open belongs to the supervisor."""


class Forked:
    """A forked child, with the part of `subprocess.Popen` that a supervisor needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            try:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else collected it
                ended, status = self.pid, 0
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Exit code once it has ended; raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and timeout is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired([str(self.pid)], timeout)
            time.sleep(_POLL.total_seconds())
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(9)


@dataclass(frozen=True, kw_only=True)
class Life:
    """What a child is to do, as whom and where."""

    call: Callable[[], object]
    title: str
    directory: Path | None
    environment: Mapping[str, str]
    output: TextIO
    set_up: Callable[[], None]
    """Runs in it first."""


def fork(life: Life) -> Forked:
    """A child in a session of its own, which ends with what `life.call` returns or raises."""
    gc.freeze()  # what is imported stays shared with the child
    pid = os.fork()
    if pid == 0:
        _live(life)
    return Forked(pid)


def _live(life: Life) -> NoReturn:
    """Be the child; nothing of the supervisor's own clean-up may run in it."""
    code = 1
    try:
        os.setsid()
        _redirect(life.output)
        life.set_up()
        os.environ["SPT_NOENV"] = "1"  # or the title would be written over the environment, by which it is found
        setproctitle(life.title)
        os.environ.clear()
        os.environ.update(life.environment)
        os.chdir(life.directory or "/")
        life.call()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001 - whatever it is, the process ends with it here
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _redirect(output: TextIO) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, sys.__stdin__.fileno() if sys.__stdin__ else 0)
    for number in (1, 2):
        os.dup2(output.fileno(), number)
    for number in [int(one.name) for one in Path("/proc/self/fd").iterdir()]:
        if number >= _OUR_FILES:
            with contextlib.suppress(OSError):  # the listing itself had one
                os.close(number)
    sys.stdout, sys.stderr = (
        os.fdopen(number, "w", buffering=1, errors="backslashreplace", closefd=False) for number in (1, 2)
    )
