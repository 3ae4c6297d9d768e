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


def is_transient(error: BaseException) -> bool:
    """Whether trying the same again later may succeed."""
    if isinstance(error, CcatError):
        return error.transient
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, _CONNECTION_TROUBLE)
