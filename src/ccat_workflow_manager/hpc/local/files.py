"""The truth about local jobs: a record per job below the base directory, and marks in the attempt's directory.

| file | written by | says |
|---|---|---|
| `local-jobs/<name>.json` | `keep`, before anything is started | the job exists, and this is what it is |
| `local-jobs/over/<name>.json` | `settle` | the same, and nothing of it runs any more |
| `job.start` | the job itself, or whoever cancels it first | it has started, or never will |
| `job.exit` | the job itself, or whoever finds it lost | how it ended |
| `job.cancel` | `mark_cancelled` | somebody asked for the end, and when |
"""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from ccat_service.processes import ProcessIdentity
from ccat_workflow_manager.hpc.base import START_MARK, JobSpec

_KEPT_FOR: Final = timedelta(days=30)
_DRAFTED_FOR: Final = timedelta(hours=1)
"""Longer than it takes to write a record; a draft holds the job's environment, as the record does."""
_EXIT_MARK: Final = "job.exit"
_CANCEL_MARK: Final = "job.cancel"

D = TypeVar("D", bound="_Document")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class JobRecord(_Document):
    """A job as it was handed in."""

    spec: JobSpec
    submitted_at: AwareDatetime
    host: str


class StartMark(_Document):
    """Who took the start of a job: its own process or, where there is none, somebody who cancelled it before."""

    process: ProcessIdentity | None
    started_at: AwareDatetime
    uptime: float


class ExitMark(_Document):
    """How a job ended; without an exit code it was found lost."""

    exit_code: int | None
    ended_at: AwareDatetime
    uptime: float | None = None
    oom_kills: int = 0
    user: str = ""
    system: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that its files, and a look at its first process, say about a job at one moment."""

    record: JobRecord
    is_settled: bool
    directory_exists: bool
    has_started: bool
    start: StartMark | None
    is_alive: bool
    exit: ExitMark | None
    cancelled_at: datetime | None

    @property
    def was_forestalled(self) -> bool:
        """Whether it was cancelled before it started, so that it never will."""
        return self.start is not None and self.start.process is None

    @property
    def has_ended(self) -> bool:
        """Whether the process that would write its exit mark has done so, is gone, or can never come to be."""
        has_gone = self.has_started and not self.is_alive
        return self.exit is not None or has_gone or not self.directory_exists


class JobFiles:
    """The files of all jobs that belong to one base directory."""

    def __init__(self, base: Path) -> None:
        self._live = base / "local-jobs"
        self._over = self._live / "over"

    def keep(self, spec: JobSpec, *, host: str) -> None:
        """Make the record of a job, unless there is one under this name."""
        if self.knows(spec.name):
            return
        self._over.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = JobRecord(spec=spec, submitted_at=datetime.now(UTC), host=host)
        _create_once(self._live / f"{spec.name}.json", record)

    def knows(self, name: str) -> bool:
        """Whether a job of this name was ever kept."""
        return any(path.exists() for path in self._records(name))

    def live(self) -> Iterator[Job]:
        """Look at every job that is not settled."""
        names = [path.stem for path in self._live.glob("*.json")]
        return (job for name in names if (job := self.read(name)) is not None)

    def prune(self) -> None:
        """Remove the records of jobs over for so long that nobody asks for them, and drafts whose writer died."""
        for files, kept_for in ((self._over.glob("*.json"), _KEPT_FOR), (self._live.glob(".*.json.*"), _DRAFTED_FOR)):
            overdue = time.time() - kept_for.total_seconds()
            for file in files:
                with contextlib.suppress(FileNotFoundError):  # pruned by somebody else at the same moment
                    if file.stat().st_mtime < overdue:
                        file.unlink()

    def read(self, name: str) -> Job | None:
        """Look at one job; None if no readable record of it exists. Raises OSError where its files cannot be read."""
        live, over = self._records(name)
        is_settled = not live.exists()
        record = _read(over if is_settled else live, JobRecord) or _read(over, JobRecord)
        return None if record is None else _look(record, is_settled=is_settled)

    def settle(self, job: Job) -> None:
        """Write down that a job is over and nothing of it runs any more; one without an exit mark was lost."""
        if job.exit is None and not job.was_forestalled and job.directory_exists:
            lost = ExitMark(exit_code=None, ended_at=datetime.now(UTC))
            mark = job.record.spec.directory / _EXIT_MARK
            _write_draft(mark, lost).replace(mark)
        live, over = self._records(job.record.spec.name)
        with contextlib.suppress(FileNotFoundError):  # settled by somebody else at the same moment
            live.rename(over)

    def forestall(self, job: Job) -> bool:
        """Take the start mark so that the job never starts; False if it has started before."""
        mark = StartMark(process=None, started_at=datetime.now(UTC), uptime=0.0)
        return _create_once(job.record.spec.directory / START_MARK, mark)

    def mark_cancelled(self, job: Job) -> bool:
        """Write down when somebody first asked for the end of a job; False if that was before."""
        try:
            (job.record.spec.directory / _CANCEL_MARK).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _records(self, name: str) -> tuple[Path, Path]:
        return self._live / f"{name}.json", self._over / f"{name}.json"


def _look(record: JobRecord, *, is_settled: bool) -> Job:
    """Read the marks, each before those that can only follow: what is seen missing was missing all the time before.

    So a job that has started, is not alive and has no exit mark, really left none.
    """
    directory = record.spec.directory
    has_started = (directory / START_MARK).exists()
    start = _read(directory / START_MARK, StartMark) if has_started else None
    is_alive = start is not None and start.process is not None and start.process.is_alive()
    return Job(
        record=record,
        is_settled=is_settled,
        directory_exists=directory.is_dir(),
        has_started=has_started,
        start=start,
        is_alive=is_alive,
        exit=_read(directory / _EXIT_MARK, ExitMark),
        cancelled_at=_modified_at(directory / _CANCEL_MARK),
    )


def _read(path: Path, kind: type[D]) -> D | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):  # a power failure may have cut it
        return None


def _modified_at(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _create_once(path: Path, document: _Document) -> bool:
    """Make a file whole or not at all; False if it is there already."""
    draft = _write_draft(path, document)
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    return True


def _write_draft(path: Path, document: _Document) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with open(draft, "x", opener=_private) as file:
        file.write(document.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    return draft


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)  # a record holds the job's environment
