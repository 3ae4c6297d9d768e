from dataclasses import dataclass
from datetime import timedelta
from typing import Final, assert_never

from ccat_ops_db.states import FailureClass
from ccat_service.retries import Backoff

TROUBLE_LIMIT: Final = 10
"""Most retries for trouble outside the software."""
_BACKOFF: Final = Backoff(first=timedelta(seconds=2), ceiling=timedelta(hours=4))


@dataclass(frozen=True)
class Tries:
    """How often a run was tried again so far, and how often its step allows."""

    counted: int
    """Retries counted against the step."""
    trouble: int
    """Retries for trouble outside the software."""
    allowed: int


@dataclass(frozen=True)
class Retry:
    """When to try again, and what to count."""

    delay: timedelta
    counted: int
    trouble: int


def retry_after(failure: FailureClass, tries: Tries, *, jitter: float) -> Retry | None:
    """How a failed run is tried again; None gives up. `jitter` in [0, 1) spreads runs that failed together."""
    match failure:
        case FailureClass.INFRASTRUCTURE:
            if tries.trouble >= TROUBLE_LIMIT:
                return None
            return Retry(_BACKOFF.delay(tries.trouble + 1, jitter=jitter), tries.counted, tries.trouble + 1)
        case FailureClass.RESOURCES | FailureClass.PAYLOAD:
            if tries.counted >= tries.allowed:
                return None
            return Retry(_BACKOFF.delay(tries.counted + 1, jitter=jitter), tries.counted + 1, tries.trouble)
        case FailureClass.DATA | FailureClass.CONFIGURATION:
            return None
        case never:
            assert_never(never)
