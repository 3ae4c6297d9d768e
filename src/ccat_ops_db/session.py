import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from ccat_ops_db.errors import CcatError

Result = TypeVar("Result")

_RETRIED_SQLSTATES = frozenset({"40001", "40P01"})  # serialisation failure, deadlock
_CHECK_VIOLATION = "23514"
_ATTEMPTS = 5


class DatabaseUnreachable(CcatError):
    """The operations database does not answer."""

    code = "database_unreachable"
    transient = True

    def __init__(self, url: sa.URL, cause: BaseException) -> None:
        detail = str(cause).strip().splitlines()[0]
        super().__init__(
            f"The operations database {without_password(url)} does not answer ({detail}). "
            "Is it running? `ccat status` shows the embedded stack and `ccat up` starts it; for another server check "
            "CCAT_OPS_DB_URL."
        )


def without_password(url: sa.URL) -> str:
    """The URL as it may be printed."""
    return url.difference_update_query(["password"]).render_as_string(hide_password=True)


def create_engine(url: str, *, application_name: str) -> sa.Engine:
    """Engine for the operations database; every connection speaks UTC and shows `application_name` in pg_stat_activity.

    Nothing is connected yet. A process that hangs within a transaction loses it, and its locks, after a minute. The
    database plans for disks that seek quickly, and does not compile its plans: questions are many and small.
    """
    options = "-c timezone=UTC -c idle_in_transaction_session_timeout=60s -c random_page_cost=1.1 -c jit=off"
    return sa.create_engine(
        url,
        pool_pre_ping=True,
        connect_args={"application_name": application_name, "options": options, "connect_timeout": 10},
    )


def connect(engine: sa.Engine) -> sa.Connection:
    """A connection, to be closed by the caller; raises DatabaseUnreachable where none can be had."""
    try:
        return engine.connect()
    except OperationalError as error:
        raise DatabaseUnreachable(engine.url, error.orig or error) from error


def database_time(database: sa.Connection | Session) -> datetime:
    """What the clock of the database says, by which all moments are compared; those of hosts differ."""
    now: datetime = database.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return now


@contextmanager
def transaction(engine: sa.Engine) -> Iterator[Session]:
    """One transaction: committed at the end, rolled back on any error.

    Raises DatabaseUnreachable where no connection can be had, or it is lost; if that happens while it commits, nobody
    knows whether it did.
    """
    with connect(engine) as connection:
        try:
            with Session(connection, expire_on_commit=False) as session, session.begin():
                yield session
        except DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseUnreachable(engine.url, error.orig or error) from error
            raise


def is_conflict(error: DBAPIError) -> bool:
    """Whether PostgreSQL chose a transaction as victim of a conflict with another, so that it may succeed next time."""
    return getattr(error.orig, "sqlstate", None) in _RETRIED_SQLSTATES


def is_refused(error: DBAPIError) -> bool:
    """Whether a rule that the database keeps forbids what was asked."""
    return getattr(error.orig, "sqlstate", None) == _CHECK_VIOLATION


def in_transaction(engine: sa.Engine, work: Callable[[Session], Result]) -> Result:
    """Result of `work` in a transaction of its own, again where PostgreSQL chose it as victim of a conflict."""
    for attempt in range(1, _ATTEMPTS):
        try:
            with transaction(engine) as session:
                return work(session)
        except OperationalError as error:
            if not is_conflict(error):
                raise
            time.sleep(random.uniform(0, 0.02 * 2**attempt))  # noqa: S311 - jitter, not a secret
    with transaction(engine) as session:
        return work(session)
