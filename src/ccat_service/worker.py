import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from celery import signals
from celery.worker import WorkController, state
from celery.worker.consumer import Consumer
from kombu import Connection
from redis import Redis

from ccat_ops_db.errors import CcatError
from ccat_service.health import HealthCheck
from ccat_service.logging import StructuredLogger
from ccat_service.queues import require_same_family
from ccat_service.retries import first_line
from ccat_service.stop import START_ANEW, Stop
from ccat_service.tasks import TaskApp, declare_queue
from ccat_service.watch import Watch

_log = StructuredLogger(__name__)


class NoQueueError(CcatError):
    """A worker was started for nothing."""

    code = "no_queue"

    def __init__(self, app: str) -> None:
        super().__init__(f"worker {app!r} has no queue to serve: does the database know its location and operations?")


@dataclass(frozen=True)
class Prompt:
    """Short tasks for which others wait: there are more threads for them than queues, however busy all others are."""

    app: TaskApp
    """Not that of the other tasks, as Celery takes all queues of an app alike; it knows the tasks of every app."""
    queues: Sequence[str]


class PatientConsumer(Consumer):
    """Celery's consumer, waiting for Redis for ever but in short steps; Celery's own grow to 30 s."""

    def ensure_connected(self, conn: Connection) -> Connection:
        """Return the connection once it is established; leaves in between when the worker is to stop."""

        def report(error: Exception, interval: float) -> None:
            _log.warning("Redis does not answer, trying again", error=first_line(error), next_try_in_s=interval)

        self.first_connection_attempt = False
        return conn.ensure_connection(
            report, interval_start=1, interval_step=1, interval_max=3, callback=state.maybe_shutdown
        )


def run_worker(
    app: TaskApp,
    queues: Sequence[str],
    *,
    concurrency: int,
    redis: Redis,
    health: HealthCheck,
    stop: Stop,
    prompt: Prompt | None = None,
    discover: Callable[[], Sequence[str]] | None = None,
    patience: timedelta = timedelta(seconds=15),
) -> int:
    """Take the tasks of these queues, in `concurrency` threads, until `stop`; returns the code to exit with.

    Running tasks are finished first. A worker that is deaf to waiting messages for longer than `patience` ends with a
    code that is not 0, so that its supervisor starts a new one. What `discover` finds later is listened to as well.
    """
    heard = list(queues)
    _prepare(app, heard)
    worker = _controller(app, heard, concurrency=concurrency)
    looking = partial(Watch, redis=redis, health=health, stop=stop, patience=patience)
    watch = looking(heard, concurrency)
    listen = partial(_listen_to_more, worker, heard, discover or list, stop=stop, every=patience)
    with (
        health,
        _recording_work(health),
        _running(watch.run, "worker-watch", stop),
        _running(listen, "worker-queues", stop),
        _taking(prompt, stop, looking),
    ):
        _log.info("worker started", queues=list(queues), concurrency=concurrency)
        worker.start()
        _log.info("worker stopped")
    return stop.exit_code or worker.exitcode or 0


def _listen_to_more(
    worker: WorkController, heard: list[str], discover: Callable[[], Sequence[str]], *, stop: Stop, every: timedelta
) -> None:
    """Look at intervals whether there are more queues, and have the consumer listen to them; none is left."""
    while not stop.wait(every):
        try:
            found = discover()
        except Exception as error:  # noqa: BLE001 - the next look finds them; the worker has others to listen to
            _log.warning("cannot look for more queues, trying again", error=first_line(error))
            continue
        for queue in (one for one in found if one not in heard):
            _prepare(worker.app, [queue])
            consumer: Consumer = worker.consumer  # type: ignore[attr-defined]  # the stub does not know it
            consumer.call_soon(consumer.add_task_queue, queue)
            heard.append(queue)
            _log.info("listening to one more queue", queue=queue)


def _controller(
    app: TaskApp, queues: Sequence[str], *, concurrency: int, use_eventloop: bool | None = None
) -> WorkController:
    return app.WorkController(
        hostname=f"{app.main}@{socket.gethostname()}",
        pool="threads",
        concurrency=concurrency,
        queues=list(queues),
        use_eventloop=use_eventloop,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )


@contextmanager
def _taking(prompt: Prompt | None, stop: Stop, looking: Callable[..., Watch]) -> Iterator[None]:
    """A second consumer in a thread; should it end by itself, the process does, to be started anew."""

    def take() -> None:
        try:
            aside.start()
        finally:
            stop.request(exit_code=START_ANEW)

    if prompt is None:
        yield
        return
    _prepare(prompt.app, prompt.queues)
    concurrency = len(prompt.queues) + 1
    watch = looking(prompt.queues, concurrency)
    # A process has one event loop only; without one a consumer listens on only while it holds less than it may.
    aside = _controller(prompt.app, prompt.queues, concurrency=concurrency, use_eventloop=False)
    with _running(watch.run, "aside-watch", stop), _running(take, "worker-aside", stop):
        yield


def _prepare(app: TaskApp, queues: Sequence[str]) -> None:
    if not queues:
        raise NoQueueError(str(app.main))
    for queue in queues:
        for task in app.tasks:
            if not task.startswith("celery."):
                require_same_family(task, queue)
        app.amqp.queues.add(declare_queue(queue))
    app.conf.worker_consumer = f"{__name__}:{PatientConsumer.__name__}"


@contextmanager
def _recording_work(health: HealthCheck) -> Iterator[None]:
    def record(**_: object) -> None:
        health.record_work()

    signals.task_postrun.connect(record, weak=False)
    try:
        yield
    finally:
        signals.task_postrun.disconnect(record)


@contextmanager
def _running(work: Callable[[], None], name: str, stop: Stop) -> Iterator[None]:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.request()
        thread.join()
