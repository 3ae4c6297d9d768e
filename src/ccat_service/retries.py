from dataclasses import dataclass
from datetime import timedelta

import redis.exceptions
import sqlalchemy.exc

from ccat_ops_db.errors import CcatError

_CONNECTION_TROUBLE = (
    ConnectionError,
    TimeoutError,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,
)


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait after the n-th failure in a row: doubling from `first` to `ceiling`."""

    first: timedelta = timedelta(seconds=1)
    ceiling: timedelta = timedelta(minutes=1)

    def delay(self, failures: int, *, jitter: float) -> timedelta:
        """Pause after `failures` ≥ 1; `jitter` in [0, 1) spreads it over its upper half, so that crowds disperse."""
        doublings = min(failures - 1, 32)  # past any sensible ceiling, and short of overflow
        return min(self.ceiling, self.first * (1 << doublings)) * (0.5 + 0.5 * jitter)


def is_transient(error: BaseException) -> bool:
    """Whether trying the same again later may succeed."""
    if isinstance(error, CcatError):
        return error.transient
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, _CONNECTION_TROUBLE)


def first_line(error: BaseException) -> str:
    """The sentence of an error without the essay that drivers append."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
