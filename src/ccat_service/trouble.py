import redis.exceptions
import sqlalchemy.exc

from ccat_ops_db.errors import CcatError

_CONNECTION_TROUBLE = (
    ConnectionError,
    TimeoutError,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    sqlalchemy.exc.TimeoutError,
)
_PASSING_SQLSTATES = frozenset({"08", "40", "53", "55", "57", "58"})
"""Classes of what PostgreSQL reports that may go well another time: connection, conflict, resources, busy, operator,
system."""


def is_transient(error: BaseException) -> bool:
    """Whether trying the same again later may succeed."""
    if isinstance(error, CcatError):
        return error.transient
    if isinstance(error, sqlalchemy.exc.DBAPIError):
        sqlstate = getattr(error.orig, "sqlstate", None) or ""
        return error.connection_invalidated or sqlstate[:2] in _PASSING_SQLSTATES
    return isinstance(error, _CONNECTION_TROUBLE)
