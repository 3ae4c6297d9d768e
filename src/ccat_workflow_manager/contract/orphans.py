"""Processes that left the session and the environment of their job: they become children of whoever tests."""

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import psutil

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37
_POLL: Final = timedelta(milliseconds=20)
_KILL_PATIENCE: Final = timedelta(seconds=10)


class Orphans:
    """Children that this process has not had before, with all that descends from them."""

    def __init__(self) -> None:
        self._before = frozenset(psutil.Process().children())

    def living(self) -> Sequence[psutil.Process]:
        """Those that still run; who has ended is buried."""
        new = [child for child in psutil.Process().children() if child not in self._before]
        return [one for child in new for one in (child, *_descendants(child)) if _lives(one)]

    def kill(self) -> None:
        """Leave none of them, nor what they start meanwhile."""
        until = time.monotonic() + _KILL_PATIENCE.total_seconds()
        while (left := self.living()) and time.monotonic() < until:
            for one in left:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            time.sleep(_POLL.total_seconds())


@contextlib.contextmanager
def adopting() -> Iterator[Orphans]:
    """Whatever descends from us and loses its parent becomes our child; none that came inside of the block is left."""
    before = ctypes.c_int()
    _prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before))
    orphans = Orphans()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield orphans
    finally:
        orphans.kill()
        _prctl(_PR_SET_CHILD_SUBREAPER, before.value)


def name_of(process: psutil.Process) -> str | None:
    """What a process is called; None where it has ended."""
    with contextlib.suppress(psutil.Error):
        return process.name()
    return None


def _descendants(process: psutil.Process) -> Sequence[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return process.children(recursive=True)
    return ()


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        if process.status() != psutil.STATUS_ZOMBIE:
            return True
    with contextlib.suppress(ChildProcessError):  # somebody else's child, or buried by whoever started it
        os.waitpid(process.pid, os.WNOHANG)
    return False
