"""What is known of a job of Slurm's: what its files say, and what Slurm says of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.hpc.cluster.conclusion import conclude
from ccat_workflow_manager.hpc.cluster.files import ClusterFiles
from ccat_workflow_manager.hpc.cluster.marks import JobRecord, Marks
from ccat_workflow_manager.hpc.slurm.hearing import has_ended, hear, of_job
from ccat_workflow_manager.hpc.slurm.parsing import Row

_LAG: Final = timedelta(seconds=5)
"""After its end, until a job that has left its exit mark is concluded without what the accounting says of it."""
_SEEN_LATE: Final = timedelta(minutes=1)
"""Until a host that shares our disk sees a file that we have made there."""
_SHORT: Final = timedelta(seconds=2)


@dataclass(frozen=True)
class Look:
    """A job, and what its files say, or why they say nothing."""

    job_id: str
    record: JobRecord | None
    marks: Marks | None
    trouble: str = "nothing is written down of a job with this id"

    @classmethod
    def at(cls, files: ClusterFiles, job_id: str) -> "Look":
        """Look at the files of one job. Raises OSError where the disk is away, and not where only these are damaged."""
        try:
            record = files.with_id(job_id)
            return cls(job_id, record, files.marks(record) if record else None)
        except OSError as error:
            files.require_disk()
            return cls(job_id, None, None, trouble=f"its files cannot be read: {error}")

    @property
    def slurm_id(self) -> str:
        """As Slurm calls what runs it: where it was given a job twice, that which took the start mark."""
        start = self.marks.start if self.marks else None
        return ((start.id if start else None) or self.job_id).partition(":")[0]

    def row(self, rows: Mapping[str, Row]) -> Row | None:
        """What Slurm says of the job, and not of another one to which it gave the same number."""
        row = rows.get(self.slurm_id)
        return row if row and self.record and row.name == self.record.cluster_name else None

    def may_be_over(self, queued: Mapping[str, Row]) -> bool:
        """Whether the accounting may have news of it: of one that shared its task, only that the task ended."""
        if self.record is None or self.marks is None:
            return False
        row, is_alone = self.row(queued), self.record.place is None
        return row is None or has_ended(row) or (is_alone and self.marks.exit is not None)

    def is_known_to_be_over(self, queued: Mapping[str, Row]) -> bool:
        """Whether its own mark or Slurm's controller says so: once the accounting has told more, nobody asks again."""
        return has_ended(self.row(queued)) or bool(self.marks and self.marks.exit)

    def is_overdue(self, grace: timedelta) -> bool:
        """Whether it was asked to end so long ago that it should have; where others share its task, later."""
        asked_at = self.marks.cancelled_at if self.marks else None
        is_alone = self.record is None or self.record.place is None
        longest = grace + (_LAG if is_alone else _SEEN_LATE)
        return asked_at is not None and datetime.now(UTC) - asked_at > longest

    def conclude(
        self, queued: Row | None, accounted: Row | None, *, waits: bool, now: datetime, patience: timedelta
    ) -> JobObservation:
        """How it stands with the job; where it may still be `waits`ed for its accounts, one that just ended runs on."""
        if self.record is None or self.marks is None:
            return JobObservation(state=JobState.UNKNOWN, trouble=self.trouble)
        queued, accounted = of_job(self.record.cluster_name, queued, accounted)
        heard = hear(queued, accounted, name=self.record.cluster_name)
        end, is_alone = self.marks.exit, self.record.place is None
        if waits and is_alone and end and now - end.ended_at < _lag(self.marks, accounted):
            return JobObservation(state=JobState.RUNNING, started_at=heard.started_at)
        return conclude(self.record, self.marks, heard, now=now, patience=patience)


def _lag(marks: Marks, accounted: Row | None) -> timedelta:
    """How long after its end a job waits for more of its accounts: what its steps used comes a little after the end.

    Of the shortest it may never come.
    """
    started_at = marks.start.started_at if marks.start else None
    is_short = bool(started_at and marks.exit and marks.exit.ended_at - started_at < _SHORT)
    is_whole = accounted is not None and (is_short or accounted.peak_memory_bytes is not None)
    return timedelta() if is_whole and has_ended(accounted) else _LAG
