import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from ccat_workflow_manager.hpc.base import Backend, JobObservation, JobSpec

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def until(condition: Callable[[], Any], *, within: float = 20) -> None:
    """Return as soon as the condition holds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def processes_below(base: Path) -> dict[int, str]:
    """The living processes of the host that say that they belong to a job below this directory, and their commands."""
    found = {}
    for _, process in _of_jobs(base):
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process.pid] = " ".join(process.cmdline())
    return found


def jobs_below(base: Path) -> dict[Path, list[int]]:
    """The same by the directories of the jobs."""
    found: dict[Path, list[int]] = {}
    for directory, process in _of_jobs(base):
        found.setdefault(directory, []).append(process.pid)
    return found


def _of_jobs(base: Path) -> Iterator[tuple[Path, psutil.Process]]:
    for process in psutil.process_iter():
        try:
            directory = process.environ().get("CCAT_JOB_DIRECTORY")
            is_alive = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if directory and is_alive and Path(directory).is_relative_to(base):
            with contextlib.suppress(psutil.NoSuchProcess):
                yield Path(directory), process


@dataclass
class Bench:
    """A backend, and a place where jobs can be made for it."""

    backend: Backend
    base: Path
    installation: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def spec(self, script: str, *arguments: str, **changes: Any) -> JobSpec:
        """A job that runs a line of shell in an attempt's directory of its own."""
        number = next(self._numbers)
        directory = self.base / "run" / f"attempt-{number}"
        for part in ("workspace", "logs"):
            (directory / part).mkdir(parents=True)
        job: dict[str, Any] = {
            "name": f"ccat-{self.installation}-1-{number}",
            "command": ("sh", "-c", script, "sh", *arguments),
            "environment": ENVIRONMENT,
            "directory": directory,
            "working_directory": directory / "workspace",
            "stdout": directory / "logs" / "stdout.log",
            "stderr": directory / "logs" / "stderr.log",
            "cpu": 1,
            "memory_gb": 1.0,
            "time_limit": timedelta(seconds=60),
        }
        return JobSpec(**(job | changes))

    def submit(self, script: str, *arguments: str, **changes: Any) -> str:
        return self.backend.submit(self.spec(script, *arguments, **changes))

    def look(self, job_id: str) -> JobObservation:
        return self.backend.observe([job_id])[job_id]

    def outcome(self, job_id: str) -> JobObservation:
        """What is observed of a job as soon as it is over.

        One of an array that failed may run on for a look or two then, while its task is about to end: why is not known.
        """
        seen: list[JobObservation] = []

        def is_over() -> bool:
            seen.append(self.look(job_id))
            return seen[-1].is_over

        until(is_over)
        return seen[-1]

    def until_it_says(self, job: JobSpec, words: str) -> None:
        """Wait for a job to have written something."""
        until(lambda: job.stdout.exists() and words in job.stdout.read_text())
