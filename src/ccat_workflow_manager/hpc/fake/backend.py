"""A backend that keeps its jobs in memory: they end with the process that holds it."""

import signal
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import RLock
from typing import Final

from ccat_workflow_manager.hpc.base import GIGABYTE, Capacity, JobObservation, JobSpec, JobState
from ccat_workflow_manager.hpc.fake.software import Running, write_one_file
from ccat_workflow_manager.hpc.logs import follow, tail
from ccat_workflow_manager.hpc.refusing import refuse_malformed, refuse_too_large

_POLL: Final = timedelta(milliseconds=5)


@dataclass(eq=False)
class _Job:
    """A job, and all that is known of it."""

    spec: JobSpec
    seen: JobObservation
    running: Running | None = None
    began: float = 0.0
    """Moments are those of a clock that nobody sets."""
    asked_to_end: float | None = None


class FakeBackend:
    """Keeps jobs in memory, and has them done by `software`: without any, each writes one small file and ends at once.

    It keeps the whole contract, in slots of CPU and memory: the highest priority first, then the oldest, and the first
    is never overtaken. A job moves on whenever anything is asked. `grace` is the time between SIGTERM and SIGKILL.
    """

    def __init__(
        self,
        software: Callable[[JobSpec], Running] = write_one_file,
        *,
        cpus: int = 1000,
        memory_gb: float = 1000.0,
        grace: timedelta = timedelta(seconds=10),
    ) -> None:
        self._software = software
        self._cpus = cpus
        self._memory_gb = memory_gb
        self._grace = grace.total_seconds()
        self._host = socket.gethostname()
        self._jobs: dict[str, _Job] = {}
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._lock = RLock()

    def submit(self, spec: JobSpec) -> str:
        """Take a job, and start what fits; its id is its name."""
        refuse_malformed(spec)
        refuse_too_large(spec, cpus=self._cpus, memory_gb=self._memory_gb)
        with self._lock:
            if spec.name not in self._jobs:
                job = _Job(spec, JobObservation(state=JobState.PENDING, host=self._host))
                self._jobs[spec.name] = job
                self._waiting.append(job)
                self._waiting.sort(key=lambda one: -one.spec.priority)
            self._move_on()
        return spec.name

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        """Say what these jobs do."""
        with self._lock:
            self._move_on()
            return {name: self._seen(name) for name in job_ids}

    def find(self, names: Collection[str]) -> Mapping[str, str]:
        """Return the id of every job that was ever submitted under one of these names."""
        with self._lock:
            return {name: name for name in names if name in self._jobs}

    def cancel(self, job_ids: Collection[str]) -> None:
        """Keep waiting jobs from ever starting, and send SIGTERM to running ones; SIGKILL follows after the grace."""
        with self._lock:
            self._move_on()
            for job in [self._jobs[name] for name in job_ids if name in self._jobs]:
                self._cancel(job)
            self._move_on()

    def logs(self, job_id: str, *, lines: int = 50) -> str:
        """Return the last lines of standard output and errors."""
        job = self._jobs.get(job_id)
        return tail([job.spec.stdout, job.spec.stderr], lines=lines) if job else ""

    def follow(self, job_id: str, *, lines: int = 50) -> Iterator[str]:
        """Give the last lines of standard output and errors, then what comes, until the job is over."""
        job = self._jobs.get(job_id)
        outputs = [job.spec.stdout, job.spec.stderr] if job else []
        return follow(outputs, is_over=partial(self._is_over, job_id), lines=lines)

    def capacity(self) -> Capacity:
        """Say what jobs may hold here, and what none of them holds."""
        with self._lock:
            self._move_on()
            return Capacity(
                cpus=self._cpus,
                memory_gb=self._memory_gb,
                free_cpus=self._cpus - sum(job.spec.cpus for job in self._running),
                free_memory_gb=self._memory_gb - sum(job.spec.memory_gb for job in self._running),
            )

    def close(self) -> None:
        """Kill what runs, as a host that breaks down would; such jobs are lost."""
        with self._lock:
            for job in list(self._running):
                self._lose(job)

    def _is_over(self, job_id: str) -> bool:
        return job_id not in self._jobs or self.observe([job_id])[job_id].is_over

    def _seen(self, name: str) -> JobObservation:
        job = self._jobs.get(name)
        return job.seen if job else JobObservation(state=JobState.UNKNOWN)

    def _cancel(self, job: _Job) -> None:
        if job.seen.state is JobState.PENDING:
            self._waiting.remove(job)
            job.seen = replace(job.seen, state=JobState.FINISHED, cancelled=True, queue_reason=None)
        elif job.running and not job.seen.is_over and job.asked_to_end is None:
            job.asked_to_end = time.monotonic()
            job.seen = replace(job.seen, cancelled=True)
            job.running.send(signal.SIGTERM)

    def _lose(self, job: _Job) -> None:
        if job.running is not None:
            job.running.send(signal.SIGKILL)
            while job.running.exit_code() is None:
                time.sleep(_POLL.total_seconds())
        self._running.remove(job)
        job.seen = replace(job.seen, state=JobState.LOST)

    def _move_on(self) -> None:
        for job in list(self._running):
            self._look(job)
        while self._waiting and self._has_room(self._waiting[0].spec):
            self._start(self._waiting.pop(0))
        for job in self._waiting:
            job.seen = replace(job.seen, queue_reason="the jobs before it hold what it needs")

    def _has_room(self, spec: JobSpec) -> bool:
        cpus = self._cpus - sum(job.spec.cpus for job in self._running)
        memory = self._memory_gb - sum(job.spec.memory_gb for job in self._running)
        return spec.cpus <= cpus and spec.memory_gb <= memory

    def _start(self, job: _Job) -> None:
        job.seen = replace(job.seen, state=JobState.RUNNING, started_at=datetime.now(UTC), queue_reason=None)
        job.began = time.monotonic()
        job.running = self._software(job.spec)
        self._running.append(job)
        self._look(job)

    def _look(self, job: _Job) -> None:
        if job.running is None:
            return
        code = job.running.exit_code()
        if code is None:
            self._hold_to_limits(job, job.running)
            code = job.running.exit_code()
        if code is not None:
            self._finish(job, job.running, code)

    def _hold_to_limits(self, job: _Job, running: Running) -> None:
        now, used = time.monotonic(), running.memory()
        if used is not None:
            job.seen = replace(job.seen, peak_memory_bytes=max(used, job.seen.peak_memory_bytes or 0))
        if used is not None and used > job.spec.memory_gb * GIGABYTE:
            job.seen = replace(job.seen, out_of_memory=True)
            running.send(signal.SIGKILL)
        elif now - job.began > job.spec.time_limit.total_seconds() and not job.seen.out_of_memory:
            job.seen = replace(job.seen, timed_out=True)
            running.send(signal.SIGKILL)
        elif job.asked_to_end is not None and now - job.asked_to_end > self._grace:
            running.send(signal.SIGKILL)

    def _finish(self, job: _Job, running: Running, code: int) -> None:
        running.send(signal.SIGKILL)
        self._running.remove(job)
        job.seen = replace(
            job.seen,
            state=JobState.FINISHED,
            exit_code=code,
            timed_out=job.seen.timed_out and code != 0,
            out_of_memory=job.seen.out_of_memory and code != 0,
            ended_at=datetime.now(UTC),
            wall_time=timedelta(seconds=time.monotonic() - job.began),
        )
