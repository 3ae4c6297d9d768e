import time
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from redis import Redis

from bench.chains import STEPS, define
from bench.empty_worker import BROKER, app, empty
from bench.figures import Figure
from bench.system import MANAGERS, WORKER, System, cpu_s, system

_MOST_TASKS: Final = 5_000
_QUEUE: Final = "celery"
"""Celery's own default."""


def measure(
    *,
    size: Annotated[int, typer.Option(min=10, help="So many sub-groups of each step with the null backend.")] = 10_000,
    local: Annotated[int, typer.Option(min=10, help="So many sub-groups of each step with the local backend.")] = 1_000,
) -> Iterator[Figure]:
    """How many runs a second go through all their statuses, with one process of each kind and durable servers.

    The jobs of the null backend are over as soon as they begin; those of the local backend are a line of shell each,
    in four slots. CPU time is that of all processes together, servers and jobs included.
    """
    with system(size) as null, system(local) as real:  # both are removed at the end: a disk is slow for minutes after
        define(null)
        runs, cpu_ms = _rate(null, size, program="bench.null_worker")
        yield Figure("runs_per_s", runs, at_least=300)
        yield Figure("null_cpu_ms_per_run", cpu_ms)
        yield Figure("celery_ratio", runs / _empty_tasks_per_s(null, min(_MOST_TASKS, size * len(STEPS))), at_least=0.2)
        define(real)
        steps, cpu_ms = _rate(real, local)
        yield Figure("local_steps_per_s", steps, at_least=100)
        yield Figure("cpu_ms_per_step", cpu_ms, at_most=12)


def _rate(one: System, size: int, *, program: str = "ccat") -> tuple[float, float]:
    """Runs a second, and CPU time of each in ms."""
    runs = size * len(STEPS)
    with one.running(*MANAGERS), one.running(WORKER, program=program):
        start, cpu = one.until_begun(), cpu_s()
        took = one.until_completed(runs)
        done, used = runs - start, cpu_s() - cpu
    return done / took, used / done * 1000


def _empty_tasks_per_s(one: System, number: int) -> float:
    """How many tasks that do nothing Celery does a second, on the same Redis: measured by so many."""
    app.conf.update(broker_url=one.redis.url)
    for _ in range(number):
        empty.delay()
    with (
        Redis.from_url(one.redis.url) as redis,
        one.running("", program="bench.empty_worker", **{BROKER: one.redis.url}),
    ):
        begun = _until_fewer(redis, number)
        return number / (_until_fewer(redis, 1) - begun)


def _until_fewer(redis: Redis, messages: int) -> float:
    """When fewer messages than these are left."""
    while int(redis.llen(_QUEUE)) >= messages:
        time.sleep(0.005)
    return time.perf_counter()
