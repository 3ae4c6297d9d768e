"""Verdicts and reasons, told to people."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, assert_never
from uuid import UUID

from ccat_ops_db.plan import ages
from ccat_ops_db.states import RunReason, Verdict, VersionPolicy


@dataclass(frozen=True)
class Names:
    """The first names of a kind, and how many there are."""

    first: Sequence[str]
    number: int

    def __str__(self) -> str:
        rest = self.number - len(self.first)
        return ", ".join(self.first) + (f" and {rest} more" if rest > 0 else "")


NONE: Final = Names((), 0)


@dataclass(frozen=True)
class Packages:
    """How many packages a sub-group has."""

    number: int = 0
    """Counted only where some packages of the step are left out."""
    left_out: int = 0
    """How many of them a run of now goes without."""
    in_time: int = 0
    """How many of them were there at the cut-off and count there."""
    in_time_ready: int = 0


@dataclass(frozen=True)
class Scan:
    """How far a scan is on its way into the archive."""

    id: UUID
    goes_on: bool
    lacking: int
    """Files that were announced and are not registered."""
    unpacked: int
    """Registered files that are in no package yet."""
    pending: Names
    """Packages that are not ARCHIVED, each with its state."""
    has_failed: bool
    """Whether one of them is FAILED."""

    @property
    def is_stuck(self) -> bool:
        """Whether it does not become complete by itself."""
        return self.has_failed or (bool(self.lacking) and not self.goes_on)


@dataclass(frozen=True)
class Lacking:
    """Packages for which a rule finds no auxiliary input."""

    name: str
    place: str
    """The step that gives, as `pipeline/step`."""
    max_age: timedelta
    packages: Names

    def __str__(self) -> str:
        return f"{self.name} of {self.place} within {ages.told(self.max_age)} of {self.packages}"


@dataclass(frozen=True)
class Auxiliary:
    """What is to be said about auxiliary inputs."""

    lacking: Sequence[Lacking] = ()
    better: Names = NONE
    """What would be taken instead of what the newest run took."""
    lost: Names = NONE
    """What the newest run took that does not count any more."""


@dataclass(frozen=True)
class Wanted:
    """What new work of a step is made with."""

    software: str
    policy: VersionPolicy
    version: str | None
    """None where none is released."""
    series: str | None
    min_fraction: float | None = None
    """Fraction of the packages that must be ready; 0: any one of them, None: all of them."""
    withdrawn_config: str | None = None
    """The config of the step, if what that holds was withdrawn."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is said about a sub-group."""

    verdict: Verdict
    reason: RunReason | None
    due_at: datetime | None = None
    last_run_id: int | None = None
    version: str | None = None
    """Of its newest completed run, as the series."""
    series: str | None = None
    new: Names = NONE
    excluded: Names = NONE
    """Packages of its newest completed run that are excluded now, each with who says so and why."""
    pixels: Names = NONE
    """Packages of which other pixels are left out now, each with these."""
    newer: Names = NONE
    damaged: Names = NONE
    withdrawn_because: str | None = None
    """What the products of its newest completed run were withdrawn for, if they were."""
    waits: Names = NONE
    packages: Packages = Packages()
    auxiliary: Auxiliary = Auxiliary()
    is_given_up: bool = False
    """Whether something of what it waits for upstream was given up."""
    scan: Scan | None = None
    """Of a sub-group that waits for its scan."""
    abandoned_id: int | None = None
    failure: str | None = None


def sentence(told: Told, wanted: Wanted) -> str:
    """Why the verdict is what it is."""
    match told.verdict:
        case Verdict.UP_TO_DATE:
            return _rest(told)
        case Verdict.WANTED:
            return f"{_reason(told, wanted)}{_without(told)}"
        case Verdict.COOLING:
            return f"{_reason(told, wanted)}{_without(told)}; rests until {told.due_at:%H:%M:%S}"
        case Verdict.BLOCKED:
            return _blocker(told, wanted)
        case Verdict.FAILED:
            return _failure(told)
        case Verdict.CANCELLED:
            return f"run {told.abandoned_id} with this recipe and these inputs was cancelled"
        case never:
            assert_never(never)


def _rest(told: Told) -> str:
    if told.last_run_id is None:
        return "none of its packages is selected any more"
    return f"recipe and inputs are those of the newest completed run{_without(told)}"


def _blocker(told: Told, wanted: Wanted) -> str:
    if wanted.version is None:
        which = "its pinned version" if wanted.policy is VersionPolicy.EXACT else "a version"
        return f"waits for {which} of {wanted.software} to be released"
    if wanted.withdrawn_config is not None:
        return f"waits for its config to be changed: {wanted.withdrawn_config} was withdrawn"
    upstream = f"waits for {told.waits}{_enough(told.packages, wanted.min_fraction)}" if told.waits.number else ""
    lacking = f"waits for {_listed(told.auxiliary.lacking)}" if told.auxiliary.lacking else ""
    data = "; ".join(filter(None, [upstream, _missing_of(told.scan)]))
    is_stuck = data and (told.is_given_up or (told.scan and told.scan.is_stuck))
    hint = "`ccat accept` lets it go without" if is_stuck else ""  # of data, never of an auxiliary input
    waits = "; ".join(filter(None, [data, hint, lacking]))
    return waits if told.reason else f"up to date, but {waits}"


def _failure(told: Told) -> str:
    if told.abandoned_id is None:
        return f"given up, for there is no {_listed(told.auxiliary.lacking)}"
    return f"run {told.abandoned_id} with this recipe and these inputs failed: {told.failure or ''}"


def _listed(lacking: Sequence[Lacking]) -> str:
    return ", and ".join(map(str, lacking))


def _without(told: Told) -> str:
    """What a run goes without."""
    packages = told.packages
    return f"; leaves out {packages.left_out} of {packages.number} packages" if packages.left_out else ""


def _enough(packages: Packages, min_fraction: float | None) -> str:
    """How much is there, and how much must be."""
    if min_fraction is None or not packages.in_time:
        return ""
    least = f"{min_fraction * 100:g} %" if min_fraction else "one"
    return f"; {packages.in_time_ready} of {packages.in_time} packages are ready, at least {least} must be"


def _missing_of(scan: Scan | None) -> str:
    """What of a scan is not in the archive yet; empty where all is."""
    if scan is None:
        return ""
    missing = [
        "it goes on" if scan.goes_on else "",
        f"files not registered: {scan.lacking}" if scan.lacking else "",
        f"files not packed: {scan.unpacked}" if scan.unpacked else "",
        f"packages not archived: {scan.pending}" if scan.pending.number else "",
    ]
    told = "; ".join(filter(None, missing))
    return f"waits for scan {scan.id} to be complete: {told}" if told else ""


def _reason(told: Told, wanted: Wanted) -> str:
    return _REASONS[told.reason](told, wanted, f"run {told.last_run_id}") if told.reason else ""


def _input_change(told: Told, run: str) -> str:
    changes = [
        f"new since {run}: {told.new}" if told.new.number else "",
        f"excluded since {run}: {told.excluded}" if told.excluded.number else "",
        f"other pixels are excluded than for {run}, now of {told.pixels}" if told.pixels.number else "",
    ]
    return "; ".join(filter(None, changes)) or f"inputs differ from those of {run}"


def _upstream_change(told: Told, run: str) -> str:
    if told.newer.number:
        return f"new products since {run}: {told.newer}"
    return f"logs, plots or statistics that it takes differ from those of {run}"


def _auxiliary_change(auxiliary: Auxiliary, run: str) -> str:
    if auxiliary.lost.number:
        return f"auxiliary inputs of {run} do not count any more: {auxiliary.lost}"
    if auxiliary.better.number:
        return f"better auxiliary inputs since {run}: {auxiliary.better}"
    return f"auxiliary inputs differ from those of {run}"


def _invalidation(told: Told, run: str) -> str:
    if told.withdrawn_because is not None:
        return f"products of {run} do not count any more: {told.withdrawn_because}"
    return f"products of {run} are damaged or lost: {told.damaged}"


def _recipe_change(told: Told, wanted: Wanted) -> str:
    """What makes the difference: another version of the same series does not, where the policy is `compatible`."""
    same_version = told.version == wanted.version
    if wanted.policy is VersionPolicy.COMPATIBLE:
        same_version = told.series == wanted.series
    return "config or definition" if same_version else f"version {told.version} → {wanted.version}"


_REASONS: Final[Mapping[RunReason, Callable[[Told, Wanted, str], str]]] = {
    RunReason.MISSING: lambda *_: "no run has completed yet",
    RunReason.INPUTS_CHANGED: lambda told, _, run: _input_change(told, run),
    RunReason.RECIPE_CHANGED: lambda told, wanted, run: f"recipe changed since {run}: {_recipe_change(told, wanted)}",
    RunReason.INVALIDATED: lambda told, _, run: _invalidation(told, run),
    RunReason.UPSTREAM_CHANGED: lambda told, _, run: _upstream_change(told, run),
    RunReason.AUXILIARY_CHANGED: lambda told, _, run: _auxiliary_change(told.auxiliary, run),
    RunReason.REQUESTED: lambda *known: f"wanted all the same: nothing changed since {known[-1]}",
}
"""What is said of each reason, given the newest completed run."""
