import random
import selectors
from collections.abc import Callable, Sequence
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Final, Self, TypeAlias

import psycopg
from psycopg import sql

from ccat_service.logging import StructuredLogger
from ccat_service.retries import Backoff, first_line
from ccat_service.stop import Stop

MOVES_CHANNEL: Final = "ccat_moves"
"""Channel on which every move of a status is announced as `<noun>:<to-status>`."""
MISSED: Final = "*"
"""Payload that stands for any: the connection is new, and what was announced before it is not known."""

_BACKOFF: Final = Backoff(first=timedelta(seconds=0.5), ceiling=timedelta(seconds=30))
_NOTHING: Final[frozenset[str]] = frozenset()
_log = StructuredLogger(__name__)

ListeningConnection: TypeAlias = psycopg.Connection[tuple[object, ...]]


class Wakeups:
    """What PostgreSQL announces by NOTIFY, on a connection of its own that mends itself.

    An announcement only shortens a wait: whoever uses this must also look for work from time to time.
    """

    def __init__(
        self,
        connect: Callable[[], ListeningConnection],
        channels: Sequence[str],
        *,
        stop: Stop,
    ) -> None:
        self._connect = connect
        self._channels = channels
        self._stop = stop
        self._connection: ListeningConnection | None = None
        self._failures = 0
        self._next_attempt = monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def wait(self, timeout: timedelta) -> frozenset[str]:
        """Payloads that came, at the latest after `timeout` or when the process is to stop; MISSED after a gap.

        May return early with nothing while the database is away.
        """
        if self._connection is None:
            return self._reconnect(timeout)
        try:
            return self._receive(self._connection, timeout)
        except psycopg.Error as error:
            _log.info("listening connection lost", error=first_line(error))
            self.close()
            return _NOTHING

    def close(self) -> None:
        """Drop the connection; the next wait makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _receive(self, connection: ListeningConnection, timeout: timedelta) -> frozenset[str]:
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(self._stop, selectors.EVENT_READ)
            if not selector.select(timeout.total_seconds()) or self._stop.requested:
                return _NOTHING
        return frozenset(notice.payload for notice in connection.notifies(timeout=0))

    def _reconnect(self, timeout: timedelta) -> frozenset[str]:
        pause = timedelta(seconds=max(0.0, self._next_attempt - monotonic()))
        if self._stop.wait(min(pause, timeout)) or pause > timeout:
            return _NOTHING
        try:
            self._connection = self._listen()
        except psycopg.Error as error:
            self._failures += 1
            delay = _BACKOFF.delay(self._failures, jitter=random.random())  # noqa: S311 - not a secret
            self._next_attempt = monotonic() + delay.total_seconds()
            _log.warning("cannot listen to the database, polling meanwhile", error=first_line(error))
            return _NOTHING
        self._failures = 0
        return frozenset({MISSED})

    def _listen(self) -> ListeningConnection:
        connection = self._connect()
        try:
            for channel in self._channels:
                connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        except psycopg.Error:
            connection.close()
            raise
        return connection
