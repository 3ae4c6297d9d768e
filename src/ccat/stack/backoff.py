"""When to start a process again that died."""

from datetime import timedelta

from ccat_service.retries import Backoff

HEALTHY_AFTER = timedelta(seconds=60)
"""A process that lived this long is not in a crash loop."""
_BACKOFF = Backoff(first=timedelta(seconds=1), ceiling=timedelta(seconds=30))


def quick_deaths(before: int, lived: timedelta) -> int:
    """How many times in a row it died young, now that it has died once more after `lived`."""
    return 0 if lived >= HEALTHY_AFTER else before + 1


def restart_delay(quick_deaths: int) -> timedelta:
    """At once the first time, then 1, 2, 4 … 30 s."""
    if quick_deaths <= 1:
        return timedelta(0)
    return _BACKOFF.delay(quick_deaths - 1, jitter=1)
