"""Whether a disk has room, and how that is said."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

FRESH: Final = timedelta(minutes=2)
"""What a worker saw longer ago says nothing about now."""
_UNITS: Final = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6))


class SpaceState(StrEnum):
    """What is known of the free space of a location."""

    OK = "ok"
    BELOW_RESERVE = "below reserve"
    UNKNOWN = "unknown"


def is_short(free: int, *, reserve: int) -> bool:
    """Whether nothing more may be put there; `is_short` of the queries is the same in SQL."""
    return free < max(reserve, 1)


def space_state(free: int | None, *, reserve: int, checked_at: datetime | None, now: datetime) -> SpaceState:
    """What is known now, where a worker saw so much free space at a moment, or none ever did."""
    if free is None or checked_at is None or now - checked_at > FRESH:
        return SpaceState.UNKNOWN
    return SpaceState.BELOW_RESERVE if is_short(free, reserve=reserve) else SpaceState.OK


def size(number: int) -> str:
    """So many bytes, for people: two digits are enough."""
    for unit, factor in _UNITS:
        if number >= factor:
            value = number / factor
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"  # noqa: PLR2004 - two digits
    return f"{number} bytes"


def short_sentence(location: str, *, free: int, reserve: int, unseen_since: datetime | None = None) -> str:
    """Why nothing starts at a location; `unseen_since` is when somebody looked last, where that is long ago."""
    there = f"{size(free)} free"
    if unseen_since:
        there += f" (as seen at {unseen_since:%F %H:%M} UTC: no worker has looked since)"
    kept = f"its reserve is {size(reserve)}" if reserve else "nothing can be written there"
    return f"location {location} has {there}, {kept}: nothing is staged or submitted there until more is free"
