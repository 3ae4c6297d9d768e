import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import kombu.exceptions
import structlog
from celery import Celery, Task
from kombu import Exchange, Queue
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from ccat_ops_db.errors import CcatError
from ccat_service.logging import StructuredLogger
from ccat_service.outbox import Ids, outbox_of
from ccat_service.queues import require_same_family
from ccat_service.retries import Backoff, first_line
from ccat_service.servers import RedisSettings
from ccat_service.trouble import is_transient

Id = TypeVar("Id", int, str)

_VISIBILITY: Final = timedelta(hours=2)
"""Redis hands a message out again when its worker was silent for this long. Longer than the longest honest task: lost
work comes back within seconds by the database's sweeper, and not by this."""
_SILENCE: Final = timedelta(seconds=5)
"""After a message could not be sent, none is tried for this long: each try may block for a second."""
_LONGEST_QUEUE: Final = 1000
"""Messages that may wait in a queue; what is dropped beyond them is sent again by the database's sweeper."""
_BACKOFF: Final = Backoff(first=timedelta(seconds=2), ceiling=timedelta(minutes=2))

_log = StructuredLogger(__name__)


class NotIdsError(CcatError):
    """A task was given something that the database cannot look up."""

    code = "task_arguments"

    def __init__(self, task: str, given: object) -> None:
        super().__init__(
            f"task {task!r} takes a list of ids, all int or all str (a UUID is sent as str), and got {given!r:.200}; "
            "whatever else it needs it must read from the database"
        )


class TaskApp(Celery):
    """Celery whose messages are hints: sending one neither fails nor blocks for long because Redis is away."""

    _silent_until: float = 0.0

    def waiting(self, queue: str) -> int:
        """How many messages lie in a queue; none as long as Redis is away."""
        if monotonic() < self._silent_until:
            return 0
        try:
            with self.producer_or_acquire() as producer:
                return int(producer.channel.client.llen(queue))
        except (kombu.exceptions.OperationalError, RedisError, OSError):
            return 0

    def hint(
        self, task: str, ids: Sequence[int | str], *, queue: str, countdown: timedelta | None = None, attempt: int = 0
    ) -> None:
        """Send one message; what is lost is found again in the database."""
        if monotonic() < self._silent_until:
            return
        try:
            with self.producer_or_acquire() as producer:
                if producer.channel.client.llen(queue) >= _LONGEST_QUEUE:
                    return  # nobody takes what is there; more of the same would only fill Redis
                self.send_task(
                    task,
                    args=[list(ids)],
                    queue=declare_queue(queue),  # type: ignore[arg-type]  # Celery documents both, its stub only str
                    countdown=countdown.total_seconds() if countdown else None,
                    retries=attempt,
                    producer=producer,
                    retry=False,
                    ignore_result=True,
                )
        except (kombu.exceptions.OperationalError, RedisError, OSError) as error:
            self._silent_until = monotonic() + _SILENCE.total_seconds()
            _log.warning("messages are lost, Redis does not take them", task=task, queue=queue, error=first_line(error))


class CeleryTask(Generic[Id]):
    """A task as its senders see it; whoever only sends needs no more than the app and the name.

    At most `batch` ids go into one message: many where one statement serves all, 1 where each is long work. What is
    sent at once is spread over `spread` messages before any of these is full, so that idle threads share it.
    """

    def __init__(self, app: TaskApp, name: str, *, batch: int = 100, spread: int = 1) -> None:
        require_same_family(name, name)
        self.app = app
        self.name = name
        self.batch = batch
        self.spread = spread

    def send(self, ids: Collection[Id] | Collection[UUID], *, queue: str) -> None:
        """Send ids at once, in batches; for what is committed already."""
        self._mailbox(queue).deliver(list(dict.fromkeys(self._checked(ids))))

    def send_after_commit(self, session: Session, ids: Collection[Id] | Collection[UUID], *, queue: str) -> None:
        """Send ids once the session's transaction is committed, and never if it, or its savepoint, is rolled back.

        What one transaction sends to one queue leaves together, each id once.
        """
        outbox_of(session).put(session, self._mailbox(queue), self._checked(ids))

    def is_behind(self, queue: str) -> bool:
        """Whether so much lies in a queue that whoever takes it is busy for now: more would only lie there longer."""
        return self.app.waiting(queue) >= 2 * self.spread

    def _mailbox(self, queue: str) -> "_TaskQueue":
        require_same_family(self.name, queue)
        return _TaskQueue(self.app, self.name, queue=queue, batch=self.batch, spread=self.spread)

    def _checked(self, ids: Collection[Id] | Collection[UUID]) -> Ids:
        if isinstance(ids, str | bytes) or not isinstance(ids, Collection):
            raise NotIdsError(self.name, ids)
        plain: Ids = [str(one) if isinstance(one, UUID) else one for one in ids]
        if {type(one) for one in plain} not in ({int}, {str}, set()):
            raise NotIdsError(self.name, ids)
        return plain


def make_celery_app(redis: RedisSettings, *, name: str) -> TaskApp:
    """Celery app of one process; nothing is connected yet. Results are not kept: they are rows of the database."""
    app = TaskApp(name, set_as_current=False)
    app.conf.update(
        broker_url=redis.url(),
        broker_transport="ccat_service.broker:Transport",
        broker_use_ssl=redis.tls_options() or False,
        broker_transport_options=_transport_options(name),
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=2,
        timezone="UTC",
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_publish_retry=False,
        # A queue is named by whoever sends, and made of its name alone: nothing is declared in Redis that could be lost
        # with it, and what is sent without a queue, or to one of the other family, is refused.
        task_routes=(_refuse_strays,),
        task_create_missing_queues=False,
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_detect_quorum_queues=False,
    )
    return app


def make_celery_task(
    app: TaskApp, name: str, *, batch: int = 100, retries: int = 5, backoff: Backoff = _BACKOFF
) -> Callable[[Callable[[list[Id]], object]], CeleryTask[Id]]:
    """Decorator that makes a verb, which takes a list of ids, the task `workflow.…` or `transfer.…`.

    Transient errors are tried again after a pause; any other, and the last of `retries`, is logged: the database's
    sweeper brings the work again where it is still wanted.
    """

    def register(verb: Callable[[list[Id]], object]) -> CeleryTask[Id]:
        task: CeleryTask[Id] = CeleryTask(app, name, batch=batch)
        execution = _Execution(app=app, name=name, verb=verb, retries=retries, backoff=backoff)

        @app.task(name=name, bind=True)
        def run(self: Task[Any, Any], ids: list[Id]) -> None:
            delivery = self.request.delivery_info or {}
            execution.run(ids, queue=str(delivery.get("routing_key")), attempt=self.request.retries)

        return task

    return register


def declare_queue(name: str) -> Queue:
    """A queue that exists by its name: messages go straight to it, past any exchange."""
    return Queue(name, Exchange("", type="direct"), routing_key=name, no_declare=True)


@dataclass(frozen=True)
class _TaskQueue:
    app: TaskApp
    task: str
    queue: str
    batch: int
    spread: int

    def deliver(self, ids: Ids) -> None:
        size = min(self.batch, max(1, -(-len(ids) // self.spread)))
        for start in range(0, len(ids), size):
            self.app.hint(self.task, ids[start : start + size], queue=self.queue)


@dataclass(frozen=True, kw_only=True)
class _Execution(Generic[Id]):
    app: TaskApp
    name: str
    verb: Callable[[list[Id]], object]
    retries: int
    backoff: Backoff

    def run(self, ids: list[Id], *, queue: str, attempt: int) -> None:
        with structlog.contextvars.bound_contextvars(task=self.name, ids=ids, attempt=attempt):
            try:
                self.verb(ids)
            except Exception as error:  # noqa: BLE001 - a worker outlives whatever a task raises
                if is_transient(error) and attempt < self.retries:
                    self._try_again(ids, error, queue=queue, attempt=attempt + 1)
                else:
                    _report(error)

    def _try_again(self, ids: list[Id], error: Exception, *, queue: str, attempt: int) -> None:
        pause = self.backoff.delay(attempt, jitter=random.random())  # noqa: S311 - not a secret
        _log.warning("task failed, trying again later", error=first_line(error), next_try_in_s=pause.total_seconds())
        self.app.hint(self.name, ids, queue=queue, countdown=pause, attempt=attempt)


def _report(error: Exception) -> None:
    if isinstance(error, CcatError):
        _log.error("task failed", code=error.code, error=str(error))
    else:
        _log.exception("task failed", error)


def _refuse_strays(name: str, _args: object, _kwargs: object, options: dict[str, Any], **_: object) -> None:
    require_same_family(name, options["queue"].name if "queue" in options else "")


def _transport_options(name: str) -> dict[str, Any]:
    return {
        "client_name": name.replace(" ", "-"),
        "visibility_timeout": _VISIBILITY.total_seconds(),
        "unacked_key": "celery:unacked",
        "unacked_index_key": "celery:unacked_index",
        "unacked_mutex_key": "celery:unacked_mutex",
        "socket_connect_timeout": 1,
        "socket_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 5,  # a connection that died in silence is noticed within three of these
        "max_retries": 0,  # of connecting, for a sender; a worker has its own patience
    }
