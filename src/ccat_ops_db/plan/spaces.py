"""Whether a disk has room and can be written, and how that is said."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from errno import EDQUOT, EEXIST, ENOENT, ENOMEDIUM, ENOTDIR
from typing import Final

from ccat_ops_db.plan.marks import MARK

FRESH: Final = timedelta(minutes=2)
"""What a worker saw longer ago says nothing about now."""
_MISSING: Final = ("is missing", "mount or make it")
_KNOWN: Final[Mapping[int, tuple[str, str]]] = {
    ENOENT: _MISSING,
    ENOTDIR: _MISSING,
    EEXIST: ("has another directory", "`ccat location move` says where its files lie now"),
    ENOMEDIUM: ("lies on another disk", f"mount its own, or make an empty file {MARK} there if this is it"),
    EDQUOT: ("has no disk quota left", "free some of what its user has there, or have the quota raised"),
}
"""What an error of the system means for a location, and what to do."""
UNWRITTEN: Final = ("cannot be written", "make it writable")
UNREAD: Final = ("cannot be read", "let the user of its workers read it")
_UNITS: Final = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6))


class SpaceState(StrEnum):
    """What is known of a location, and of the free space there."""

    OK = "ok"
    BELOW_RESERVE = "below reserve"
    UNUSABLE = "unusable"
    UNKNOWN = "unknown"


def is_short(free: int, *, reserve: int) -> bool:
    """Whether nothing more may be put there; `is_short` of the queries is the same in SQL."""
    return free < max(reserve, 1)


def space_state(
    free: int | None,
    *,
    reserve: int,
    checked_at: datetime | None,
    now: datetime,
    trouble: str | None = None,
    stands: bool = False,
) -> SpaceState:
    """What is known now, where a worker saw so much free space, or trouble, at a moment, or none ever did.

    Trouble that `stands` holds until somebody sees that it is over, and the moment is when it was seen well last.
    """
    if trouble is not None and stands:
        return SpaceState.UNUSABLE
    if checked_at is None or now - checked_at > FRESH:
        return SpaceState.UNKNOWN
    if trouble is not None or free is None:
        return SpaceState.UNUSABLE
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
    there = f"{size(free)} free{_since(unseen_since)}"
    kept = f"its reserve is {size(reserve)}" if reserve else "nothing can be written there"
    return f"location {location} has {there}, {kept}: nothing is staged or submitted there until more is free"


def trouble_of(error: OSError, *, host: str, usually: tuple[str, str] = UNWRITTEN) -> str:
    """What the matter is with a location where a worker could not write, or do what `usually` says, and what to do."""
    what, then = _KNOWN.get(error.errno or 0, usually)
    return f"{what} on {host}: {error.strerror or error}: {error.filename}; {then}"


def without_inodes(*, host: str) -> str:
    """What the matter is with a location whose file system has no free inodes, and what to do."""
    return (
        f"has no free inodes on {host}: its file system takes no more files; remove small files that nobody needs, or "
        "have it made with more inodes"
    )


def trouble_sentence(location: str, trouble: str, *, unseen_since: datetime | None = None) -> str:
    """Why nothing starts at a location where a worker could not write; `unseen_since` as of `short_sentence`."""
    return f"location {location} {trouble}: nothing is staged or submitted there until then{_since(unseen_since)}"


def away_sentence(location: str, trouble: str, *, since: datetime | None) -> str:
    """What keeps all from reading and writing at a location where no runs are, and since when it was not seen well."""
    then = f" (since {since:%F %H:%M} UTC)" if since else ""
    return f"location {location} {trouble}: nothing is read or written there until then{then}"


def unwritten_sentence(location: str, trouble: str) -> str:
    """What keeps all from writing at a location where no runs are, while what lies there is read."""
    return f"location {location} {trouble}: nothing is written there until then"


def _since(unseen_since: datetime | None) -> str:
    return f" (as seen at {unseen_since:%F %H:%M} UTC: no worker has looked since)" if unseen_since else ""
