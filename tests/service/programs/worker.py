"""A Celery worker as the composition root makes one; SIGUSR1 makes it deaf. Its tasks note in Redis what they did."""

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any

from celery import signals

from ccat_ops_db.errors import CcatError
from ccat_service.health import HealthCheck
from ccat_service.logging import configure_logging
from ccat_service.retries import Backoff
from ccat_service.stop import stop_on_signals
from ccat_service.tasks import TaskApp, make_celery_app, make_celery_task
from ccat_service.worker import Prompt, run_worker
from ccat_workflow_manager.settings import WorkflowManagerSettings

AT_ONCE = Backoff(first=timedelta(milliseconds=50), ceiling=timedelta(milliseconds=100))


class DiskFull(CcatError):
    code = "disk_full"

    def __init__(self) -> None:
        super().__init__("the disk is full")


class NodeLost(CcatError):
    code = "node_lost"
    transient = True

    def __init__(self) -> None:
        super().__init__("the node is lost")


def deafen_on_signal(app: TaskApp) -> None:
    @signals.worker_init.connect(weak=False)
    def wait_for_signal(sender: Any, **_: object) -> None:
        if sender.app is app:
            signal.signal(signal.SIGUSR1, lambda *_: sender.consumer.task_consumer.cancel())


def main() -> int:
    configure_logging()
    settings = WorkflowManagerSettings.load()
    redis = settings.client("test worker")
    app, questions = (make_celery_app(settings, name="test-worker") for _ in range(2))
    queue = os.environ["QUEUE"]

    @make_celery_task(app, "workflow.note")
    def note(ids: list[int]) -> None:
        redis.rpush(f"{queue}:noted", *ids)

    @make_celery_task(app, "workflow.sleep")
    def sleep_for_id_seconds(ids: list[int]) -> None:
        redis.rpush(f"{queue}:began", *ids)
        sleep(ids[0])
        redis.rpush(f"{queue}:ended", *ids)

    @make_celery_task(app, "workflow.fail_for_good")
    def fail_for_good(ids: list[int]) -> None:
        redis.rpush(f"{queue}:tried", *ids)
        raise DiskFull

    @make_celery_task(app, "workflow.fail_twice", backoff=AT_ONCE)
    def fail_twice(ids: list[str]) -> None:
        if int(redis.rpush(f"{queue}:{ids[0]}", "tried")) <= 2:
            raise NodeLost

    @make_celery_task(app, "workflow.fail_late", backoff=Backoff(first=timedelta(hours=1), ceiling=timedelta(hours=1)))
    def fail_late(_ids: list[int]) -> None:
        raise NodeLost

    deafen_on_signal(app)
    health = HealthCheck("tests", "worker", redis=redis, instance=queue)
    with stop_on_signals(grace=timedelta(seconds=2)) as stop:
        patience = timedelta(seconds=3)
        prompt = Prompt(questions, [os.environ["PROMPT"]]) if "PROMPT" in os.environ else None
        return run_worker(
            app,
            [queue],
            prompt=prompt,
            discover=lambda: Path(os.environ["MORE"]).read_text().split(),
            concurrency=2,
            redis=redis,
            health=health,
            stop=stop,
            patience=patience,
        )


if __name__ == "__main__":
    sys.exit(main())
