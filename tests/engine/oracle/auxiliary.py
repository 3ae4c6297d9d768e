"""Auxiliary inputs: what the rules of a step choose, from values alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

Values = tuple[object, ...]


@dataclass(frozen=True)
class Moment:
    """When a package was observed, and what the dimensions that have to agree say of it."""

    at: datetime
    values: Values


@dataclass(frozen=True, kw_only=True)
class Taken:
    """An auxiliary product, and the run that made it."""

    name: str
    place: str
    """The step that gives, as `pipeline/step`."""
    sub_group_key: str
    sub_group: str
    product_id: int
    relative_path: str
    checksum: str
    made: str | None
    counts: bool = True

    @property
    def told(self) -> str:
        return f"{self.name} of {self.place} {self.sub_group}"


@dataclass(frozen=True, kw_only=True)
class Giver:
    """A completed run that may be chosen."""

    run_id: int
    completed_at: datetime
    made: str | None
    products: tuple[Taken, ...]
    seen: tuple[Moment, ...]
    """The packages that it covers."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule of a step, all that it may choose, and the packages as it sees them."""

    name: str
    place: str
    max_age: timedelta
    window: str
    gives_up: bool
    redoes: bool
    givers: Sequence[Giver]
    packages: Mapping[int, Moment]

    def nearest(self, package_id: int) -> Giver | None:
        """The run that was observed nearest to a package; of several the earlier, then the first."""
        ours = self.packages[package_id]
        found = [
            (abs(seen.at - ours.at), seen.at, giver.run_id, giver)
            for giver in self.givers
            for seen in giver.seen
            if all(one.values == ours.values for one in giver.seen) and abs(seen.at - ours.at) <= self.max_age
        ]
        return min(found)[3] if found else None


@dataclass(frozen=True)
class Lacking:
    """Packages for which a rule finds nothing."""

    told: str
    gives_up: bool


@dataclass(frozen=True)
class Auxiliary:
    """What a run of now would take, and how that differs from what the newest run took."""

    inputs: tuple[Taken, ...] = ()
    lacking: tuple[Lacking, ...] = ()
    is_all: bool = False
    """Whether nothing but auxiliary inputs can differ."""
    lost: tuple[str, ...] = ()
    better: tuple[str, ...] = ()
    changes: tuple[tuple[str | None, datetime, int], ...] = field(default=())
    """What was made for packages by rules that redo: its digest, when, and for which package."""
