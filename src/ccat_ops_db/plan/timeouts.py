"""How long a run may be in a status, and what happens then."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ccat_ops_db.states import RunStatus


@dataclass(frozen=True)
class TimeOut:
    """The longest that a run is left in a status."""

    after: timedelta
    then: str
    """What happens after that, as `ccat run why` says it."""
    is_beyond_limit: bool = False
    """Whether the time limit of its job comes first: see `at_its_limit`."""

    def ends_at(self, since: datetime, *, time_limit: timedelta) -> datetime:
        """When it is over for a run that came to the status at a moment."""
        return since + self.after + (time_limit if self.is_beyond_limit else timedelta())


TIME_OUTS: Final[Mapping[RunStatus, TimeOut]] = {
    RunStatus.PENDING: TimeOut(timedelta(days=7), "it is reported; nothing else, as it may wait for good reasons"),
    RunStatus.STAGING_DATA: TimeOut(
        timedelta(hours=24),
        "the attempt fails and is tried again, unless the cluster has its job or its disk has no room",
    ),
    RunStatus.SUBMITTED: TimeOut(timedelta(days=7), "its job is taken back and it is tried again"),
    RunStatus.RUNNING: TimeOut(timedelta(minutes=10), "the cluster is asked to end its job", is_beyond_limit=True),
    RunStatus.COLLECTING_RESULTS: TimeOut(
        timedelta(days=3), "it is given up; what it made stays in the directory of its attempt"
    ),
}
"""Every status in which a run may stay. All act but that of PENDING."""
UNKNOWN_TOO_LONG: Final = timedelta(minutes=10)
"""Beyond its time limit, after which a job that nobody can tell anything of has ended, wherever it ran."""


def at_its_limit(limit: datetime, *, follows: str, now: datetime) -> str:
    """What happens to a RUNNING run at the moment when the time of its job is over, as `ccat run why` says it.

    That ends the job. The time-out, which comes later, is told only of one that runs on all the same.
    """
    timeout = TIME_OUTS[RunStatus.RUNNING]
    if now <= limit:
        return f"its job is ended, and {follows}"
    if now <= limit + timeout.after:
        return f"if its job still runs at {limit + timeout.after:%H:%M} UTC, {timeout.then}, and {follows}"
    return f"{timeout.then}, and {follows}"
