import threading
from collections.abc import Iterator
from datetime import timedelta
from time import monotonic

import pytest
import sqlalchemy as sa

from ccat_service.database import DatabaseConnection
from ccat_service.stop import Stop
from ccat_service.wakeups import MISSED, Wakeups
from tests.service.support import Proxy, eventually

A_MINUTE = timedelta(minutes=1)
NO_TIME = timedelta()


@pytest.fixture
def stop() -> Iterator[Stop]:
    stop = Stop()
    yield stop
    stop.close()


@pytest.fixture
def database(database_url: str) -> Iterator[DatabaseConnection]:
    database = DatabaseConnection(database_url, "tests")
    yield database
    database.close()


@pytest.fixture
def wakeups(database: DatabaseConnection, stop: Stop) -> Iterator[Wakeups]:
    """Listening already."""
    with database.listen(stop=stop) as wakeups:
        assert wakeups.wait(A_MINUTE) == {MISSED}
        yield wakeups


def announce(engine: sa.Engine, *payloads: str) -> None:
    with engine.begin() as connection:
        for payload in payloads:
            connection.execute(sa.select(sa.func.pg_notify("ccat_moves", payload)))


def listener_of(engine: sa.Engine) -> int | None:
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tests listening'"
    )
    with engine.connect() as connection:
        pid: int | None = connection.scalar(sa.text(query))
        return pid


def test_a_new_listener_says_that_something_may_have_been_missed(database: DatabaseConnection, stop: Stop) -> None:
    with database.listen(stop=stop) as wakeups:
        assert wakeups.wait(A_MINUTE) == {MISSED}
        assert wakeups.wait(NO_TIME) == frozenset()


def test_an_announcement_ends_the_wait_at_once(wakeups: Wakeups, engine: sa.Engine) -> None:
    threading.Timer(0.05, announce, (engine, "staging_job:completed")).start()
    began = monotonic()
    assert wakeups.wait(A_MINUTE) == {"staging_job:completed"}
    assert monotonic() - began < 5


def test_what_one_transaction_announces_comes_together(wakeups: Wakeups, engine: sa.Engine) -> None:
    announce(engine, "staging_job:completed", "raw_data_package:archived")
    assert wakeups.wait(A_MINUTE) == {"staging_job:completed", "raw_data_package:archived"}


def test_the_wish_to_stop_ends_the_wait_at_once(wakeups: Wakeups, stop: Stop) -> None:
    threading.Timer(0.05, stop.request).start()
    began = monotonic()
    assert wakeups.wait(A_MINUTE) == frozenset()
    assert monotonic() - began < 5


def test_a_broken_connection_is_made_anew_and_counts_as_missed(wakeups: Wakeups, engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.execute(sa.select(sa.func.pg_terminate_backend(listener_of(engine))))
    eventually(lambda: wakeups.wait(A_MINUTE) == {MISSED})
    announce(engine, "staging_job:completed")
    assert wakeups.wait(A_MINUTE) == {"staging_job:completed"}


def test_while_the_database_is_away_waits_are_quiet_until_it_is_back(database_url: str, stop: Stop) -> None:
    url = sa.make_url(database_url)
    proxy = Proxy(f"{url.query['host']}/.s.PGSQL.5432")
    behind_proxy = url.set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(hide_password=False)
    database = DatabaseConnection(behind_proxy, "tests")
    with database.listen(stop=stop) as wakeups:
        assert wakeups.wait(timedelta(milliseconds=10)) == frozenset()
        assert wakeups.wait(timedelta(milliseconds=10)) == frozenset()
        proxy.mend()
        eventually(lambda: wakeups.wait(timedelta(milliseconds=100)) == {MISSED})
    proxy.cut()
