import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from celery import signals
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu import Connection
from redis import Redis

from ccat_ops_db.errors import CcatError
from ccat_service.health import HealthCheck
from ccat_service.logging import StructuredLogger
from ccat_service.queues import require_same_family
from ccat_service.retries import first_line
from ccat_service.stop import Stop
from ccat_service.tasks import TaskApp, declare_queue
from ccat_service.watch import Watch

_log = StructuredLogger(__name__)


class NoQueueError(CcatError):
    """A worker was started for nothing."""

    code = "no_queue"

    def __init__(self, app: str) -> None:
        super().__init__(f"worker {app!r} has no queue to serve: does the database know its location and operations?")


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
    patience: timedelta = timedelta(seconds=15),
) -> int:
    """Take the tasks of these queues, in `concurrency` threads, until `stop`; returns the code to exit with.

    Running tasks are finished first. A worker that is deaf to waiting messages for longer than `patience` ends with a
    code that is not 0, so that its supervisor starts a new one.
    """
    _prepare(app, queues)
    worker = app.WorkController(
        hostname=f"{app.main}@{socket.gethostname()}",
        pool="threads",
        concurrency=concurrency,
        queues=list(queues),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    watch = Watch(queues, concurrency, redis=redis, health=health, stop=stop, patience=patience)
    with health, _recording_work(health), _running(watch, stop):
        _log.info("worker started", queues=list(queues), concurrency=concurrency)
        worker.start()
        _log.info("worker stopped")
    return stop.exit_code or worker.exitcode or 0


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
def _running(watch: Watch, stop: Stop) -> Iterator[None]:
    thread = threading.Thread(target=watch.run, name="worker-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.request()
        thread.join()
