from dataclasses import dataclass
from datetime import timedelta
from typing import Final, assert_never

from ccat_ops_db.states import FailureClass
from ccat_service.retries import Backoff

TROUBLE_LIMIT: Final = 10
"""Most retries in a row for trouble outside the software."""
TROUBLE_FOR: Final = timedelta(hours=24)
"""How long after the first of a row of such failures they are tried again; what ran meanwhile begins anew."""
_BACKOFF: Final = Backoff(first=timedelta(seconds=2), ceiling=timedelta(hours=4))


@dataclass(frozen=True)
class Tries:
    """How often a run was tried again so far, and how often its step allows."""

    counted: int
    """Retries counted against the step."""
    trouble: int
    """Retries in a row for trouble outside the software."""
    allowed: int
    trouble_for: timedelta = timedelta()
    """How long ago the first failure of that row was since which it has not run."""
    may_grow: bool = False
    """Whether another attempt would have more of what the last one used up."""


@dataclass(frozen=True)
class Retry:
    """When to try again, and what to count."""

    delay: timedelta
    counted: int
    trouble: int


def retry_after(failure: FailureClass, tries: Tries, *, jitter: float) -> Retry | None:
    """How a failed run is tried again; None gives up. `jitter` in [0, 1) spreads runs that failed together.

    A failure of any other kind ends a row of trouble outside the software. What used up its resources is tried again
    as long as it gets more of them, whatever the step allows.
    """
    match failure:
        case FailureClass.INFRASTRUCTURE:
            if tries.trouble >= TROUBLE_LIMIT or tries.trouble_for >= TROUBLE_FOR:
                return None
            return Retry(_BACKOFF.delay(tries.trouble + 1, jitter=jitter), tries.counted, tries.trouble + 1)
        case FailureClass.RESOURCES:
            return Retry(_BACKOFF.delay(1, jitter=jitter), tries.counted, 0) if tries.may_grow else None
        case FailureClass.PAYLOAD:
            if tries.counted >= tries.allowed:
                return None
            return Retry(_BACKOFF.delay(tries.counted + 1, jitter=jitter), tries.counted + 1, 0)
        case FailureClass.DATA | FailureClass.CONFIGURATION:
            return None
        case never:
            assert_never(never)
