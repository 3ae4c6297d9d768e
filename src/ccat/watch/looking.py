import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from ccat.watch.hook import Channel, Hook, HookFailed
from ccat_ops_db.plan.alerts import News, SignOfLife, message_of, unheard
from ccat_ops_db.verbs.alerts import (
    hook_tries,
    judge,
    leave_watch,
    look,
    news_to_tell,
    record_hook_failure,
    record_told,
    take_watch,
)
from ccat_service.database import DatabaseConnection
from ccat_service.health import ended_services, read_heartbeats
from ccat_service.logging import StructuredLogger
from ccat_service.retries import Backoff, first_line
from ccat_service.stop import Stop

_INTERVAL: Final = timedelta(seconds=15)
_LEASE: Final = timedelta(seconds=60)
"""Longer than looking and telling may take together."""
_BACKOFF: Final = Backoff(first=timedelta(seconds=15), ceiling=timedelta(minutes=10))
_PATIENCE: Final = timedelta(seconds=1)
_log = StructuredLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What looking and telling needs."""

    database: DatabaseConnection
    redis: Redis
    hook: Hook
    name: str
    """Claims the watch."""
    backlog: timedelta
    """What has waited for so long is told."""
    pace: timedelta = timedelta(minutes=1)
    """Between two messages: what comes meanwhile is told in one."""
    heard: dict[str, dict[int, News]] = field(default_factory=dict)
    """Channel → what it took while another one did not: that is not told it again."""


@contextmanager
def watching(watch: Watch, *, stop: Stop, interval: timedelta = _INTERVAL) -> Iterator[None]:
    """Look and tell again and again inside the `with` block, in a thread: a hook that hangs holds nothing up."""
    thread = threading.Thread(target=_repeat, args=(watch, stop, interval), name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.request()
        thread.join(_PATIENCE.total_seconds())


def look_and_tell(watch: Watch) -> int:
    """One look, where no other process does it, and one message about all that is new; how much that was."""
    with watch.database.transaction() as session:
        if not take_watch(session, by=watch.name, lease=_LEASE):
            return 0
    now, alive, ended = datetime.now(UTC), *_services(watch.redis)
    with watch.database.transaction() as session:
        services = judge(session, alive, ended, now=now)
        look(session, services, backlog=watch.backlog, now=now, knows_services=alive is not None)
    return _tell(watch) if watch.hook else 0


def _tell(watch: Watch) -> int:
    """What is to be told is committed: should this process die before that is recorded, it is told again."""
    with watch.database.transaction() as session:
        news, tries = news_to_tell(session, pace=watch.pace, now=datetime.now(UTC)), hook_tries(session)
    if not news:
        return 0
    heard, channels = watch.heard, watch.hook.channels
    failures = [told for name in channels if (told := _give(channels[name], news, heard.setdefault(name, {})))]
    if failures:
        failure, pause = "; ".join(failures), _BACKOFF.delay(tries + 1, jitter=random.random())  # noqa: S311 - not a secret
        _log.warning("people cannot be told, trying on", error=failure, next_try_in_s=pause.total_seconds())
        with watch.database.transaction() as session:
            record_hook_failure(session, failure, next_try_at=datetime.now(UTC) + pause)
        return 0
    heard.clear()
    with watch.database.transaction() as session:
        record_told(session, news, now=datetime.now(UTC))
    return len(news)


def _give(give: Channel, news: Sequence[News], heard: dict[int, News]) -> str | None:
    """Give a channel what it has not heard before; why it did not take it."""
    fresh = unheard(news, heard)
    try:
        if fresh:
            give(message_of(fresh))
    except HookFailed as error:
        return str(error)
    heard.update({one.id: one for one in fresh})
    return None


def _services(redis: Redis) -> tuple[list[SignOfLife] | None, set[str]]:
    """Who shows signs of life, and who ended on purpose; None where Redis does not answer."""
    try:
        alive, ended, now = read_heartbeats(redis), ended_services(redis), datetime.now(UTC)
    except (RedisError, OSError):
        return None, set()
    return [
        SignOfLife(key=one.key, name=one.service_name, host=one.host, started=one.started, beat=one.beat, seen=now)
        for one in alive
    ], ended


def _repeat(watch: Watch, stop: Stop, interval: timedelta) -> None:
    while not stop.requested:
        try:
            look_and_tell(watch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the process goes on with its work
            _log.warning("cannot look what is the matter, trying on", error=first_line(error))
        stop.wait(interval)
    try:
        with watch.database.transaction() as session:
            leave_watch(session, by=watch.name)
    except Exception as error:  # noqa: BLE001 - the lease runs out
        _log.info("the watch is left to its lease", error=first_line(error))
