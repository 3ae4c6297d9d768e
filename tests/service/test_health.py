import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from ccat_service.health import HealthCheck, read_heartbeats
from ccat_service.servers import RedisSettings
from tests.service.support import LOOPBACK, Proxy, RestartableRedis, eventually

OFTEN = timedelta(milliseconds=20)


@pytest.fixture
def redis(redis_settings: RedisSettings) -> Iterator[Redis]:
    with redis_settings.client("tests") as client:
        yield client


def test_a_heartbeat_is_a_record_that_outlives_its_process_by_90_seconds(redis: Redis) -> None:
    with HealthCheck("workflow_manager", "trigger-manager", redis=redis, instance="a") as health:
        health.record_work()
        eventually(lambda: redis.exists("health:workflow_manager:trigger-manager:a"))
        assert 80 < redis.ttl("health:workflow_manager:trigger-manager:a") <= 90
        (heartbeat,) = read_heartbeats(redis)
    assert (heartbeat.host, heartbeat.pid) == (socket.gethostname(), os.getpid())
    assert heartbeat.version
    assert heartbeat.started <= heartbeat.beat <= datetime.now(UTC)


def test_a_process_that_ends_on_purpose_takes_its_heartbeat_away(redis: Redis) -> None:
    with HealthCheck("tests", "worker", redis=redis):
        eventually(lambda: read_heartbeats(redis))
    assert read_heartbeats(redis) == []


def test_work_shows_in_the_next_heartbeat(redis: Redis) -> None:
    with HealthCheck("tests", "worker", redis=redis, interval=OFTEN) as health:
        eventually(lambda: read_heartbeats(redis))
        assert read_heartbeats(redis)[0].last_work is None
        health.record_work()
        eventually(lambda: read_heartbeats(redis)[0].last_work)


def test_replicas_do_not_hide_each_other(redis: Redis) -> None:
    with HealthCheck("tests", "worker", redis=redis, instance="a"), HealthCheck("tests", "worker", redis=redis):
        eventually(lambda: len(read_heartbeats(redis)) == 2)
        instances = [heartbeat.instance for heartbeat in read_heartbeats(redis)]
    assert instances == ["a", f"{socket.gethostname()}-{os.getpid()}"]


def test_the_record_is_json_that_other_programs_can_read(redis: Redis) -> None:
    with HealthCheck("tests", "worker", redis=redis, instance="a"):
        text = eventually(lambda: redis.get("health:tests:worker:a")) or ""
    assert set(json.loads(text)) >= {"host", "pid", "version", "last_work"}


def test_redis_being_away_is_told_once_and_disturbs_nobody(
    restartable_redis: RestartableRedis, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = Proxy((LOOPBACK, restartable_redis.settings.redis_port))
    client = RedisSettings(redis_host=LOOPBACK, redis_port=proxy.port).client("tests")
    printed = ""

    def told(sentence: str) -> int:
        nonlocal printed
        printed += capsys.readouterr().out
        return printed.count(sentence)

    with client, HealthCheck("tests", "worker", redis=client, interval=OFTEN):
        eventually(lambda: told("cannot show a sign of life"))
        proxy.mend()
        eventually(lambda: told("signs of life reach Redis again"))
        assert read_heartbeats(restartable_redis.client)
        proxy.cut()
        eventually(lambda: told("cannot show a sign of life") == 2)
    proxy.cut()
    assert told("cannot show a sign of life") == 2
