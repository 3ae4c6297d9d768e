from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from redis import Redis

from ccat.stack.redis import RedisAddress
from ccat_workflow_manager.hpc.base import Backend
from ccat_workflow_manager.hpc.fake.backend import FakeBackend
from ccat_workflow_manager.hpc.fake.software import run_command
from ccat_workflow_manager.hpc.local.backend import LocalBackend
from ccat_workflow_manager.hpc.local.killing import kill_jobs
from tests.kubernetes_api.backend import kubernetes_backend
from tests.kubernetes_api.cluster import kubernetes_cluster
from tests.workflow.hpc.bench import Bench, processes_below

LocalBackends = Callable[..., LocalBackend]
Afresh = Callable[[], Bench]

GRACE = timedelta(seconds=0.2)


@pytest.fixture
def redis(redis_address: RedisAddress) -> Iterator[Redis]:
    """A client of an empty Redis."""
    with Redis.from_url(redis_address.url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def local_backend(redis: Redis, tmp_path: Path) -> Iterator[LocalBackends]:
    """Makes local backends with so many CPUs, as if each were in a worker of its own; what they started ends here."""
    restart_after = timedelta(seconds=0.5)
    backend = partial(LocalBackend, redis, base=tmp_path, memory_gb=16, grace=GRACE, restart_after=restart_after)
    yield lambda cpus, **settings: backend(cpus=cpus, **settings)
    kill_jobs(tmp_path)
    assert processes_below(tmp_path) == {}


@pytest.fixture
def afresh(local_backend: LocalBackends, tmp_path: Path) -> Afresh:
    """A local backend with one CPU, as a worker that was just started has it."""
    return lambda: Bench(local_backend(1), tmp_path)


@contextmanager
def _local(request: pytest.FixtureRequest) -> Iterator[Backend]:
    yield request.getfixturevalue("local_backend")(2)


@contextmanager
def _fake(request: pytest.FixtureRequest) -> Iterator[Backend]:
    base = request.getfixturevalue("tmp_path")
    backend = FakeBackend(run_command, cpus=2, memory_gb=16, grace=GRACE)
    yield backend
    backend.close()
    assert processes_below(base) == {}


@contextmanager
def _kubernetes(request: pytest.FixtureRequest) -> Iterator[Backend]:
    base = request.getfixturevalue("tmp_path")
    with kubernetes_cluster(base / "kubernetes") as cluster:
        yield kubernetes_backend(cluster, base, grace=GRACE)
    assert processes_below(base) == {}


BACKENDS: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Backend]]] = {
    "local": _local,
    "fake": _fake,
    "kubernetes": _kubernetes,
}
"""A new backend joins the contract here: something with room for 2 CPUs and 16 GB that ends what it started."""


@pytest.fixture(params=BACKENDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Every backend in turn, with room for two jobs."""
    with BACKENDS[request.param](request) as backend:
        yield Bench(backend, tmp_path)
