from datetime import timedelta

import psycopg
import redis.exceptions
import sqlalchemy.exc
from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.errors import CcatError
from ccat_service.retries import Backoff, first_line
from ccat_service.trouble import is_transient


class Refused(CcatError):
    pass


class Away(CcatError):
    transient = True


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_pause_doubles_up_to_its_ceiling_and_jitter_takes_at_most_half_of_it(failures: int, jitter: float) -> None:
    backoff = Backoff(first=timedelta(seconds=1), ceiling=timedelta(minutes=1))
    full = timedelta(seconds=min(60, 2 ** min(failures - 1, 10)))
    assert full / 2 <= backoff.delay(failures, jitter=jitter) <= full


def test_our_own_errors_say_themselves_whether_they_pass() -> None:
    assert is_transient(Away("x"))
    assert not is_transient(Refused("x"))


def test_lost_connections_pass_and_mistakes_do_not() -> None:
    lost = sqlalchemy.exc.DBAPIError("SELECT", None, Exception("gone"), connection_invalidated=True)
    away = redis.exceptions.ConnectionError()
    assert all(is_transient(error) for error in (lost, away, ConnectionResetError(), TimeoutError()))
    full = sqlalchemy.exc.OperationalError("INSERT", None, psycopg.errors.DiskFull("no space left"))
    assert is_transient(full)
    too_many = sqlalchemy.exc.OperationalError("SELECT", None, psycopg.OperationalError("too many parameters"))
    assert not is_transient(too_many)
    twice = sqlalchemy.exc.IntegrityError("INSERT", None, Exception("twice"))
    assert not any(is_transient(error) for error in (ValueError(), FileNotFoundError(), twice))


def test_the_first_line_of_an_error_leaves_out_the_essay() -> None:
    assert first_line(ValueError("connection failed\n(Background on this error at …)")) == "connection failed"
    assert first_line(TimeoutError()) == "TimeoutError"
