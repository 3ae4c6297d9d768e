"""Limits by the kernel, with a directory in the place of its control groups where none is delegated to us."""

import json
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from typer.testing import CliRunner

from ccat import processes
from ccat.cli import app
from ccat.stack.redis import RedisAddress
from ccat.wiring import served_locations
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.initialization import initialize, reference_data
from ccat_service.database import DatabaseConnection
from ccat_workflow_manager.hpc.base import JobState
from ccat_workflow_manager.hpc.local.killing import kill_jobs
from ccat_workflow_manager.settings import WorkflowManagerSettings
from tests.workflow.hpc.bench import Bench, until
from tests.workflow.hpc.conftest import LocalBackends


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    directory = tmp_path / "cgroup"
    directory.mkdir()
    (directory / "cgroup.subtree_control").write_text("cpu memory pids\n")
    return directory


def count(group: Path, *, peak: int, kills: int) -> None:
    """What the kernel writes."""
    until(group.exists)
    (group / "memory.peak").write_text(f"{peak}\n")
    (group / "memory.events").write_text(f"low 0\nhigh 0\nmax 7\noom 1\noom_kill {kills}\n")


def test_a_job_runs_in_a_group_with_its_memory_and_the_kernel_counts(
    local_backend: LocalBackends, tmp_path: Path, groups: Path
) -> None:
    bench = Bench(local_backend(1, cgroup=groups), tmp_path)
    job = bench.spec('until [ -e "$1" ]; do sleep 0.01; done', str(tmp_path / "go"), memory_gb=0.5)
    bench.backend.submit(job)
    group = groups / job.name
    count(group, peak=123_000_000_000, kills=0)
    until((group / "cgroup.procs").exists)
    assert [(group / f"memory.{name}").read_text() for name in ("max", "oom.group", "swap.max")] == [
        "500000000",
        "1",
        "0",
    ]
    assert (group / "cgroup.procs").read_text() == "0\n"
    (tmp_path / "go").touch()
    seen = bench.outcome(job.name)
    assert (seen.exit_code, seen.out_of_memory, seen.peak_memory_bytes) == (0, False, 123_000_000_000)


def test_a_job_that_the_kernel_killed_for_its_memory_ran_out_of_memory(
    local_backend: LocalBackends, tmp_path: Path, groups: Path
) -> None:
    bench = Bench(local_backend(1, cgroup=groups), tmp_path)
    job = bench.spec('until [ -e "$1" ]; do sleep 0.01; done; kill -9 $$', str(tmp_path / "go"))
    bench.backend.submit(job)
    count(groups / job.name, peak=10**9, kills=2)
    (tmp_path / "go").touch()
    seen = bench.outcome(job.name)
    assert (seen.state, seen.exit_code, seen.out_of_memory) == (JobState.FINISHED, 137, True)


def test_a_job_in_a_group_may_end_as_it_likes_when_it_is_cancelled(
    local_backend: LocalBackends, tmp_path: Path, groups: Path
) -> None:
    bench = Bench(local_backend(1, cgroup=groups), tmp_path)
    job = bench.spec("trap 'sleep 0.05; exit 3' TERM; echo here; while :; do sleep 0.01; done")
    bench.backend.submit(job)
    bench.until_it_says(job, "here")
    count(groups / job.name, peak=10**6, kills=0)
    bench.backend.cancel([job.name])
    seen = bench.outcome(job.name)
    assert (seen.exit_code, seen.cancelled) == (3, True)


@pytest.mark.parametrize("missing", ["no-such-directory", "."])
def test_where_no_groups_are_delegated_memory_is_sampled(
    local_backend: LocalBackends, tmp_path: Path, missing: str
) -> None:
    bench = Bench(local_backend(1, cgroup=tmp_path / missing), tmp_path)
    hold = 'x = b"x" * 200_000_000; import time; time.sleep(100)'
    job = bench.spec("", command=("python3", "-c", hold), memory_gb=0.1)
    assert bench.outcome(bench.backend.submit(job)).out_of_memory


@pytest.mark.usefixtures("redis")
def test_the_groups_of_jobs_are_where_their_location_is_told_to_have_them(
    engine: sa.Engine, redis_address: RedisAddress, tmp_path: Path, groups: Path
) -> None:
    with transaction(engine) as session:
        initialize(session, reference_data(), storage_root=tmp_path / "storage")
    url = engine.url.render_as_string(hide_password=False)
    words = ["location", "set", "cologne/ramses", "--set", f"cgroup={groups}", "--json"]
    told = CliRunner().invoke(app, words, env={"CCAT_OPS_DB_URL": url})
    assert told.exit_code == 0, told.stderr
    settings = WorkflowManagerSettings(
        processing_location_id=(json.loads(told.stdout)["id"],),
        redis_host=redis_address.host,
        redis_port=redis_address.port,
        redis_password=SecretStr(redis_address.password),
    )
    with closing(DatabaseConnection(url, "tests")) as database:
        [location] = served_locations(database, settings)
    bench = Bench(processes.backend_of(location, settings), location.base)
    job = bench.spec('until [ -e "$1" ]; do sleep 0.01; done', str(tmp_path / "go"))
    try:
        bench.backend.submit(job)
        count(groups / job.name, peak=234_000_000_000, kills=0)
        until((groups / job.name / "cgroup.procs").exists)
        (tmp_path / "go").touch()
        assert bench.outcome(job.name).peak_memory_bytes == 234_000_000_000
    finally:
        kill_jobs(location.base)
