"""The truth about local jobs: a record per job below the base directory, and marks in the attempt's directory.

| file | written by | says |
|---|---|---|
| `local-jobs/<name>.json` | `keep`, before anything is started | the job exists, and this is what it is |
| `local-jobs/over/<name>.json` | `settle` | the same, and nothing of it runs any more |
| `job.start` | the job itself, or whoever cancels it or gives it up first | it has started, or never will |
| `job.exit` | the job itself, or whoever finds it lost | how it ended; blank before, to keep room for it |
| `job.cancel` | `mark_cancelled` | somebody asked for the end, and when |
| `job.limit` | `mark_limit` | it went past this limit, and is killed for it |
| `job.memory` | `keep_peak` | the most memory that it was ever seen to use |

Nothing here is flushed to the disk. All of it is written by processes of this host, and outlives any of them; what a
power failure takes away was about jobs that it ended too, and attempts and their names were committed before. What had
not started by then is given up, as the directory that was prepared for it may be lost too.

Where the base directory is not there, its disk is away: nothing is known of any job then, and none is lost for it.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

from ccat_service.processes import boot_id
from ccat_workflow_manager.hpc.base import START_MARK, JobSpec
from ccat_workflow_manager.hpc.documents import create_once, document, draft, modified_at, read
from ccat_workflow_manager.hpc.local.marks import KILLED, ExitMark, JobRecord, Limit, StartMark

_KEPT_FOR: Final = timedelta(days=30)
_PRUNED_EVERY: Final = timedelta(days=1)
_DRAFTED_FOR: Final = timedelta(hours=1)
"""Longer than it takes to write a record; a draft holds the job's environment, as the record does."""
_PATIENCE_WITH_HALF_A_MARK: Final = timedelta(seconds=5)
_ROOM_FOR_AN_EXIT: Final = 256
"""Characters that `job.sh` keeps free for the mark, and that are written over by one who writes it in its place."""
_REMEMBERED: Final = 2**14
"""Jobs whose record and start, which never change, are kept in memory."""


@dataclass(frozen=True)
class _Marks:
    """Where the marks of a job are."""

    start: Path
    exit: Path
    cancel: Path
    limit: Path
    memory: Path


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
    was_cancelled_in_time: bool
    limit: Limit | None
    limit_marked_at: datetime | None
    peak_memory: int | None
    """Bytes; None where it was never measured, or has not ended."""

    @property
    def name(self) -> str:
        """What it is called for ever."""
        return self.record.spec.name

    @property
    def was_forestalled(self) -> bool:
        """Whether it was cancelled or given up before it started, so that it never will."""
        return self.start is not None and self.start.process is None

    @property
    def was_given_up(self) -> bool:
        """Whether it was kept from starting though nobody asked for that."""
        return self.start is not None and self.start.is_given_up

    @property
    def has_ended(self) -> bool:
        """Whether the process that would write its exit mark has done so, is gone, or can never come to be."""
        has_gone = self.has_started and not self.is_alive
        return self.exit is not None or has_gone or not self.directory_exists


class JobFiles:
    """The files of all jobs that belong to one base directory."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._live = base / "local-jobs"
        self._over = self._live / "over"
        self._record = lru_cache(_REMEMBERED)(self._read_record)
        self._start = lru_cache(_REMEMBERED)(_read_start)
        self._records = lru_cache(_REMEMBERED)(self._make_records)
        self._asked: dict[str, float] = {}
        """When the end of jobs was asked for whose disk had no room to write that down."""

    def keep(self, spec: JobSpec, *, host: str) -> JobRecord | None:
        """Make the record of a job and return it; None where there is one under this name."""
        if self.record(spec.name) is not None:
            return None
        self._over.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = JobRecord(spec=spec, submitted_at=datetime.now(UTC), host=host, boot_id=boot_id())
        live, _ = self._records(spec.name)
        with draft(live, record.model_dump_json()) as one:
            one.replace(live)  # twice does no harm: the start mark is made once
        return record

    def live(self) -> Iterator[Job]:
        """Look at every job that is not settled."""
        names = [path.stem for path in self._live.glob("*.json")]
        return (job for name in names if (job := self.read(name)) is not None)

    def prune(self) -> None:
        """Remove drafts whose writer died and, once a day, records of jobs that nobody will ask for any more."""
        _remove(self._live.glob(".*.json.*"), older_than=_DRAFTED_FOR)
        pruned = self._over / ".pruned"
        if self._over.exists() and time.time() - (modified_at(pruned) or 0) > _PRUNED_EVERY.total_seconds():
            pruned.touch()
            _remove(self._over.glob("*.json"), older_than=_KEPT_FOR)

    def record(self, name: str) -> JobRecord | None:
        """What was handed in under a name; None if there is no readable record. Raises OSError as `read` does."""
        try:
            return self._record(name)
        except KeyError:
            return None

    def require_disk(self) -> None:
        """Raise OSError where the disk with the records is away."""
        _require(self._live)

    def has_started(self, record: JobRecord) -> bool:
        """Whether a job has started, or never will."""
        return _marks(record.spec.directory).start.exists()

    def has_exited(self, record: JobRecord) -> bool:
        """Whether a job's first process has written down how it ended."""
        return _exit_mark(_marks(record.spec.directory)) is not None

    def read(self, name: str) -> Job | None:
        """Look at one job; None if no readable record of it exists. Raises OSError where its files cannot be read."""
        _, over = self._records(name)
        is_settled = over.exists()
        record = self.record(name)
        job = None if record is None else self._look(record, is_settled=is_settled)
        _require(self._live)  # last: until now the disk was there
        return job

    def settle(self, job: Job) -> None:
        """Write down that a job is over and nothing of it runs any more; one without an exit mark was lost."""
        if job.exit is None and not job.was_forestalled and job.directory_exists:
            lost = ExitMark(exit_code=KILLED if job.limit else None, ended_at=datetime.now(UTC))
            _write_over(_marks_of(job).exit, lost.model_dump_json().ljust(_ROOM_FOR_AN_EXIT))
        live, over = self._records(job.name)
        with contextlib.suppress(FileNotFoundError):  # settled by somebody else at the same moment
            live.rename(over)

    def forestall(self, job: Job) -> bool:
        """Take the start mark so that the job never starts; False if it has started before."""
        return create_once(_marks_of(job).start, StartMark(process=None).model_dump_json())

    def give_up(self, record: JobRecord) -> bool:
        """The same of a job whose end nobody asked for: it is lost."""
        mark = StartMark(process=None, is_given_up=True)
        return create_once(_marks(record.spec.directory).start, mark.model_dump_json())

    def mark_cancelled(self, job: Job) -> bool:
        """Write down when somebody first asked for the end of a job; False if that was before.

        Where the disk has no room for it, this process remembers it.
        """
        is_first = job.cancelled_at is None
        try:
            _marks_of(job).cancel.touch(exist_ok=False)
        except FileExistsError:
            return False
        except OSError:
            self._asked.setdefault(job.name, time.time())
        return is_first

    def mark_limit(self, job: Job, limit: Limit) -> None:
        """Write down past which limit a job went, before it is killed for it; the first one stays."""
        create_once(_marks_of(job).limit, limit)

    def keep_peak(self, job: Job, size: int) -> None:
        """Write down how much memory a job was seen to use, if that is more than ever before."""
        mark = _marks_of(job).memory
        if size <= (_number(read(mark)) or 0):
            return
        _write_over(mark, f"{size:020}\n")  # always as long, so that nobody reads half of it

    def _look(self, record: JobRecord, *, is_settled: bool) -> Job:
        """Read the marks, each before those that can only follow: what is seen missing was missing all the time before.

        So a job that has started, is not alive and has no exit mark, really left none.
        """
        marks = _marks(record.spec.directory)
        marked_at = modified_at(marks.start)
        start = None if marked_at is None else self._start_of(marks.start)
        is_alive = _is_alive(start, marked_at)
        limited_at, cancelled_at = map(modified_at, (marks.limit, marks.cancel))
        ended = _exit_mark(marks)
        ended_at = modified_at(marks.exit) if ended else None
        cancelled_at = self._asked.get(record.spec.name, cancelled_at)
        return Job(
            record=record,
            is_settled=is_settled,
            directory_exists=record.spec.directory.is_dir(),
            has_started=marked_at is not None,
            start=start,
            is_alive=is_alive,
            exit=ended,
            cancelled_at=_moment(cancelled_at),
            was_cancelled_in_time=cancelled_at is not None and (ended_at is None or cancelled_at <= ended_at),
            limit=_limit(marks.limit) if limited_at else None,
            limit_marked_at=_moment(limited_at),
            peak_memory=None if is_alive and not ended_at else _number(read(marks.memory)),
        )

    def _start_of(self, mark: Path) -> StartMark | None:
        try:
            return self._start(mark)
        except KeyError:
            return None

    def _read_record(self, name: str) -> JobRecord:
        live, over = self._records(name)
        record = document(read(live), JobRecord) or document(read(over), JobRecord)
        if record is None:
            _require(self._base)
            raise KeyError(name)  # an answer that changes is not remembered
        return record

    def _make_records(self, name: str) -> tuple[Path, Path]:
        return self._live / f"{name}.json", self._over / f"{name}.json"


def _require(directory: Path) -> None:
    if not directory.is_dir():
        raise FileNotFoundError(errno.ENOENT, "Nothing is known of any job: its disk is away, mount it", str(directory))


@lru_cache(_REMEMBERED)
def _marks(directory: Path) -> _Marks:
    return _Marks(*(directory / name for name in (START_MARK, "job.exit", "job.cancel", "job.limit", "job.memory")))


def _marks_of(job: Job) -> _Marks:
    return _marks(job.record.spec.directory)


def _is_alive(start: StartMark | None, marked_at: float | None) -> bool:
    """Whether the first process of a job lives; of one whose mark is not whole yet that is believed for a while."""
    if start is not None:
        return start.process is not None and start.process.is_alive()
    return marked_at is not None and time.time() - marked_at < _PATIENCE_WITH_HALF_A_MARK.total_seconds()


def _read_start(path: Path) -> StartMark:
    mark = document(read(path), StartMark)
    if mark is None:
        raise KeyError(path)  # an answer that changes is not remembered
    return mark


def _exit_mark(marks: _Marks) -> ExitMark | None:
    return document(read(marks.exit), ExitMark)


def _limit(path: Path) -> Limit | None:
    text = read(path)
    return Limit(text) if text else None


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdecimal() else None


def _remove(files: Iterable[Path], *, older_than: timedelta) -> None:
    oldest = time.time() - older_than.total_seconds()
    for file in files:
        with contextlib.suppress(FileNotFoundError):  # removed by somebody else at the same moment
            if file.stat().st_mtime < oldest:
                file.unlink()


def _moment(timestamp: float | None) -> datetime | None:
    return None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)


def _write_over(path: Path, text: str) -> None:
    """Write over the start of a file: where it has the room, none is needed on the disk."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(file, text.encode(), 0)
    finally:
        os.close(file)
