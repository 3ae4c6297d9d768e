from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from time import monotonic
from typing import Any

from celery import Task, signals
from celery.worker import state
from redis import Redis
from redis.exceptions import RedisError

from ccat_service.health import HealthCheck
from ccat_service.logging import StructuredLogger
from ccat_service.stop import START_ANEW, Stop

_log = StructuredLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What one look at a worker showed."""

    waiting: int
    """Messages in its queues."""
    running: int
    """Tasks that it is at."""
    taken: int
    """Tasks that it began since it started."""


def hears(before: Glance, now: Glance, *, concurrency: int) -> bool:
    """False where messages wait, a thread is free to take one, and yet none was taken between the two looks."""
    return now.waiting == 0 or now.running >= concurrency or now.taken > before.taken


class Watch:
    """Looks after a Celery worker of this process: ends it when it is asked to, or has been deaf for too long.

    It counts the tasks from its queues: what Celery counts by itself is of all workers of the process together.
    """

    def __init__(
        self,
        queues: Sequence[str],
        concurrency: int,
        *,
        redis: Redis,
        health: HealthCheck,
        stop: Stop,
        patience: timedelta,
    ) -> None:
        self._queues = queues
        self._concurrency = concurrency
        self._redis = redis
        self._health = health
        self._stop = stop
        self._patience = patience
        self._deaf_since: float | None = None
        self._begun = self._ended = 0
        self._counting = Lock()
        signals.task_prerun.connect(self._note_begin)  # as long as this lives
        signals.task_postrun.connect(self._note_end)

    def run(self) -> None:
        """Look at intervals until the process is to stop, then tell Celery."""
        before = self._look()
        while not self._stop.wait(self._patience / 3):
            now = self._look()
            self._judge(before, now)
            before = now
        state.should_stop = self._stop.exit_code  # type: ignore[assignment]  # the stub knows its first value only

    def _look(self) -> Glance | None:
        try:
            waiting = sum(int(self._redis.llen(queue)) for queue in self._queues)
        except (RedisError, OSError):
            return None  # nobody hears anything now, and the consumer tries to reconnect by itself
        with self._counting:
            return Glance(waiting=waiting, running=self._begun - self._ended, taken=self._begun)

    def _note_begin(self, task: Task[Any, Any], **_: object) -> None:
        with self._counting:
            self._begun += self._is_ours(task)

    def _note_end(self, task: Task[Any, Any], **_: object) -> None:
        with self._counting:
            self._ended += self._is_ours(task)

    def _is_ours(self, task: Task[Any, Any]) -> bool:
        return (task.request.delivery_info or {}).get("routing_key") in self._queues

    def _judge(self, before: Glance | None, now: Glance | None) -> None:
        if before is None or now is None or hears(before, now, concurrency=self._concurrency):
            self._deaf_since = None
            self._health.beat()
            return
        self._deaf_since = self._deaf_since or monotonic()
        if monotonic() - self._deaf_since >= self._patience.total_seconds():
            _log.error("worker takes no tasks although some wait, ending it to be started anew", waiting=now.waiting)
            self._stop.request(exit_code=START_ANEW)
