"""The files of all jobs of one location, on a disk that the hosts of the cluster share with its workers.

| file | made by | says |
|---|---|---|
| `cluster-jobs/<name>.json` | `keep`, before the cluster hears of it | the job may exist, and this is what it is |
| `cluster-jobs/<name>.id`, `cluster-jobs/ids/<id>` | `know` | which id we know it by, and whose that is, for ever |
| `cluster-jobs/job-<digest>.sh` | `keep` | how every job lives, as hosts of the cluster need not have our code |
| `job.run` | `keep` | its command and environment, for our account's eyes only |
| `job.start` | the job itself, or whoever cancels it before | it has started, or never will |
| `job.exit` | the job itself | how it ended; blank before, to keep room for it |
| `job.cancel` | `mark_cancelled` | somebody asked for the end, and when |

The last four lie in the directory of the attempt.
"""

import contextlib
import errno
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from itertools import chain, count
from pathlib import Path
from typing import Final

from ccat_workflow_manager.hpc.base import START_MARK, JobSpec
from ccat_workflow_manager.hpc.cluster.marks import ExitMark, JobRecord, Marks, StartMark
from ccat_workflow_manager.hpc.cluster.script import run_script
from ccat_workflow_manager.hpc.documents import create_once, document, modified_at, put, read

RUN_SCRIPT: Final = "job.run"
_EXIT_MARK: Final = "job.exit"
_CANCEL_MARK: Final = "job.cancel"
_WRAPPER: Final = Path(__file__).with_name("job.sh")
_REMEMBERED: Final = 2**14
_KEPT_FOR: Final = timedelta(days=90)
_PRUNED_EVERY: Final = timedelta(days=1)


class ClusterFiles:
    """Records and marks of the jobs whose run directories lie below `base`."""

    def __init__(self, base: Path, *, grace: timedelta) -> None:
        self._base = base
        self._records = base / "cluster-jobs"
        self._ids = self._records / "ids"
        self._grace = grace
        self._followed = lru_cache(_REMEMBERED)(self._read_followed)

    def keep(
        self,
        spec: JobSpec,
        *,
        passed: Sequence[str] = (),
        bundle: str | None = None,
        task: int | None = None,
        place: int | None = None,
    ) -> JobRecord:
        """Write down a job and what runs it; whoever is asked for it afterwards finds it by its name.

        Of the environment of its host, it gets what is `passed`.
        """
        self._ids.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = JobRecord.of(spec, bundle=bundle, task=task, place=place)
        script = run_script(spec, wrapper=self._wrapper(), grace=self._grace, passed=passed)
        put(spec.directory / RUN_SCRIPT, script)
        put(self._records / f"{spec.name}.json", record.model_dump_json())
        return record

    def forget(self, names: Iterable[str]) -> None:
        """Take back what was written down of jobs that the cluster did not take, and never will."""
        for name in names:
            (self._records / f"{name}.json").unlink(missing_ok=True)

    def keep_list(self, bundle: str, directories: Iterable[Path]) -> Path:
        """Write down the directories of jobs that are handed in together, a line for each; the file."""
        path = self._records / f"{bundle}.list"
        put(path, "".join(f"{one}\n" for one in directories))
        return path

    def record(self, name: str) -> JobRecord | None:
        """What was handed in under a name, or is about to be. Raises OSError where the disk is away."""
        record = document(read(self._records / f"{name}.json"), JobRecord)
        if record is None:
            self.require_disk()
        return record

    def know(self, name: str, job_id: str) -> str:
        """Write down which id a job has at the cluster; the id by which we know it, which is no other job's.

        A cluster that has forgotten jobs gives their ids again, while those are still asked for: behind a colon stands
        then how often that was.
        """
        ids = chain([job_id], (f"{job_id}:{times}" for times in count(2)))
        known_by = next(one for one in ids if _point(self._ids / one, name))
        _point(self._records / f"{name}.id", known_by)
        return known_by

    def id_of(self, name: str) -> str | None:
        """Id by which we know the job with a name, as far as it ever had one."""
        return _target(self._records / f"{name}.id")

    def with_id(self, job_id: str) -> JobRecord | None:
        """The job that we know by this id. Raises OSError where the disk is away."""
        name = _target(self._ids / job_id)
        if name is None:
            self.require_disk()
            return None
        try:
            return self._followed(name)
        except KeyError:
            return None

    def marks(self, record: JobRecord) -> Marks:
        """What the files of a job say, each read before those that can only follow."""
        start = read(record.directory / START_MARK)
        ended = read(record.directory / _EXIT_MARK)
        cancelled = modified_at(record.directory / _CANCEL_MARK)
        return Marks(
            has_start=start is not None,
            start=document(start, StartMark),
            exit=document(ended, ExitMark),
            cancelled_at=None if cancelled is None else datetime.fromtimestamp(cancelled, UTC),
        )

    def forestall(self, record: JobRecord) -> bool:
        """Take the start mark, so that the job never starts; False if it has started before."""
        return create_once(record.directory / START_MARK, StartMark(id=None).model_dump_json())

    def conclude_unstarted(self, record: JobRecord, *, exit_code: int, because: str) -> bool:
        """Leave the exit mark of a job that never starts, and why in its log; False if it has started before.

        May be repeated: only the last of its steps makes the job one that has ended.
        """
        if not self.forestall(record) and not self.marks(record).was_forestalled:
            return False
        if self.marks(record).exit is None:
            with record.stderr.open("a") as log:
                log.write(f"{because}\n")
            put(
                record.directory / _EXIT_MARK,
                ExitMark(exit_code=exit_code, at=time.time(), cpu_ticks=0).model_dump_json(),
            )
        return True

    def mark_cancelled(self, record: JobRecord) -> bool:
        """Write down when somebody first asked for the end of a job; False if that was before."""
        return create_once(record.directory / _CANCEL_MARK, "")

    def require_disk(self) -> None:
        """Raise OSError where the disk is away."""
        if not self._base.is_dir():
            what = "Nothing is known of any job: its disk is away, mount it"
            raise FileNotFoundError(errno.ENOENT, what, str(self._base))

    def prune(self) -> None:
        """Remove, once a day, what was written down of jobs that nobody will ask for any more."""
        pruned = self._records / ".pruned"
        if not self._records.exists() or time.time() - (modified_at(pruned) or 0) < _PRUNED_EVERY.total_seconds():
            return
        pruned.touch()
        oldest = time.time() - _KEPT_FOR.total_seconds()
        ours = (self._records.glob(f"*.{kind}") for kind in ("json", "list", "id"))
        for path in [*chain.from_iterable(ours), *self._ids.iterdir()]:
            with contextlib.suppress(FileNotFoundError):  # removed by somebody else at the same moment
                if path.lstat().st_mtime < oldest:
                    path.unlink()

    def _read_followed(self, name: str) -> JobRecord:
        """That of a job with an id, which is never handed in again; before, others may still do that another way."""
        record = self.record(name)
        if record is None:
            raise KeyError(name)  # an answer that changes is not remembered
        return record

    def _wrapper(self) -> Path:
        text = _WRAPPER.read_text()
        path = self._records / f"job-{sha256(text.encode()).hexdigest()[:8]}.sh"
        if not path.exists():
            put(path, text)
        return path


def _point(place: Path, target: str) -> bool:
    """Make a link that says something, unless there is one; whether it says that now."""
    try:
        place.symlink_to(target)
    except FileExistsError:
        return _target(place) == target
    return True


def _target(place: Path) -> str | None:
    try:
        return str(place.readlink())
    except FileNotFoundError:
        return None
