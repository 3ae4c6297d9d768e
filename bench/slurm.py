import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.figures import Figure, NotMeasurable
from ccat_workflow_manager.hpc.base import JobObservation, JobSpec
from ccat_workflow_manager.hpc.settings import SlurmSettings
from ccat_workflow_manager.hpc.slurm.asking import Slurm
from ccat_workflow_manager.hpc.slurm.backend import SlurmBackend
from tests.slurm_cluster import slurm_cluster, what_is_missing

_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
_MOST_DETECTED: Final = 20
_LONGEST_S: Final = 6


class _Counting(Slurm):
    """Slurm, and how often each of its commands was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    def run(self, command: Sequence[str], *, given: str = "") -> str:
        self.asked[command[0]] += 1
        return super().run(command, given=given)


def measure(
    *, size: Annotated[int, typer.Option(min=4, help="So many small jobs, one by one and as arrays.")] = 500
) -> Iterator[Figure]:
    """How much quicker small jobs are as arrays, how often Slurm is asked about many, and how soon an end is seen.

    On a real cluster of one node, made for it; the backend is used as the worker of a location does, with the settings
    that a location has by itself. What the other processes add is measured by `latency`.
    """
    if missing := what_is_missing():
        raise NotMeasurable(missing)
    settings = SlurmSettings()
    with tempfile.TemporaryDirectory(prefix="slurm-") as directory, slurm_cluster(Path(directory)) as cluster:
        os.environ["SLURM_CONF"] = str(cluster.conf)
        slurm, jobs = _Counting(), _Jobs(Path(directory) / "jobs")
        backend = SlurmBackend(
            jobs.base, slurm=slurm, bundle_size=settings.array_size, jobs_per_task=settings.jobs_per_task
        )
        alone, together = [jobs.spec("true") for _ in range(size)], [jobs.spec("true") for _ in range(size)]
        ids, single_s = _timed(backend, alone, most=1)
        more, array_s = _timed(backend, together, most=settings.array_size)
        yield Figure("single_s", single_s)
        yield Figure("array_s", array_s)
        yield Figure("array_ratio", array_s / single_s, at_most=0.5)
        slurm.asked.clear()
        backend.observe([*ids, *more])
        yield Figure("calls_per_round", slurm.asked.total(), at_most=2)
        yield Figure("detect_p50_s", _detected(backend, jobs, min(_MOST_DETECTED, size), poll=settings.poll), at_most=5)


class _Jobs:
    """Makes jobs of a line of shell."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._number = 0

    def spec(self, script: str) -> JobSpec:
        self._number += 1
        directory = self.base / f"attempt-{self._number}"
        (directory / "workspace").mkdir(parents=True)
        return JobSpec(
            name=f"ccat-bench-{self._number}-1",
            command=("/bin/sh", "-c", script),
            environment=_ENVIRONMENT,
            directory=directory,
            working_directory=directory / "workspace",
            stdout=directory / "stdout.log",
            stderr=directory / "stderr.log",
            cpu=1,
            memory_gb=0.2,
            time_limit=timedelta(minutes=5),
        )


def _timed(backend: SlurmBackend, specs: Sequence[JobSpec], *, most: int) -> tuple[list[str], float]:
    """Ids of jobs, and how long it took from the first one until all had ended well."""
    begun, ids = time.monotonic(), list[str]()
    for start in range(0, len(specs), most):
        some = specs[start : start + most]
        if most == 1:
            ids.append(backend.submit(some[0]))
        else:
            ids += backend.submit_bundle(f"ccat-bench-bundle-{start}", some).values()
    seen = _until_over(backend, ids, poll=timedelta(seconds=1))
    failed = [job_id for job_id, one in seen.items() if one.exit_code != 0]
    if failed:
        raise ValueError(f"jobs did not end well: {failed}")
    return ids, time.monotonic() - begun


def _until_over(backend: SlurmBackend, ids: Collection[str], *, poll: timedelta) -> dict[str, JobObservation]:
    """Look again and again until all jobs are over; what was seen of each when it first was."""
    over: dict[str, JobObservation] = {}
    while left := [job_id for job_id in ids if job_id not in over]:
        over |= {job_id: one for job_id, one in backend.observe(left).items() if one.is_over}
        if len(over) < len(ids):
            time.sleep(poll.total_seconds())
    return over


def _detected(backend: SlurmBackend, jobs: _Jobs, number: int, *, poll: timedelta) -> float:
    """Median time, in seconds, from the end of the software of a job until it is seen."""
    pick = random.Random(1)  # noqa: S311 - the same each time
    ids = [backend.submit(jobs.spec(f"sleep {pick.uniform(1, _LONGEST_S):.2f}")) for _ in range(number)]
    late = list[float]()
    while ids:
        time.sleep(poll.total_seconds())
        over = {job_id: one for job_id, one in backend.observe(ids).items() if one.is_over}
        now = datetime.now(UTC)
        late += [(now - one.ended_at).total_seconds() for one in over.values() if one.ended_at]
        ids = [job_id for job_id in ids if job_id not in over]
    return statistics.median(late)
