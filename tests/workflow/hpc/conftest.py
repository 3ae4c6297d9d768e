from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from ccat.stack.redis import RedisAddress
from ccat_workflow_manager.hpc.local.backend import LocalBackend
from ccat_workflow_manager.hpc.local.killing import kill_jobs
from ccat_workflow_manager.hpc.local.processes import processes_by_job
from tests.workflow.hpc.bench import Bench

LocalBackends = Callable[[int], LocalBackend]


@pytest.fixture
def redis(redis_address: RedisAddress) -> Iterator[Redis]:
    """A client of an empty Redis."""
    with Redis.from_url(redis_address.url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def local_backend(redis: Redis, tmp_path: Path) -> Iterator[LocalBackends]:
    """Makes local backends with so many CPUs, as if each were in a worker of its own; what they started ends here."""
    yield lambda cpus: LocalBackend(
        redis,
        base=tmp_path,
        cpus=cpus,
        grace=timedelta(seconds=0.2),
        restart_after=timedelta(seconds=0.5),
    )
    kill_jobs(tmp_path)
    assert [directory for directory in processes_by_job() if directory.is_relative_to(tmp_path)] == []


@pytest.fixture(params=["local"])
def bench(local_backend: LocalBackends, tmp_path: Path) -> Bench:
    """Every backend in turn, with room for two jobs."""
    return Bench(local_backend(2), tmp_path)
