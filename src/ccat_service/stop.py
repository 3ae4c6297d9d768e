import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Final

from ccat_service.logging import StructuredLogger

START_ANEW: Final = 1
"""Exit code of a process that its supervisor is to start anew."""
_log = StructuredLogger(__name__)


class Stop:
    """The wish that this process ends, which every wait notices at once.

    Readable as a file descriptor from the moment it is requested, so it can take part in a selector.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        """What the process should exit with."""
        self._reader, self._writer = socket.socketpair()
        self._writer.settimeout(0)
        self._requested = False

    @property
    def requested(self) -> bool:
        """Whether somebody asked."""
        return self._requested

    def request(self, *, exit_code: int = 0) -> None:
        """Ask for the end; safe in a signal handler and from any thread. The first request decides the exit code."""
        if not self._requested:
            self._requested = True
            self.exit_code = exit_code
            self._writer.send(b"\0")

    def fileno(self) -> int:
        """Descriptor that is readable once the end is requested."""
        return self._reader.fileno()

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Sleep until the end is requested or the time is over; returns whether it is requested."""
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.select(None if timeout is None else timeout.total_seconds())
        return self._requested

    def close(self) -> None:
        """Release the descriptors."""
        self._reader.close()
        self._writer.close()


@contextmanager
def stop_on_signals(*, grace: timedelta = timedelta(seconds=9)) -> Iterator[Stop]:
    """A Stop that SIGTERM and SIGINT request; what is not finished `grace` later ends with the process.

    Ending in the middle is safe: transactions roll back, leases run out and somebody else takes the work over.
    A second SIGINT ends the process at once. Only for the main thread.
    """
    stop = Stop()
    finished = threading.Event()

    def request(signum: int, _frame: FrameType | None) -> None:
        stop.request()
        if signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    guard = threading.Thread(target=_end_in_time, args=(stop, finished, grace), name="stop-guard", daemon=True)
    guard.start()
    previous = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        finished.set()
        stop.request()  # wakes the guard
        guard.join()
        stop.close()


def _end_in_time(stop: Stop, finished: threading.Event, grace: timedelta) -> None:
    stop.wait()
    if not finished.wait(grace.total_seconds()):
        _log.warning("not finished in time, ending in the middle of the work", grace_s=grace.total_seconds())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.exit_code)
