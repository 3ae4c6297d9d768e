"""`python -m bench.empty_worker`: Celery by itself with a task that does nothing, in four threads as ours has."""

import os

from celery import Celery

BROKER = "CCAT_BENCH_BROKER"
app = Celery("empty", broker=os.environ.get(BROKER), set_as_current=False)
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@app.task(name="empty")
def empty() -> None:
    """Do nothing."""


if __name__ == "__main__":
    quiet = ["--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    app.worker_main(["worker", "--pool=threads", "--concurrency=4", *quiet])
