import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from signal import SIGTERM, SIGUSR1
from time import monotonic
from typing import Any

import pytest
import redis.exceptions

from ccat_service.health import HealthCheck, read_heartbeats
from ccat_service.queues import RoutingError
from ccat_service.servers import RedisSettings
from ccat_service.stop import Stop
from ccat_service.tasks import CeleryTask, TaskApp, declare_queue, make_celery_app, make_celery_task
from ccat_service.watch import Glance, hears
from ccat_service.worker import NoQueueError, run_worker
from tests.service.support import (
    LOOPBACK,
    Certificates,
    Program,
    Proxy,
    RestartableRedis,
    eventually,
    make_certificates,
)

A_SHUTDOWN = timedelta(seconds=10)
PROMPT = "workflow.steady.observation"


@dataclass(frozen=True)
class Worker:
    """A worker process with a queue of its own, and what is needed to give it work and see what it did."""

    queue: str
    program: Program
    app: TaskApp
    redis: RestartableRedis
    more: Path
    """File with the queues that it finds later."""

    def send(self, task: str, *ids: Any) -> None:
        CeleryTask[Any](self.app, task).send(ids, queue=self.queue)

    def noted_after_sending(self, number: int) -> Sequence[object]:
        self.send("workflow.note", number)
        return self.list("noted")

    def waiting_after_sending(self, number: int) -> int:
        self.send("workflow.note", number)
        return self.redis.client.llen(self.queue)

    def list(self, name: str) -> Sequence[object]:
        return self.redis.client.lrange(f"{self.queue}:{name}", 0, -1)

    def is_ready(self) -> bool:
        """Whether it asks Redis for messages."""
        return any(client["cmd"] == "brpop" for client in self.redis.client.client_list())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(restartable_redis: RestartableRedis, certificates: Certificates) -> Iterator[RedisSettings]:
    """Redis behind TLS that asks its clients for a certificate, as in production."""
    proxy = Proxy((LOOPBACK, restartable_redis.settings.redis_port), tls=certificates.server)
    proxy.mend()
    yield RedisSettings(
        redis_host=LOOPBACK,
        redis_port=proxy.port,
        redis_tls=True,
        redis_ca_cert=certificates.authority,
        redis_client_cert=certificates.client_certificate,
        redis_client_key=certificates.client_key,
    )
    proxy.cut()


@pytest.fixture(scope="module")
def workers(
    restartable_redis: RestartableRedis, tls: RedisSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Worker]]:
    """All worker processes of this module, started together because each takes a second."""
    app = make_celery_app(tls, name="tests")
    workers = {}
    more = tmp_path_factory.mktemp("more")
    for name in ("steady", "stopped", "interrupted"):
        queue = f"workflow.{name}.staging"
        variables = {
            f"CCAT_WORKFLOW_MANAGER_{field.upper()}": str(value)
            for field, value in tls.model_dump(exclude_none=True).items()
        }
        program = Program(
            "worker",
            tmp_path_factory.mktemp(name),
            variables
            | {"QUEUE": queue, "CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID": "1"}
            | ({"PROMPT": PROMPT} if name == "steady" else {})
            | {"MORE": str(more / name)},
        )
        workers[name] = Worker(queue, program, app, restartable_redis, more / name)
    yield workers
    for worker in workers.values():
        worker.program.close()


def noted(worker: Worker, *ids: int) -> bool:
    return sorted(worker.list("noted"), key=str) == [b"%d" % number for number in ids]


def test_a_worker_takes_its_tasks_over_tls_with_a_client_certificate(workers: dict[str, Worker]) -> None:
    worker = workers["steady"]
    worker.send("workflow.note", 1, 2)
    eventually(lambda: noted(worker, 1, 2), within=60)
    heartbeats = {heartbeat.instance: heartbeat for heartbeat in read_heartbeats(worker.redis.client)}
    assert heartbeats[worker.queue].service_name == "worker"


def test_a_question_is_answered_while_every_thread_is_at_long_work(workers: dict[str, Worker]) -> None:
    worker, long = workers["steady"], 3
    eventually(worker.is_ready, within=60)
    for _ in range(5):
        worker.send("workflow.sleep", long)
    eventually(lambda: len(worker.list("began")) == 2)
    CeleryTask[int](worker.app, "workflow.note").send([17], queue=PROMPT)
    eventually(lambda: b"17" in worker.list("noted"), within=long / 2)
    assert worker.list("ended") == []
    eventually(lambda: len(worker.list("ended")) == 5, within=60)
    assert not worker.program.events("worker takes no tasks although some wait")  # as both threads were at work
    worker.redis.client.delete(f"{worker.queue}:noted")


def test_a_queue_that_is_found_later_is_listened_to_without_a_restart(workers: dict[str, Worker]) -> None:
    worker = workers["steady"]
    worker.more.write_text(f"{worker.queue} workflow.new.staging")
    CeleryTask[int](worker.app, "workflow.note").send([77], queue="workflow.new.staging")
    assert eventually(lambda: b"77" in worker.list("noted"), within=20)
    worker.send("workflow.note", 78)
    assert eventually(lambda: b"78" in worker.list("noted"))


def test_a_client_without_a_certificate_is_refused(tls: RedisSettings, capsys: pytest.CaptureFixture[str]) -> None:
    stranger = tls.model_copy(update={"redis_client_cert": None, "redis_client_key": None})
    with stranger.client("stranger") as client, pytest.raises(redis.exceptions.ConnectionError):
        client.ping()
    CeleryTask[int](make_celery_app(stranger, name="stranger"), "workflow.note").send([1], queue="workflow.x.y")
    assert "messages are lost, Redis does not take them" in capsys.readouterr().out


def test_a_server_of_another_authority_is_not_trusted(tls: RedisSettings, tmp_path: Path) -> None:
    other = tls.model_copy(update={"redis_ca_cert": make_certificates(tmp_path).authority})
    with other.client("victim") as client, pytest.raises(redis.exceptions.ConnectionError, match="CERTIFICATE_VERIFY"):
        client.ping()


def test_a_transient_error_is_tried_again_and_a_permanent_one_is_not(workers: dict[str, Worker]) -> None:
    worker = workers["steady"]
    worker.send("workflow.fail_twice", "a")
    worker.send("workflow.fail_for_good", 7)
    eventually(lambda: len(worker.list("a")) == 3, within=60)
    (failure,) = eventually(lambda: worker.program.events("task failed") and permanent_failures(worker))
    assert (failure["code"], failure["error"], failure["ids"]) == ("disk_full", "the disk is full", [7])
    assert failure["task"] == "workflow.fail_for_good"
    assert worker.list("tried") == [b"7"]


def permanent_failures(worker: Worker) -> list[dict[str, Any]]:
    return [event for event in worker.program.events("task failed") if event["level"] == "error"]


def test_a_task_of_the_other_family_is_not_done_even_if_it_lies_in_the_queue(workers: dict[str, Worker]) -> None:
    worker = workers["steady"]
    with worker.app.producer_or_acquire() as producer:
        message = worker.app.amqp.create_task_message("1", "transfer.note", args=[[666]])
        worker.app.amqp.send_task_message(producer, "transfer.note", message, queue=declare_queue(worker.queue))
    eventually(lambda: worker.program.events("Received unregistered task of type 'transfer.note'"), within=60)
    assert b"666" not in worker.list("noted")


def test_a_worker_serves_one_family_and_at_least_one_queue(restartable_redis: RestartableRedis) -> None:
    app = make_celery_app(restartable_redis.settings, name="tests")
    make_celery_task(app, "workflow.note")(print)
    health = HealthCheck("tests", "worker", redis=restartable_redis.client)
    stop = Stop()
    for queues, error in [(["workflow.a.b", "transfer.c_d_e"], RoutingError), ([], NoQueueError)]:
        with pytest.raises(error):
            run_worker(app, queues, concurrency=1, redis=restartable_redis.client, health=health, stop=stop)
    stop.close()


def test_sigterm_lets_running_tasks_end_and_leaves_the_waiting_to_others(workers: dict[str, Worker]) -> None:
    worker = workers["stopped"]
    worker.send("workflow.fail_late", 5)
    eventually(lambda: worker.program.events("task failed, trying again later"), within=60)
    worker.send("workflow.sleep", 1)
    eventually(lambda: worker.list("began"), within=60)
    worker.program.signal(SIGTERM)
    assert worker.program.exit_code(within=A_SHUTDOWN) == 0
    assert worker.list("ended") == [b"1"]
    (left,) = worker.redis.client.lrange(worker.queue, 0, -1)
    assert json.loads(left)["headers"]["task"] == "workflow.fail_late"
    assert not [beat for beat in read_heartbeats(worker.redis.client) if beat.instance == worker.queue]


def test_sigterm_does_not_wait_for_a_task_that_takes_too_long(workers: dict[str, Worker]) -> None:
    worker = workers["interrupted"]
    worker.send("workflow.sleep", 60)
    eventually(lambda: worker.list("began"), within=60)
    worker.program.signal(SIGTERM)
    assert worker.program.exit_code(within=A_SHUTDOWN) == 0
    assert worker.program.events("not finished in time")


def test_after_redis_came_back_empty_the_worker_takes_tasks_again_within_seconds(workers: dict[str, Worker]) -> None:
    worker = workers["steady"]
    worker.redis.stop()
    eventually(lambda: worker.program.events("Redis does not answer, trying again"))
    worker.redis.start()
    began = monotonic()
    eventually(lambda: worker.noted_after_sending(3), within=30)
    assert monotonic() - began < 8
    assert worker.program.is_running()


def test_a_worker_whose_threads_were_all_at_work_while_redis_died_takes_tasks_again(workers: dict[str, Worker]) -> None:
    worker = workers["steady"]
    for _ in range(2):
        worker.send("workflow.sleep", 1)
    eventually(lambda: len(worker.list("began")) == 2)
    worker.redis.stop()
    eventually(lambda: len(worker.program.events("Couldn't ack")) == 2)
    worker.redis.start()
    eventually(lambda: worker.noted_after_sending(5), within=30)
    assert worker.program.is_running()


def test_a_worker_that_turned_deaf_ends_though_it_answers_questions_so_that_it_is_started_anew(
    workers: dict[str, Worker],
) -> None:
    worker = workers["steady"]
    eventually(worker.is_ready)
    worker.program.signal(SIGUSR1)
    eventually(lambda: worker.waiting_after_sending(4))

    def has_ended() -> bool:
        CeleryTask[int](worker.app, "workflow.note").send([4], queue=PROMPT)
        return not worker.program.is_running()

    eventually(has_ended, within=A_SHUTDOWN.total_seconds())
    assert worker.program.exit_code(within=A_SHUTDOWN) == 1
    assert worker.program.events("worker takes no tasks although some wait")


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ((5, 0, 7), (0, 0, 7), True),  # nothing waits
        ((5, 2, 7), (5, 2, 7), True),  # both threads are busy
        ((5, 1, 7), (5, 1, 8), True),  # slow, but it took one
        ((5, 1, 7), (5, 1, 7), False),
        ((0, 0, 0), (1, 0, 0), False),
    ],
)
def test_a_worker_is_deaf_only_if_messages_wait_while_a_thread_is_free(
    before: tuple[int, int, int], now: tuple[int, int, int], *, expected: bool
) -> None:
    looks = [Glance(waiting=waiting, running=running, taken=taken) for waiting, running, taken in (before, now)]
    assert hears(looks[0], looks[1], concurrency=2) is expected
