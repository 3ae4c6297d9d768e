"""How many runs may be live or created, and which have to wait."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

_MINUTE: Final = timedelta(minutes=1)


class Scope(StrEnum):
    """Which live runs a limit counts together, in the order in which limits are asked."""

    REDO = "redo"
    """Those of a pipeline that do again what was done before."""
    PIPELINE = "pipeline"
    USER = "user"
    """Those of all pipelines that exist on the authority of a user."""
    LOCATION = "location"


_COUNTED: Final = {
    Scope.REDO: "runs of pipeline `{}` that redo",
    Scope.PIPELINE: "runs of pipeline `{}`",
    Scope.USER: "runs of user `{}`",
    Scope.LOCATION: "runs at `{}`",
}


@dataclass(frozen=True)
class Limit:
    """How many runs may be live together, and how many are."""

    scope: Scope
    id: int
    """Of the pipeline, user or location."""
    name: str
    most: int
    live: int = 0

    @property
    def room(self) -> int:
        """How many more may become live."""
        return max(0, self.most - self.live)

    @property
    def counted(self) -> str:
        """Which runs it counts, in words."""
        return _COUNTED[self.scope].format(self.name)

    @property
    def sentence(self) -> str:
        """How far it is used."""
        return f"{self.live} of {self.most} {self.counted} are live"


@dataclass(frozen=True)
class Occupant:
    """What limits see of a run."""

    pipeline_id: int
    location_id: int
    user_id: int | None
    is_redo: bool

    def counted(self) -> Mapping[Scope, int]:
        """By which limits it is counted: scope and id."""
        ids = {
            Scope.REDO: self.pipeline_id if self.is_redo else None,
            Scope.PIPELINE: self.pipeline_id,
            Scope.USER: self.user_id,
            Scope.LOCATION: self.location_id,
        }
        return {scope: number for scope, number in ids.items() if number is not None}


@dataclass(frozen=True)
class Limits:
    """All limits on live runs, and what they leave at one moment."""

    live: Sequence[Limit] = ()
    closed: Mapping[int, str] = field(default_factory=dict)
    """Pipelines that may not redo now, by id, with the sentence that says when they may."""
    opens_at: datetime | None = None
    """When the first of these may."""
    short: Mapping[int, str] = field(default_factory=dict)
    """Locations whose disk has no room, by id, with the sentence that says so."""

    def __bool__(self) -> bool:
        return bool(self.live or self.closed or self.short)

    def full(self, scope: Scope) -> Mapping[int, str]:
        """What leaves no room: id → why."""
        full = {one.id: one.sentence for one in self.live if one.scope is scope and not one.room}
        closed = {Scope.REDO: self.closed, Scope.LOCATION: self.short}.get(scope, {})
        return {**full, **closed}

    def rooms(self, scope: Scope) -> Mapping[int, int]:
        """What leaves some room: id → how much."""
        return {one.id: one.room for one in self.live if one.scope is scope and one.room}


class Room:
    """What limits leave, while runs are let in one after the other."""

    def __init__(self, limits: Limits) -> None:
        self._limits = {(one.scope, one.id): one for one in limits.live}
        self._closed = limits.closed
        self._short = limits.short
        self._let_in: Counter[tuple[Scope, int]] = Counter()

    def take(self, run: Occupant) -> str | None:
        """Let a run in, and count it; where there is no room for it, say why."""
        counted = run.counted()
        closed = self._closed.get(counted.get(Scope.REDO, 0)) or self._short.get(run.location_id)
        if closed:
            return closed
        for place in counted.items():
            limit = self._limits.get(place)
            if limit is not None and limit.room <= self._let_in[place]:
                return replace(limit, live=limit.live + self._let_in[place]).sentence
        self._let_in.update(counted.items())
        return None


@dataclass(frozen=True)
class Minute:
    """The runs of a pipeline that were created within the last minute: when, and how many."""

    created: Mapping[datetime, int]

    def until(self, now: datetime) -> "Minute":
        """The same, without those that are older than a minute."""
        return Minute({at: number for at, number in self.created.items() if at + _MINUTE > now})

    def with_more(self, number: int, now: datetime) -> "Minute":
        """The same, and those that are created now."""
        return Minute({**self.created, now: self.created.get(now, 0) + number})

    def left(self, most: int) -> int:
        """How many may be created now."""
        return max(0, most - sum(self.created.values()))

    def full_until(self, most: int) -> datetime | None:
        """When more may be created, where none may now."""
        return None if self.left(most) or not self.created else min(self.created) + _MINUTE
