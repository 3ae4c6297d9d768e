import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from types import TracebackType
from typing import Final, Self

from redis import Redis
from redis.exceptions import RedisError

from ccat_service.logging import StructuredLogger
from ccat_service.retries import first_line

HEARTBEAT_LIFETIME: Final = timedelta(seconds=90)
HEARTBEAT_INTERVAL: Final = timedelta(seconds=30)
_ENDED: Final = "ended:"
"""Before the key of a heartbeat: its process ended on purpose."""
_REMEMBERED: Final = timedelta(days=7)
_DISTRIBUTION: Final = "ccat-data-center"
_log = StructuredLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """Sign of life of one process."""

    service_type: str
    service_name: str
    instance: str
    host: str
    pid: int
    version: str
    started: datetime
    beat: datetime
    """When the process last showed that it does not hang, such as by finishing a round of its loop."""
    last_work: datetime | None = None
    """When it last did something useful; None where it never did."""

    @property
    def key(self) -> str:
        """Redis key of this process alone: a dead one is not hidden by its replicas."""
        return f"health:{self.service_type}:{self.service_name}:{self.instance}"


class HealthCheck:
    """Keeps this process's heartbeat in Redis, from a thread of its own; Redis being away never disturbs the process.

    `instance` tells replicas of one service apart; host and process id where it is not given.
    """

    def __init__(
        self,
        service_type: str,
        service_name: str,
        *,
        redis: Redis,
        instance: str = "",
        interval: timedelta | None = None,
    ) -> None:
        host, now = socket.gethostname(), datetime.now(UTC)
        self._heartbeat = Heartbeat(
            service_type=service_type,
            service_name=service_name,
            instance=instance or f"{host}-{os.getpid()}",
            host=host,
            pid=os.getpid(),
            version=version(_DISTRIBUTION),
            started=now,
            beat=now,
        )
        self._redis = redis
        self._interval = interval or HEARTBEAT_INTERVAL
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._redis_is_away = False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Show the first sign of life now and the next ones at the interval."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take the heartbeat away: this process ended on purpose."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def beat(self) -> None:
        """Note that the process does not hang."""
        self._heartbeat = replace(self._heartbeat, beat=datetime.now(UTC))

    def record_work(self) -> None:
        """Note that the process did something useful just now."""
        now = datetime.now(UTC)
        self._heartbeat = replace(self._heartbeat, beat=now, last_work=now)

    def _keep_beating(self) -> None:
        self._tell_redis(remove=False)
        while not self._stopping.wait(self._interval.total_seconds()):
            self._tell_redis(remove=False)
        self._tell_redis(remove=True)

    def _tell_redis(self, *, remove: bool) -> None:
        try:
            if remove:
                ended = f"{_ENDED}{self._heartbeat.key}"
                self._redis.set(ended, "", ex=_REMEMBERED)
                self._redis.delete(self._heartbeat.key)
            else:
                self._redis.set(self._heartbeat.key, _to_json(self._heartbeat), ex=HEARTBEAT_LIFETIME)
        except (RedisError, OSError) as error:
            if not self._redis_is_away:
                _log.warning("cannot show a sign of life in Redis, trying on", error=first_line(error))
            self._redis_is_away = True
        else:
            if self._redis_is_away:
                _log.info("signs of life reach Redis again")
            self._redis_is_away = False


def read_heartbeats(redis: Redis) -> list[Heartbeat]:
    """Every process that showed a sign of life in the last 90 s, ordered by its key."""
    return sorted(_stored_heartbeats(redis), key=lambda heartbeat: heartbeat.key)


def ended_services(redis: Redis) -> set[str]:
    """Keys of the heartbeats of processes that ended on purpose lately."""
    keys = redis.scan_iter(match=f"{_ENDED}health:*", count=1000)
    return {(key.decode() if isinstance(key, bytes) else str(key)).removeprefix(_ENDED) for key in keys}


def _stored_heartbeats(redis: Redis) -> Iterator[Heartbeat]:
    for key in redis.scan_iter(match="health:*", count=1000):
        text = redis.get(key)
        if isinstance(text, bytes | str):  # else it expired between the two questions
            yield _from_json(text)


def _to_json(heartbeat: Heartbeat) -> str:
    return json.dumps(asdict(heartbeat), default=datetime.isoformat)


def _from_json(text: bytes | str) -> Heartbeat:
    fields = json.loads(text)
    moments = {name: datetime.fromisoformat(fields[name]) for name in ("started", "beat", "last_work") if fields[name]}
    return Heartbeat(**(fields | moments))
