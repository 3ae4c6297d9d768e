"""How fast bytes go: over the time in which they came, and not over the hours before there were any."""

from datetime import datetime, timedelta
from typing import Final

WINDOW: Final = timedelta(hours=6)
"""What "of late" means."""
SHORT: Final = timedelta(minutes=30)
"""In which it shows that something has become faster."""
_LEAST: Final = timedelta(minutes=15)
"""Over so long a rate is taken at least: one file that has just come is none."""
_HOUR: Final = timedelta(hours=1)


def per_hour(size: int, since: datetime | None, *, now: datetime, window: timedelta = WINDOW) -> int:
    """Bytes an hour, where so many came within a window, and the first of them, or of those before, at `since`."""
    span = window if since is None else min(max(now - since, _LEAST), window)
    return round(size / (span / _HOUR))


def worse_per_hour(of_late: int, just_now: int, since: datetime, *, now: datetime) -> int:
    """Bytes an hour by which a disk fills: over the whole window, or over the last half an hour if that is more."""
    return max(per_hour(of_late, since, now=now), per_hour(just_now, since, now=now, window=SHORT))


def hours_until_full(free: int | None, filled_per_hour: int | None) -> float | None:
    """How long there is room; None where that is not known, or nothing fills it."""
    return round(free / filled_per_hour, 1) if free is not None and filled_per_hour and filled_per_hour > 0 else None
