import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from celery.exceptions import QueueNotFound
from redis import Redis
from sqlalchemy.orm import Session

from ccat_ops_db.session import transaction
from ccat_service import tasks
from ccat_service.queues import RoutingError
from ccat_service.servers import RedisSettings
from ccat_service.tasks import CeleryTask, NotIdsError, TaskApp, make_celery_app, make_celery_task
from tests.service.support import LOOPBACK, free_port

STAGING = "workflow.ramses.staging"
RESULTS = "workflow.ramses.results"
AN_ID = UUID("6f1a4a3e-0000-4000-8000-000000000001")


@pytest.fixture
def app(redis_settings: RedisSettings) -> TaskApp:
    return make_celery_app(redis_settings, name="tests")


@pytest.fixture
def stage(app: TaskApp) -> CeleryTask[Any]:
    return CeleryTask(app, "workflow.stage")


@pytest.fixture
def redis(redis_settings: RedisSettings) -> Iterator[Redis]:
    with redis_settings.client("tests") as client:
        yield client


def sent(redis: Redis, queue: str = STAGING) -> list[Any]:
    """The ids of each message in the queue, the oldest first."""
    messages = [json.loads(text) for text in redis.lrange(queue, 0, -1)]
    return [json.loads(base64.b64decode(message["body"]))[0][0] for message in reversed(messages)]


def test_ids_leave_when_the_transaction_is_committed_and_not_before(
    stage: CeleryTask[int], redis: Redis, engine: sa.Engine
) -> None:
    with transaction(engine) as session:
        stage.send_after_commit(session, [1, 2], queue=STAGING)
        assert sent(redis) == []
    assert sent(redis) == [[1, 2]]


def test_nothing_leaves_from_a_transaction_that_is_rolled_back(
    stage: CeleryTask[int], redis: Redis, engine: sa.Engine
) -> None:
    with suppress(ZeroDivisionError), transaction(engine) as session:
        stage.send_after_commit(session, [1], queue=STAGING)
        raise ZeroDivisionError
    assert sent(redis) == []


def test_a_savepoint_takes_back_only_what_was_sent_in_it(
    stage: CeleryTask[int], redis: Redis, engine: sa.Engine
) -> None:
    with transaction(engine) as session:
        stage.send_after_commit(session, [1], queue=STAGING)
        with session.begin_nested():
            stage.send_after_commit(session, [2], queue=STAGING)
            with session.begin_nested() as inner:
                stage.send_after_commit(session, [3], queue=STAGING)
                inner.rollback()
        assert sent(redis) == []
        with suppress(ZeroDivisionError), session.begin_nested():
            stage.send_after_commit(session, [4], queue=STAGING)
            raise ZeroDivisionError
        stage.send_after_commit(session, [5], queue=STAGING)
    assert sent(redis) == [[1, 2, 5]]


def test_what_one_transaction_sends_to_one_queue_leaves_as_one_message(
    app: TaskApp, stage: CeleryTask[int], redis: Redis, engine: sa.Engine
) -> None:
    with transaction(engine) as session:
        stage.send_after_commit(session, [1, 2], queue=STAGING)
        stage.send_after_commit(session, [3], queue=RESULTS)
        CeleryTask[int](app, "workflow.stage").send_after_commit(session, [2, 4], queue=STAGING)
    assert sent(redis) == [[1, 2, 4]]
    assert sent(redis, RESULTS) == [[3]]


def test_many_ids_leave_in_batches_of_the_size_that_suits_the_task(app: TaskApp, redis: Redis) -> None:
    CeleryTask[int](app, "workflow.submit").send(range(250), queue=STAGING)
    CeleryTask[int](app, "workflow.stage", batch=1).send(range(3), queue=RESULTS)
    assert [len(ids) for ids in sent(redis)] == [100, 100, 50]
    assert sent(redis, RESULTS) == [[0], [1], [2]]


def test_no_more_is_sent_where_nobody_takes_what_is_there(
    stage: CeleryTask[int], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_LONGEST_QUEUE", 2)
    for number in range(5):
        stage.send([number], queue=STAGING)
    assert sent(redis) == [[0], [1]]
    redis.rpop(STAGING)
    stage.send([5], queue=STAGING)
    assert sent(redis) == [[1], [5]]


def test_a_session_serves_one_transaction_after_another(
    stage: CeleryTask[int], redis: Redis, engine: sa.Engine
) -> None:
    with Session(engine) as session:
        stage.send_after_commit(session, [1], queue=STAGING)
        session.commit()
        stage.send_after_commit(session, [2], queue=STAGING)
        session.rollback()
        stage.send_after_commit(session, [3], queue=STAGING)
        session.commit()
    assert sent(redis) == [[1], [3]]


def test_a_uuid_is_sent_as_text_and_no_ids_are_no_message(stage: CeleryTask[str], redis: Redis) -> None:
    stage.send([AN_ID], queue=STAGING)
    stage.send([], queue=STAGING)
    assert sent(redis) == [[str(AN_ID)]]


@pytest.mark.parametrize(
    "given", [7, "7", b"7", [True], [1, "2"], [{"id": 1}], [None], [1.0], [[1]], {"id": object()}.values()]
)
def test_anything_but_ids_is_refused_before_it_is_sent(stage: CeleryTask[Any], engine: sa.Engine, given: Any) -> None:
    with pytest.raises(NotIdsError, match=r"^task 'workflow.stage' takes a list of ids"):
        stage.send(given, queue=STAGING)
    with pytest.raises(NotIdsError), transaction(engine) as session:
        stage.send_after_commit(session, given, queue=STAGING)


def test_a_task_is_never_sent_to_the_other_family(stage: CeleryTask[int], app: TaskApp, engine: sa.Engine) -> None:
    with pytest.raises(RoutingError):
        stage.send([1], queue="transfer.ccat_buffer_deletion")
    with pytest.raises(RoutingError), transaction(engine) as session:
        stage.send_after_commit(session, [1], queue="transfer.ccat_buffer_deletion")
    with pytest.raises(RoutingError):
        CeleryTask[int](app, "stage")
    with pytest.raises(RoutingError):
        make_celery_task(app, "stage")(print)


def test_neither_does_celery_itself_find_a_way_around(app: TaskApp) -> None:
    with pytest.raises(RoutingError):
        app.send_task("workflow.stage", args=[[1]])
    with pytest.raises(QueueNotFound):
        app.send_task("workflow.stage", args=[[1]], queue="transfer.ccat_buffer_deletion")


def test_only_the_queue_itself_is_kept_in_redis(stage: CeleryTask[int], redis: Redis) -> None:
    stage.send([1], queue=STAGING)
    assert redis.keys("*") == [STAGING.encode()]


def test_redis_being_away_neither_fails_the_transaction_nor_holds_it_up(
    engine: sa.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_celery_app(RedisSettings(redis_host=LOOPBACK, redis_port=free_port()), name="tests")
    began = monotonic()
    for number in range(100):
        with transaction(engine) as session:
            CeleryTask[int](app, "workflow.stage").send_after_commit(session, [number], queue=STAGING)
            session.execute(sa.text("SELECT 1"))
    assert monotonic() - began < 3
    assert capsys.readouterr().out.count("messages are lost, Redis does not take them") == 1
