"""What stands in the files of jobs of a cluster."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import AwareDatetime

from ccat_workflow_manager.hpc.base import JobSpec
from ccat_workflow_manager.hpc.documents import Document

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


class JobRecord(Document):
    """A job as it was handed in, without its command and environment, which may be nobody else's business."""

    name: str
    cluster_name: str
    """Under which name the cluster has it: its own or, of one of many, that of all together."""
    task: int | None = None
    """Of many that are given to the cluster together, which task of it runs this one."""
    place: int | None = None
    """After how many others that task runs it."""
    directory: Path
    stdout: Path
    stderr: Path
    memory_gb: float
    time_limit: timedelta
    submitted_at: AwareDatetime

    @classmethod
    def of(cls, spec: JobSpec, *, bundle: str | None, task: int | None, place: int | None) -> "JobRecord":
        """The record of a job that is handed in now."""
        return cls(
            name=spec.name,
            cluster_name=bundle or spec.name,
            task=task,
            place=place,
            directory=spec.directory,
            stdout=spec.stdout,
            stderr=spec.stderr,
            memory_gb=spec.memory_gb,
            time_limit=spec.time_limit,
            submitted_at=datetime.now(UTC),
        )


class StartMark(Document):
    """Who took the start of a job: the job itself, on a host, or who cancelled it before, without an id."""

    id: str | None
    host: str | None = None
    at: float | None = None
    """Seconds since 1970."""

    @property
    def started_at(self) -> datetime | None:
        """When the job started."""
        return None if self.at is None else datetime.fromtimestamp(self.at, UTC)


class ExitMark(Document):
    """How a job ended."""

    exit_code: int
    at: float
    cpu_ticks: int
    was_asked: bool = False
    """Whether somebody asked for the end: we, or the cluster for whatever reason."""

    @property
    def ended_at(self) -> datetime:
        """When that was."""
        return datetime.fromtimestamp(self.at, UTC)

    @property
    def cpu_time(self) -> timedelta:
        """CPU time of all its processes that ended before it."""
        return timedelta(seconds=self.cpu_ticks / _TICKS_PER_S)


@dataclass(frozen=True)
class Marks:
    """All that the files of a job say at one moment."""

    has_start: bool
    start: StartMark | None
    """None also where the mark is not whole yet."""
    exit: ExitMark | None
    cancelled_at: datetime | None

    @property
    def was_forestalled(self) -> bool:
        """Whether it was cancelled before it started, so that it never will."""
        return self.start is not None and self.start.id is None
