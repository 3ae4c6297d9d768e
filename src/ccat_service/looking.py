"""Looks that are taken again and again, each by a thread of its own: what does not answer holds up nothing else."""

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Final, TypeAlias

from ccat_service.logging import StructuredLogger
from ccat_service.retries import first_line
from ccat_service.stop import Stop

Look: TypeAlias = Callable[[], object]

EVERY: Final = timedelta(seconds=15)
_PATIENCE: Final = timedelta(seconds=1)
"""With a look that goes on when the process is to end."""
_log = StructuredLogger(__name__)


@contextmanager
def looking(
    looks: Callable[[], Mapping[Hashable, Look]], what: str, *, stop: Stop, interval: timedelta = EVERY
) -> Iterator[None]:
    """Take looks again and again, inside the `with` block; `what` cannot be done where one fails, for the log.

    It is asked each time what there is to look at. Raises what that raises the first time.
    """
    watch = _Watch(looks, what, stop=stop, interval=interval)
    watch.follow()
    watch.begin(watch.follow, until=lambda: False)
    try:
        yield
    finally:
        stop.request()
        watch.end()


class _Watch:
    def __init__(
        self, looks: Callable[[], Mapping[Hashable, Look]], what: str, *, stop: Stop, interval: timedelta
    ) -> None:
        self._looks = looks
        self._what = what
        self._stop = stop
        self._interval = interval
        self._watched: Mapping[Hashable, Look] = {}
        self._threads: list[threading.Thread] = []

    def follow(self) -> None:
        """Look from now on at what there is now, and at nothing else."""
        before, self._watched = self._watched, dict(self._looks())
        for key in self._watched.keys() - before.keys():
            self.begin(self._watched[key], until=partial(self._is_over, key))

    def begin(self, look: Look, *, until: Callable[[], bool]) -> None:
        """Look at once, and again and again until then."""
        self._threads.append(threading.Thread(target=self._repeat, args=(look, until), daemon=True))
        self._threads[-1].start()

    def end(self) -> None:
        """Wait a little for looks that go on."""
        for thread in self._threads:
            thread.join(_PATIENCE.total_seconds())

    def _is_over(self, key: Hashable) -> bool:
        return key not in self._watched

    def _repeat(self, look: Look, until: Callable[[], bool]) -> None:
        trouble = ""
        while not self._stop.requested and not until():
            try:
                look()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again, and the worker goes on
                if first_line(error) != trouble:
                    trouble = first_line(error)
                    _log.warning(f"cannot {self._what}, trying on", error=trouble)
            else:
                trouble = ""
            self._stop.wait(self._interval)
