"""What is said about one observing night."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from ccat_ops_db.plan.numbers import counted


class Place(StrEnum):
    """How far a sub-group of a step is."""

    REDUCED = "reduced"
    """Its newest run has the wanted recipe and inputs."""
    RUNNING = "running"
    RETRIED = "retried"
    """It failed, and is tried again by itself."""
    WAITING = "waiting"
    """There is a run that has not started."""
    WANTED = "wanted"
    """A run has to be created."""
    COOLING = "cooling"
    BLOCKED = "blocked"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What was observed with one instrument of one source."""

    instrument: str | None
    """None as long as no file is registered."""
    source: str
    scans: int
    files: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class StepNight:
    """How many sub-groups with data of the night a step has, and how far they are."""

    pipeline: str
    step: str
    sub_groups: int
    places: Mapping[Place, int]


@dataclass(frozen=True, kw_only=True)
class Hindrance:
    """So many sub-groups or packages of which the same is to be said."""

    where: str
    """`pipeline/step`, `raw packages`, `raw files`, or `scans`."""
    place: str
    number: int
    sentence: str
    """Of the first of them; numbers in those of the others may differ."""


@dataclass(frozen=True, kw_only=True)
class Night:
    """One observing night, as it is now."""

    night: date | None
    """None where nothing was ever observed."""
    scans: int = 0
    going_on: int = 0
    """Scans that have not ended."""
    unarchived: int = 0
    """Scans that ended and are not in the archive as a whole."""
    unseen: int = 0
    """Scans in the archive that no trigger-manager has looked at yet."""
    unreduced: int = 0
    """Scans in the archive that steps which run by themselves have not all reduced."""
    untaken: int = 0
    """Scans in the archive that no step takes which runs by itself."""
    lost: int = 0
    """Raw files that a person said are lost."""
    is_stale: bool = False
    """Whether something changed a while ago that no trigger-manager has looked at."""
    observed: Sequence[Observed] = ()
    packages: Mapping[str, int] = field(default_factory=dict)
    """Raw packages by state; `excluded` are those that are archived, and out of all groupings."""
    steps: Sequence[StepNight] = ()
    """In the order in which they run."""
    hindrances: Sequence[Hindrance] = ()
    """What is in the way, the most frequent first."""

    @property
    def is_complete(self) -> bool:
        """Whether all that was observed is archived, and reduced as far as pipelines take it, of which one does."""
        return not (self.undone or self.is_stale or self.lost) and self.untaken < max(1, self.scans)

    @property
    def undone(self) -> int:
        """Scans that lack something."""
        return self.going_on + self.unarchived + self.unseen + self.unreduced

    @property
    def verdict(self) -> str:
        """The whole in one line."""
        if self.night is None:
            return "nothing was ever observed"
        if not self.scans:
            return "no scan was taken"
        if not self.undone:
            return self._told_of_all()
        lacking = {
            "not ended": self.going_on,
            "not in the archive": self.unarchived,
            "not looked at yet by a trigger-manager": self.unseen,
            "not reduced": self.unreduced,
        }
        told = ", ".join(f"{number:,} {what}" for what, number in lacking.items() if number)
        return f"{self.undone:,} of {self.scans:,} scans not done: {told}"

    def _told_of_all(self) -> str:
        """What is said where every scan is in the archive and none waits for its reduction, as far as is known."""
        what = "its one scan is" if self.scans == 1 else f"all {self.scans:,} scans are"
        if self.untaken == self.scans:
            return f"{what} archived and not reduced, as none is taken by a pipeline that runs by itself"
        reduced = "reduced"
        if self.untaken:
            reduced = f"{self.scans - self.untaken:,} of them reduced; no pipeline that runs by itself takes the others"
        if self.is_stale:
            return (
                f"{what} archived and {reduced}, but what changed since is not looked at yet: is a trigger-manager up?"
            )
        if self.lost:
            return f"{what} archived and {reduced}, but for {counted(self.lost, 'raw file', 'raw files')} lost"
        return f"complete: {what} archived and {reduced}"
