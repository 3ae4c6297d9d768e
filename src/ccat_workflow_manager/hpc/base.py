"""The contract that every backend keeps: values in, values out, and nothing known of runs or the database."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol, runtime_checkable
from uuid import UUID

from ccat_ops_db.errors import CcatError

JOB_VARIABLE: Final = "CCAT_JOB_DIRECTORY"
"""In the environment of every job: it tells a job's processes from all others, even when they leave its session."""
START_MARK: Final = "job.start"
"""File in an attempt's directory that is made before the software starts; where it exists, no job starts again."""


class BackendUnavailable(CcatError):
    """The backend, or something that it needs, does not answer: nothing is known about any job."""

    code = "backend_unavailable"
    transient = True

    def __init__(self, backend: str, problem: str) -> None:
        super().__init__(f"the {backend} backend cannot be used at the moment: {problem}; it is tried again")
        self.backend = backend


class JobRefused(CcatError):
    """The backend will never run this job as it stands."""

    code = "job_refused"

    def __init__(self, name: str, *, problem: str, remedy: str) -> None:
        super().__init__(f"job {name} is refused: {problem}; {remedy}")
        self.name = name


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where in a cluster a job is put, and on whose account; None leaves it to the cluster."""

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """Everything a backend needs to run one attempt.

    `name` identifies the job for ever: submitting the same name twice gives one job. `command` is an argument list
    that no shell reads. `environment` is all that the job gets, beside what the backend names it by. The job starts in
    `working_directory`, writes below `directory` only, and its output is appended to `stdout` and `stderr`. It has
    `cpu` CPUs for each of its `ntasks` tasks, and `memory_gb` and `gpus` on each of its `nodes`.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    working_directory: Path
    stdout: Path
    stderr: Path
    cpu: int
    memory_gb: float
    time_limit: timedelta
    priority: int = 0
    gpus: int = 0
    nodes: int = 1
    ntasks: int = 1
    placement: Placement = Placement()
    inner_prefix: str = ""
    """What the name of a variable begins with that has to come through to the software of the job."""

    @property
    def marks(self) -> Mapping[str, str]:
        """Variables that the backend adds, by which a job's processes are known, in an image or not."""
        return {f"{prefix}{JOB_VARIABLE}": str(self.directory) for prefix in ("", self.inner_prefix)}

    @property
    def cpus(self) -> int:
        """The CPUs of all its tasks."""
        return self.cpu * self.ntasks


class JobState(StrEnum):
    """What a backend says of a job. UNKNOWN means that it cannot tell, and is never a failure."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    LOST = "lost"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class JobObservation:
    """What is known of a job at one look; None is not known.

    FINISHED has an exit code, unless the job was cancelled before it started. LOST is over without one. `cancelled`
    says that somebody asked for the end, so a cancellation is confirmed by `cancelled and is_over`. `timed_out` and
    `out_of_memory` name the limit that ended the job, and only one of them is ever true. `queue_reason` says why a job
    is PENDING, and `trouble` why nothing can be told of one that is UNKNOWN, or how one was LOST.
    """

    state: JobState
    exit_code: int | None = None
    timed_out: bool = False
    out_of_memory: bool = False
    cancelled: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    wall_time: timedelta | None = None
    cpu_time: timedelta | None = None
    peak_memory_bytes: int | None = None
    host: str | None = None
    queue_reason: str | None = None
    trouble: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of the job runs any more, nor ever will."""
        return self.state in {JobState.FINISHED, JobState.LOST}


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a place gives to jobs, and how much of it none holds at the moment; None is not known."""

    cpus: int | None
    memory_gb: float | None
    free_cpus: int | None
    free_memory_gb: float | None


class Backend(Protocol):
    """A place that runs jobs. Every method may raise BackendUnavailable, and may then be called again."""

    def submit(self, spec: JobSpec) -> str:
        """Hand in a job and return its id; a name that is known already is adopted as it is. Raises JobRefused."""
        ...

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        """Look at all these jobs with one question; every id has an answer, UNKNOWN where there is none."""
        ...

    def find(self, names: Collection[str]) -> Mapping[str, str]:
        """Return job ids by job name, for the names that the backend has ever taken."""
        ...

    def cancel(self, job_ids: Collection[str]) -> None:
        """Ask for the end of these jobs; may be repeated, and `observe` confirms."""
        ...

    def logs(self, job_id: str, *, lines: int = 50) -> str:
        """Return the last lines that the job wrote: its standard output, then its errors."""
        ...

    def follow(self, job_id: str, *, lines: int = 50) -> Iterator[str]:
        """Give the last lines that the job wrote, then what it writes as it comes, until it is over.

        Each piece ends at the end of a line, unless that line is the last. It ends at once for an unknown job.
        """
        ...

    def capacity(self) -> Capacity:
        """Say what this place gives to jobs, and what of it is free."""
        ...


@runtime_checkable
class Bundling(Protocol):
    """A backend that takes many small jobs as quickly as one, where they ask for the same."""

    bundle_size: int
    """The most that it takes at once."""
    longest_bundled: timedelta
    """The longest time limit of a small job."""

    def submit_bundle(self, name: str, specs: Sequence[JobSpec]) -> Mapping[str, str]:
        """Hand in jobs under one name, and return their ids by their own; each is then followed by itself.

        None of them may have been handed in before: after any doubt that is asked by `find`, as for any job. Raises
        BackendUnavailable, or JobRefused for all of them.
        """
        ...


GIGABYTE: Final = 10**9
"""What a GB is wherever memory is asked for or limited."""


def job_name(installation: UUID, *, run_id: int, attempt: int) -> str:
    """Return the name under which a backend is asked for an attempt after any doubt."""
    return f"ccat-{installation.hex[:8]}-{run_id}-{attempt}"


def bundle_name(installation: UUID, *, bundle_id: int) -> str:
    """Return the name under which jobs are handed in together."""
    return f"ccat-{installation.hex[:8]}-bundle-{bundle_id}"
