"""Backends that share out the CPUs and the memory of a host: here 2 CPUs and 16 GB."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ccat_workflow_manager.hpc.base import Capacity, JobRefused, JobState
from tests.workflow.hpc.bench import Bench
from tests.workflow.hpc.conftest import BACKENDS


@pytest.fixture(params=["local", "fake"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with BACKENDS[request.param](request) as backend:
        yield Bench(backend, tmp_path)


OPEN = 'until [ -e "$1" ]; do sleep 0.01; done'
"""A job that ends when a file is there."""


def test_the_highest_priority_starts_first_and_then_the_oldest(bench: Bench) -> None:
    go, order = bench.base / "go", bench.base / "order"
    blocker = bench.submit(OPEN, str(go), cpu=2)
    jobs = [bench.submit('echo "$1" >>"$2"', str(p), str(order), priority=p, cpu=2) for p in (0, 5, 0, -3)]
    assert {bench.look(job).state for job in jobs} == {JobState.PENDING}
    go.touch()
    for job in [blocker, *jobs]:
        bench.outcome(job)
    assert order.read_text().split() == ["5", "0", "0", "-3"]


@pytest.mark.parametrize("large", [{"cpu": 2}, {"memory_gb": 12}])
def test_a_job_waits_until_all_it_needs_is_free_and_nothing_overtakes_it(bench: Bench, large: dict[str, int]) -> None:
    go = bench.base / "go"
    blocker = bench.submit(OPEN, str(go), memory_gb=8)
    jobs = [bench.submit("true", **large), bench.submit("true")]
    assert [bench.look(job).state for job in jobs] == [JobState.PENDING] * 2
    assert all(bench.look(job).queue_reason for job in jobs)
    go.touch()
    assert [bench.outcome(job).exit_code for job in (blocker, *jobs)] == [0] * 3


@pytest.mark.parametrize(
    ("large", "problem"),
    [
        ({"cpu": 3}, r"asks for 3 CPUs and this host gives 2; lower the step's cpu, or"),
        ({"memory_gb": 16.5}, r"asks for 16.5 GB of memory and this host gives 16 GB; lower the step's memory_gb, or"),
    ],
)
def test_a_job_larger_than_the_host_is_refused_with_both_numbers(
    bench: Bench, large: dict[str, float], problem: str
) -> None:
    with pytest.raises(JobRefused, match=problem):
        bench.submit("true", **large)


def test_what_is_free_is_what_no_job_holds(bench: Bench) -> None:
    go = bench.base / "go"
    assert bench.backend.capacity() == Capacity(cpus=2, memory_gb=16, free_cpus=2, free_memory_gb=16)
    job = bench.submit(OPEN, str(go), memory_gb=2.5)
    assert bench.backend.capacity() == Capacity(cpus=2, memory_gb=16, free_cpus=1, free_memory_gb=13.5)
    go.touch()
    bench.outcome(job)
    assert bench.backend.capacity() == Capacity(cpus=2, memory_gb=16, free_cpus=2, free_memory_gb=16)


def test_the_slots_of_a_job_that_has_ended_go_to_the_next_one_even_if_nobody_looks(bench: Bench) -> None:
    jobs = [bench.spec("echo here", cpu=2) for _ in range(5)]
    for job in jobs:
        bench.backend.submit(job)
    bench.until_it_says(jobs[-1], "here")
    assert [bench.outcome(job.name).exit_code for job in jobs] == [0] * 5
