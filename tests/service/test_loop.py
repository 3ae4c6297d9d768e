import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from signal import SIGTERM
from time import monotonic
from typing import TypeAlias

import pytest
import sqlalchemy as sa

from ccat.stack.redis import RedisAddress
from ccat_ops_db.schema import SchemaOutdated
from ccat_service.database import DatabaseConnection
from ccat_service.health import HealthCheck, read_heartbeats
from ccat_service.loop import Manager, run_manager
from ccat_service.retries import Backoff
from ccat_service.servers import RedisSettings
from ccat_service.stop import Stop
from tests.service.support import Program, Proxy, eventually

Tick: TypeAlias = Callable[[object], int]
Start: TypeAlias = Callable[[Manager[None]], AbstractContextManager[Stop]]

NEVER = timedelta(hours=1)
AT_ONCE = Backoff(first=timedelta(milliseconds=5), ceiling=timedelta(milliseconds=5))


class Ticks:
    """Counts its ticks, and finds as much work in each as it was told to."""

    def __init__(self, *found: int | Exception) -> None:
        self.count = 0
        self._found = list(found)

    def __call__(self, _context: object) -> int:
        self.count += 1
        found = self._found.pop(0) if self._found else 0
        if isinstance(found, Exception):
            raise found
        return found

    def are(self, count: int) -> bool:
        eventually(lambda: self.count >= count)
        return self.count == count


@pytest.fixture
def health(redis_settings: RedisSettings) -> Iterator[HealthCheck]:
    with redis_settings.client("tests") as client:
        yield HealthCheck("tests", "manager", redis=client, interval=timedelta(milliseconds=20))


@contextmanager
def running(manager: Manager[None], url: str, health: HealthCheck) -> Iterator[Stop]:
    """The manager in a thread of its own, until the end of the block."""
    stop, database = Stop(), DatabaseConnection(url, "test manager")
    arguments = {"database": database, "health": health, "stop": stop}
    thread = threading.Thread(target=run_manager, args=(manager,), kwargs=arguments)
    thread.start()
    try:
        yield stop
    finally:
        began = monotonic()
        stop.request()
        thread.join()
        database.close()
        stop.close()
    assert monotonic() - began < 5


@pytest.fixture
def start(database_url: str, health: HealthCheck) -> Start:
    return lambda manager: running(manager, database_url, health)


@pytest.fixture
def announce(engine: sa.Engine) -> Callable[[str], None]:
    def announce(payload: str) -> None:
        with engine.begin() as connection:
            connection.execute(sa.select(sa.func.pg_notify("ccat_moves", payload)))

    return announce


def is_listening(engine: sa.Engine) -> bool:
    query = "SELECT true FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    with engine.connect() as connection:
        return bool(connection.scalar(sa.text(query)))


def settled(ticks: Ticks, engine: sa.Engine) -> int:
    """Number of ticks once the manager listens and has looked again for what it may have missed."""
    eventually(lambda: is_listening(engine))
    before = ticks.count
    eventually(lambda: ticks.count > before or ticks.count >= 2)
    return ticks.count


def test_it_ticks_again_at_once_while_there_is_work_and_shows_it(start: Start, redis_settings: RedisSettings) -> None:
    ticks = Ticks(5, 5, 3)
    with start(Manager(name="test", context=None, tick=ticks, poll=NEVER)):
        eventually(lambda: ticks.count >= 4)
        with redis_settings.client("tests") as client:
            eventually(lambda: [heartbeat for heartbeat in read_heartbeats(client) if heartbeat.last_work])


def test_a_move_that_concerns_it_wakes_it_and_others_do_not(
    start: Start, announce: Callable[[str], None], engine: sa.Engine
) -> None:
    ticks = Ticks()
    wakes_on = {"raw_data_package:archived", "staging_job:*"}
    with start(Manager(name="test", context=None, tick=ticks, wakes_on=wakes_on, poll=NEVER)):
        before = settled(ticks, engine)
        announce("raw_data_package:failed")
        announce("staging_job:completed")
        assert ticks.are(before + 1)
        announce("raw_data_package:archived")
        assert ticks.are(before + 2)


def test_it_polls_where_nothing_is_announced(start: Start) -> None:
    ticks = Ticks()
    with start(Manager(name="test", context=None, tick=ticks, poll=timedelta(milliseconds=20))):
        eventually(lambda: ticks.count >= 5)


def test_it_wakes_at_the_moment_that_is_due(start: Start, engine: sa.Engine) -> None:
    ticks = Ticks()
    moment = datetime.now(UTC) + timedelta(seconds=0.5)
    due_once = lambda _: moment if moment > datetime.now(UTC) else None  # noqa: E731 - one expression, used once
    with start(Manager(name="test", context=None, tick=ticks, due=due_once, poll=NEVER)):
        before = settled(ticks, engine)
        eventually(lambda: ticks.count > before)
    assert datetime.now(UTC) >= moment


def test_what_is_overdue_but_left_undone_does_not_make_it_spin(start: Start) -> None:
    ticks = Ticks()
    with start(Manager(name="test", context=None, tick=ticks, due=lambda _: datetime.now(UTC) - NEVER, poll=NEVER)):
        began = monotonic()
        eventually(lambda: ticks.count >= 5)
    assert monotonic() - began >= 0.25


def test_it_outlives_whatever_a_tick_raises(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    ticks = Ticks(ValueError("odd package"), TimeoutError("cluster busy"), 1)
    with start(Manager(name="test", context=None, tick=ticks, poll=NEVER, backoff=AT_ONCE)):
        eventually(lambda: ticks.count >= 4)
    printed = capsys.readouterr().out
    assert printed.count("round failed, trying again later") == 2
    assert "ValueError: odd package" in printed  # with its traceback: nobody expected it
    assert "works again" in printed
    assert printed.count("Traceback") == 1


def test_on_an_outdated_schema_it_ends_with_the_command_that_mends_it(postgresql_url: str, health: HealthCheck) -> None:
    ticks, stop, database = Ticks(), Stop(), DatabaseConnection(postgresql_url, "tests")
    manager = Manager(name="test", context=None, tick=ticks)
    with pytest.raises(SchemaOutdated, match="opsdb_init"):
        run_manager(manager, database=database, health=health, stop=stop)
    assert ticks.count == 0
    database.close()
    stop.close()


def test_it_waits_for_a_database_that_is_away_and_works_when_it_is_there(
    database_url: str, health: HealthCheck, capsys: pytest.CaptureFixture[str]
) -> None:
    url = sa.make_url(database_url)
    proxy = Proxy(f"{url.query['host']}/.s.PGSQL.5432")
    behind_proxy = url.set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(hide_password=False)
    ticks, printed = Ticks(), ""

    def told(sentence: str) -> int:
        nonlocal printed
        printed += capsys.readouterr().out
        return printed.count(sentence)

    with running(Manager(name="test", context=None, tick=ticks, poll=NEVER, backoff=AT_ONCE), behind_proxy, health):
        eventually(lambda: told("round failed, trying again later") >= 2)
        assert "Traceback" not in printed
        assert "Connection refused" in printed
        proxy.mend()
        eventually(lambda: ticks.count)
    proxy.cut()


def program_variables(database_url: str, redis: RedisAddress) -> dict[str, str]:
    return {
        "CCAT_OPS_DB_URL": database_url,
        "CCAT_DATA_TRANSFER_REDIS_HOST": redis.host,
        "CCAT_DATA_TRANSFER_REDIS_PORT": str(redis.port),
        "CCAT_DATA_TRANSFER_REDIS_PASSWORD": redis.password,
    }


def test_sigterm_lets_the_tick_end_and_the_process_exits_0_but_one_that_hangs_is_ended_in_time(
    database_url: str, redis_address: RedisAddress, tmp_path: Path
) -> None:
    variables = program_variables(database_url, redis_address) | {"GRACE_SECONDS": "1"}
    (tmp_path / "hanging").mkdir()
    busy = Program("manager", tmp_path, variables | {"TICK_SECONDS": "0.3"})
    hanging = Program("manager", tmp_path / "hanging", variables | {"TICK_SECONDS": "60"})
    try:
        for program in (busy, hanging):
            eventually(partial(program.events, "tick began"), within=30)
            program.signal(SIGTERM)
        assert busy.exit_code(within=timedelta(seconds=10)) == 0
        assert len(busy.events("tick began")) == len(busy.events("tick ended"))
        assert hanging.exit_code(within=timedelta(seconds=10)) == 0
        assert hanging.events("not finished in time")
        assert not hanging.events("tick ended")
    finally:
        busy.close()
        hanging.close()
