import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from redis import Redis

from ccat_workflow_manager.hpc.base import BackendUnavailable, JobObservation, JobRefused, JobSpec, JobState
from ccat_workflow_manager.hpc.local.files import Job, JobFiles
from ccat_workflow_manager.hpc.local.observation import interpret
from ccat_workflow_manager.hpc.local.processes import JOB_VARIABLE, processes_by_job, signal_all
from ccat_workflow_manager.hpc.local.queue import JobQueue

_JOB_SCRIPT: Final = Path(__file__).with_name("job.sh")
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TAIL_BYTES: Final = 64 * 1024


class LocalBackend:
    """Runs jobs on this host in slots of one CPU, highest priority first.

    A job belongs to no process of ours: workers may be killed and replaced at any moment. Workers that share `base`
    and Redis share the slots, and any of them sees every job. `grace` is the time between SIGTERM and SIGKILL of a
    cancelled job. A job whose starter died before it started is started again after `restart_after`.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        base: Path,
        cpus: int,
        grace: timedelta = timedelta(seconds=10),
        restart_after: timedelta = timedelta(seconds=5),
    ) -> None:
        self._host = socket.gethostname()
        self._cpus = cpus
        self._grace = grace
        self._restart_after = restart_after
        self._files = JobFiles(base)
        pool = sha256(os.fsencode(base.resolve())).hexdigest()[:8]
        self._queue = JobQueue(redis, prefix=f"local:jobs:{self._host}:{pool}", slots=cpus)

    def submit(self, spec: JobSpec) -> str:
        """Record a job, then start what fits; it may be this one. Its id is its name."""
        _refuse_impossible(spec, cpus=self._cpus)
        self._files.keep(spec, host=self._host)
        job = self._files.read(spec.name)
        if job and not job.has_started:
            self._queue.add(job.record)
        self._start_what_fits()
        return spec.name

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        """Look at jobs, kill what a job leaves behind, and start what fits; without Redis nothing is started."""
        try:
            self._start_what_fits()
            reasons = self._queue.reasons()
        except BackendUnavailable as error:
            reasons = dict.fromkeys(job_ids, str(error))
        return {name: _with_reason(seen, reasons.get(name)) for name, seen in self._look(job_ids).items()}

    def find(self, names: Collection[str]) -> Mapping[str, str]:
        """Return the id of every job that was ever submitted under one of these names."""
        return {name: name for name in names if self._files.knows(name)}

    def cancel(self, job_ids: Collection[str]) -> None:
        """Keep waiting jobs from ever starting, and send SIGTERM to running ones; SIGKILL follows after the grace."""
        live = [job for name in job_ids if (job := self._read(name)) and not job.has_ended]
        running = [job for job in live if not self._files.forestall(job)]
        processes = processes_by_job() if running else {}
        for job in running:
            if self._files.mark_cancelled(job):
                signal_all(processes.get(job.record.spec.directory, []), signal.SIGTERM)
        self._look(job_ids)
        self._start_what_fits()

    def logs(self, job_id: str, *, lines: int = 50) -> str:
        """Return the last lines of standard output and errors; nothing where the job wrote none."""
        job = self._read(job_id)
        if job is None:
            return ""
        written = [*_last_lines(job.record.spec.stdout), *_last_lines(job.record.spec.stderr)]
        return "\n".join(written[-lines:])

    def _start_what_fits(self) -> None:
        if self._queue.needs_restoring():
            self._restore()
        claims = self._queue.claims()
        seen = self._look(claims)
        self._queue.remove([name for name in claims if seen[name].is_over or not self._files.knows(name)])
        overdue = datetime.now(UTC) - self._restart_after
        for name, claimed_at in claims.items():
            if seen[name].state is JobState.PENDING and claimed_at < overdue:
                self._queue.renew(name)
                self._start(name)
        while (claimed := self._queue.claim()) is not None:
            self._start(claimed)

    def _restore(self) -> None:
        self._files.prune()
        jobs = [job for job in self._files.live() if job.record.host == self._host]
        self._queue.restore(
            waiting=[job.record for job in jobs if not job.has_started],
            started=[job.record for job in jobs if job.has_started],
        )

    def _start(self, name: str) -> None:
        job = self._read(name)
        if job and not job.has_started:
            with contextlib.suppress(
                OSError, subprocess.SubprocessError
            ):  # short of something: tried again when overdue
                _launch(job.record.spec)

    def _read(self, name: str) -> Job | None:
        try:
            return self._files.read(name)
        except OSError:  # a file system that does not answer says nothing about the job
            return None

    def _look(self, names: Iterable[str]) -> Mapping[str, JobObservation]:
        jobs = {name: self._read(name) for name in names}
        ending = {name: job for name, job in jobs.items() if job and self._must_end(job)}
        processes = processes_by_job() if ending else {}
        for job in ending.values():
            signal_all(processes.get(job.record.spec.directory, []), signal.SIGKILL)
        return {name: self._conclude(job, processes) for name, job in jobs.items()}

    def _must_end(self, job: Job) -> bool:
        if job.is_settled or job.record.host != self._host:
            return False
        patience_is_over = job.cancelled_at is not None and datetime.now(UTC) - job.cancelled_at > self._grace
        return job.has_ended or patience_is_over

    def _conclude(self, job: Job | None, processes: Mapping[Path, list[int]]) -> JobObservation:
        if job is None:
            return JobObservation(state=JobState.UNKNOWN)
        seen = interpret(job, has_processes=job.record.spec.directory in processes, host=self._host)
        if seen.is_over and not job.is_settled:
            with contextlib.suppress(OSError):  # the next look says the same, and writes it down
                self._files.settle(job)
        return seen


def _refuse_impossible(spec: JobSpec, *, cpus: int) -> None:
    refused = partial(JobRefused, spec.name)
    if not _SAFE_NAME.fullmatch(spec.name):
        raise refused(problem="its name is not a plain file name", remedy="use letters, digits, dots and dashes")
    if spec.cpu > cpus:
        problem = f"it asks for {spec.cpu} CPUs and this host gives {cpus}"
        raise refused(problem=problem, remedy="lower the step's cpu, or run it at another location")
    if spec.time_limit <= timedelta():
        raise refused(problem="its time limit is not positive", remedy="give the step a time_hours above 0")
    if not spec.command or "\0" in "".join([*spec.command, *spec.environment, *spec.environment.values()]):
        raise refused(problem="its command is empty or has a NUL in it", remedy="mend the software version's command")


def _launch(spec: JobSpec) -> None:
    subprocess.run(
        [
            shutil.which("setsid") or "/usr/bin/setsid",
            "--fork",
            "/bin/sh",
            _JOB_SCRIPT,
            spec.directory,
            spec.working_directory,
            spec.stdout,
            spec.stderr,
            f"{spec.time_limit.total_seconds():.3f}",
            *spec.command,
        ],
        env={**spec.environment, JOB_VARIABLE: str(spec.directory)},
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        check=True,
    )


def _with_reason(seen: JobObservation, reason: str | None) -> JobObservation:
    if seen.state is not JobState.PENDING:
        return seen
    return replace(seen, queue_reason=reason or "it is about to start")


def _last_lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
