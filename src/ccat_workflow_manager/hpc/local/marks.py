"""What stands in the files of local jobs."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from pydantic import AwareDatetime

from ccat_service.processes import ProcessIdentity
from ccat_workflow_manager.hpc.base import JobSpec
from ccat_workflow_manager.hpc.documents import Document

KILLED: Final = 137
"""Exit code of what was ended by SIGKILL."""


class JobRecord(Document):
    """A job as it was handed in."""

    spec: JobSpec
    submitted_at: AwareDatetime
    host: str
    boot_id: str = ""
    """Of which boot of its host it was handed in; empty in records of before that was written down."""


class StartMark(Document):
    """Who took the start of a job: its own process or, where there is none, who cancelled or gave it up before.

    The job's process leads its session. Times of jobs are seconds since `booted_at`, to which no clock is ever set.
    """

    process: ProcessIdentity | None
    uptime: float = 0.0
    booted_at: float = 0.0
    is_given_up: bool = False
    """Whether it was taken as nobody is there any more to start the job."""

    def moment(self, uptime: float) -> datetime:
        """When it was so long after the start of the host."""
        return datetime.fromtimestamp(self.booted_at + uptime, UTC)


class ExitMark(Document):
    """How a job ended; without an exit code it was found lost, and without an uptime its end was never seen."""

    exit_code: int | None
    ended_at: AwareDatetime | None = None
    uptime: float | None = None
    user_ticks: int | None = None
    system_ticks: int | None = None
    oom_kills: int = 0


class Limit(StrEnum):
    """Past what a job went."""

    MEMORY = "memory"
    TIME = "time"
