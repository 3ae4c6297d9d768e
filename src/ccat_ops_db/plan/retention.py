"""Which copies may go, when, and what hinders the others. SQL finds the facts; what they mean is decided here."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from ccat_ops_db.plan.spaces import FRESH
from ccat_ops_db.states import LocationType

CACHE_DAYS: Final = 7
"""Days that what is in an archive too is kept in a buffer, or staged, where its location does not say."""
INTERMEDIATE_DAYS: Final = 30
"""Days that products of an intermediate step are kept that does not say; those of a final one are kept for ever."""
SCRUBBED_AFTER: Final = timedelta(days=180)
"""After which an archive reads a copy again, where it does not say."""
MAY_BE_BEHIND: Final = timedelta(days=30)
"""With that; what an archive has not read for longer, no other archive relies on."""
AWAY_AFTER: Final = timedelta(hours=1)
"""After which an archive is away that no worker has seen: a restart takes less."""
REPLACED_AFTER: Final = timedelta(days=7)
"""After which copies in an archive that is away are made anew in another: to mend a disk, or move it, takes less."""
HIGH: Final = 0.9
LOW: Final = 0.8
_CACHES: Final = (LocationType.BUFFER, LocationType.PROCESSING)


class Kind(StrEnum):
    """What a copy is to those who make room."""

    SOURCE = "source"
    """A raw file as its instrument wrote it."""
    BUFFER = "buffer"
    """A tar on its way."""
    STAGED = "staged"
    """An unpacked raw package where runs are."""
    PRODUCT = "product"
    ARCHIVED = "archived"
    """A raw package in a long-term archive."""
    ARCHIVED_PRODUCT = "archived_product"
    RECOMPUTABLE = "recomputable"
    """A product that a step takes, and that is made again when it does."""


class Obstacle(StrEnum):
    """Why a copy may not go, the weightiest first."""

    UNPACKED = "unpacked"
    NOT_ARCHIVED = "not_archived"
    NO_COPY_LEFT = "no_copy_left"
    TOO_FEW_COPIES = "too_few_copies"
    ARCHIVES_AWAY = "archives_away"
    NOT_READ_LATELY = "not_read_lately"
    SHARED_PATH = "shared_path"
    LAST_SOUND_COPY = "last_sound_copy"
    COUNTS = "counts"
    MADE_ANEW = "made_anew"
    BEING_READ = "being_read"
    BEING_STAGED = "being_staged"
    IN_USE = "in_use"
    AWAITED = "awaited"
    WANTED = "wanted"


_SAID: Final[Mapping[Obstacle, str]] = {
    Obstacle.UNPACKED: "it is in no package yet",
    Obstacle.NOT_ARCHIVED: "its package is not archived yet",
    Obstacle.NO_COPY_LEFT: "NO copy of its package is known anywhere any more, though it was archived",
    Obstacle.TOO_FEW_COPIES: "there are fewer verified archive copies than its data class asks for",
    Obstacle.ARCHIVES_AWAY: "archives that have it are away: they cannot be read, or no worker has looked for an hour",
    Obstacle.NOT_READ_LATELY: "other archives that have it are out of use or away, or have not read it lately",
    Obstacle.SHARED_PATH: "another registered file has the same path there",
    Obstacle.LAST_SOUND_COPY: "no other copy of it is known to be sound",
    Obstacle.COUNTS: "it is the archive copy of a product that counts",
    Obstacle.MADE_ANEW: "it is brought back where another copy of it is sound",
    Obstacle.BEING_READ: "a transfer reads it",
    Obstacle.BEING_STAGED: "a staging job asks for it",
    Obstacle.IN_USE: "an active run takes it",
    Obstacle.AWAITED: "a run that is to come takes it",
    Obstacle.WANTED: "a step of an enabled pipeline takes it",
}
OF_SAFETY: Final = frozenset(
    {
        Obstacle.UNPACKED,
        Obstacle.NOT_ARCHIVED,
        Obstacle.NO_COPY_LEFT,
        Obstacle.TOO_FEW_COPIES,
        Obstacle.ARCHIVES_AWAY,
        Obstacle.NOT_READ_LATELY,
        Obstacle.SHARED_PATH,
        Obstacle.LAST_SOUND_COPY,
        Obstacle.COUNTS,
    }
)
"""They count also once a removal was begun, when nobody can use the copy any more."""


class Term(StrEnum):
    """Whether a copy was kept for as long as it should be."""

    OVER = "over"
    AHEAD = "ahead"
    NEVER = "never"


@dataclass(frozen=True)
class Keeping:
    """How long a location keeps copies, and how full it may be; None is for ever, and any."""

    days: int | None
    high: float | None = None
    low: float | None = None


def keeping(location_type: LocationType, *, days: int | None, high: float | None, low: float | None) -> Keeping:
    """What holds at a location that says so much; None: what is usual for its type.

    Copies of what an archive has are kept for a week, and go when the disk is full. What an instrument wrote stays,
    and what is archived, until a person has said for how long.
    """
    is_cache = location_type in _CACHES
    days = CACHE_DAYS if days is None and is_cache else days
    if high is None and low is None:
        return Keeping(days, *((HIGH, LOW) if is_cache else (None, None)))
    high = HIGH if high is None else high
    return Keeping(days, high, min(LOW, high) if low is None else low)


@dataclass(frozen=True, kw_only=True)
class Space:
    """What a worker saw of a disk."""

    free: int | None
    total: int | None
    checked_at: datetime | None


def room_to_make(keeping: Keeping, space: Space, *, now: datetime) -> int:
    """Bytes that have to go for a disk above its high mark to come down to the low one; 0 where nobody looked."""
    if not space.total or space.free is None or space.checked_at is None or now - space.checked_at > FRESH:
        return 0
    if keeping.high is None or keeping.low is None or space.total - space.free <= keeping.high * space.total:
        return 0
    return max(0, round((1 - keeping.low) * space.total) - space.free)


def hindered(obstacle: Obstacle) -> str:
    """Why a copy stays, as half a sentence."""
    return _SAID[obstacle]


def kept(term: Term) -> str:
    """Why a copy stays that nothing hinders from going, as half a sentence."""
    return "it is kept for ever" if term is Term.NEVER else "its time is not over"


def goes(kind: Kind, *, for_room: bool) -> str:
    """Why a copy goes, as a sentence of the history."""
    what = {
        Kind.SOURCE: "its package is archived and verified",
        Kind.BUFFER: "what it holds is archived and verified",
        Kind.STAGED: "nobody uses it, and an archive has it",
        Kind.PRODUCT: "nobody uses it",
        Kind.ARCHIVED: "other archives have as many verified copies as it needs",
        Kind.ARCHIVED_PRODUCT: "it does not count any more",
        Kind.RECOMPUTABLE: "its step makes it again when a run takes it",
    }
    return f"{what[kind]}, and {'the disk is above its high mark' if for_room else 'its time is over'}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Copies at a location of which the same is to be said."""

    kind: Kind
    obstacle: Obstacle | None
    term: Term
    copies: int
    bytes: int

    @property
    def may_go(self) -> bool:
        """Whether nothing but its time keeps them."""
        return self.obstacle is None


@dataclass(frozen=True, kw_only=True)
class Line:
    """What is told of copies at a location."""

    kind: Kind
    copies: int
    bytes: int
    goes: bool
    why: str

    def __add__(self, other: "Line") -> "Line":
        """Both, of which the same is told."""
        return replace(self, copies=self.copies + other.copies, bytes=self.bytes + other.bytes)


def lines(groups: Iterable[Group], for_room: Iterable[Group], *, paused: str | None) -> Iterator[Line]:
    """What becomes of the copies at a location, and why; `for_room` are those of them that go before their time.

    Copies of which the same is told are one line.
    """
    told: dict[tuple[Kind, bool, str], Line] = {}
    for line in _lines(groups, for_room, paused=paused):
        before = told.get(key := (line.kind, line.goes, line.why))
        told[key] = before + line if before else line
    return iter(told.values())


def _lines(groups: Iterable[Group], for_room: Iterable[Group], *, paused: str | None) -> Iterator[Line]:
    early = {(one.kind, one.term): one for one in for_room}
    for one in early.values():
        yield _line(one, goes_because=goes(one.kind, for_room=True), paused=paused)
    for one in groups:
        taken = early.get((one.kind, one.term)) if one.may_go else None
        rest = one if taken is None else replace(one, copies=one.copies - taken.copies, bytes=one.bytes - taken.bytes)
        is_over = one.may_go and one.term is Term.OVER
        if rest.copies:
            yield _line(rest, goes_because=goes(one.kind, for_room=False) if is_over else None, paused=paused)


def _line(group: Group, *, goes_because: str | None, paused: str | None) -> Line:
    kept_because = hindered(group.obstacle) if group.obstacle else kept(group.term)
    if goes_because and paused:
        goes_because, kept_because = None, f"deleting is paused there: {paused}"
    return Line(
        kind=group.kind,
        copies=group.copies,
        bytes=group.bytes,
        goes=goes_because is not None,
        why=goes_because or kept_because,
    )
