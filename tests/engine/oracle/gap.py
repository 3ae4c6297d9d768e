"""Whether a sub-group of a step needs a run, and why: decided from values alone.

The words are those of the project's semantics: gap, recipe, cooldown, cut-off, readiness.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from ccat_ops_db.states import RunReason, VersionPolicy
from tests.engine.oracle.auxiliary import Auxiliary


class Verdict(StrEnum):
    """What is to be done about a sub-group."""

    UP_TO_DATE = "up_to_date"
    WANTED = "wanted"
    COOLING = "cooling"
    BLOCKED = "blocked"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Package:
    """A usable raw package of a sub-group."""

    id: int
    name: str
    archived_at: datetime
    pixels: tuple[str, ...] = ()
    """Those that are left out."""


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """The wanted recipe, and how a completed run's is compared with it."""

    digest: str
    series_digest: str
    policy: VersionPolicy
    version: str
    series: str
    since: datetime
    """When it came to be wanted."""


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run that is over."""

    id: int
    created_at: datetime
    recipe_digest: str
    input_digest: str
    covers: frozenset[int]
    """Raw packages that went into it, directly or through upstream runs."""
    took: frozenset[str]
    """What went into it from upstream: for each sub-group the digest of what was made there."""


@dataclass(frozen=True, kw_only=True)
class CompletedRun(PastRun):
    """The newest completed run of a sub-group."""

    series_digest: str
    version: str
    series: str
    damaged: tuple[str, ...] = ()
    """Products of it that have no sound copy left, though nobody deleted them, or do not count any more."""
    withdrawn: str | None = None
    """What some of them were withdrawn for."""
    excluded: tuple[str, ...] = ()
    """Packages of it that are excluded now, and why."""
    pixels: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Those that it left out of each raw package that it took itself."""


@dataclass(frozen=True, kw_only=True)
class AbandonedRun(PastRun):
    """The last run of a sub-group with its recipe and inputs, which failed for good or was cancelled."""

    cancelled: bool
    failure: str


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """A sub-group of an upstream step that shares packages with ours."""

    step: str
    sub_group: str
    verdict: Verdict
    packages: frozenset[int]
    ready: frozenset[int]
    """Those of its packages that its products cover as they are wanted now."""
    given_up: frozenset[int]
    """Those that are not ready and do not become it by themselves."""
    made: str | None
    """Digest of what its newest completed run made; None where there is none, or it made nothing for others."""
    completed_at: datetime | None
    busy: bool
    """Whether a run of it is active."""


@dataclass(frozen=True, kw_only=True)
class Waits:
    """What a step waits for: everything, unless it says otherwise."""

    omits: bool = False
    min_fraction: float | None = None
    for_scan: bool = False


@dataclass(frozen=True)
class Scan:
    """What a scan lacks."""

    missing: str
    is_stuck: bool


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Packages that a run of now goes without."""

    omitted: frozenset[int] = frozenset()
    awaited: frozenset[int] = frozenset()

    @property
    def all(self) -> frozenset[int]:
        return self.omitted | self.awaited


@dataclass(frozen=True)
class Request:
    """What a tick or a wish wants of a sub-group."""

    created_at: datetime
    is_forced: bool


@dataclass(frozen=True, kw_only=True)
class SubGroup:
    """Everything that the decision on one sub-group depends on."""

    packages: Sequence[Package]
    input_digest: str
    """Digest of the inputs that a run would get now."""
    upstream: Sequence[Upstream]
    last: CompletedRun | None
    abandoned: Sequence[AbandonedRun]
    rests: bool
    """Whether it is run by itself, and not only when a tick or a wish comes."""
    cooldown: timedelta
    waits: Waits
    left_out: LeftOut
    scan: "Scan | None"
    """What its scan lacks, where the step waits for that."""
    has_inputs: bool
    """Whether a run would get anything now."""
    auxiliary: Auxiliary = field(default_factory=Auxiliary)
    faded: frozenset[int]
    """Packages that left only because of a relative time: nothing is made without them for that alone."""
    request: Request | None = None


@dataclass(frozen=True)
class Decision:
    """What is to be done, why in a sentence, and where it matters until when."""

    verdict: Verdict
    because: str
    reason: RunReason | None = None
    """What makes a run necessary; None where none is."""
    cut_off: datetime | None = None
    """A run waits for the packages archived until then, and takes later ones only if they are ready."""
    due: datetime | None = None
    """When the decision changes by itself."""


def left_out(
    packages: Collection[Package], upstream: Sequence[Upstream], waits: Waits, *, accepted: frozenset[int]
) -> LeftOut:
    """Packages of a sub-group that a run of now goes without."""
    ours = {package.id for package in packages}
    unready = frozenset[int]().union(*(one.packages - one.ready for one in upstream)) & ours
    given_up = frozenset[int]().union(*(one.given_up for one in upstream)) & ours
    omitted = (given_up if waits.omits else frozenset()) | unready & accepted
    return LeftOut(omitted=omitted, awaited=unready - omitted if waits.min_fraction is not None else frozenset())


def given_up(sub_group: SubGroup, verdict: Verdict, covered: frozenset[int]) -> frozenset[int]:
    """Packages that are not ready and do not become it by themselves: a run of them was given up, here or upstream."""
    unready = frozenset(package.id for package in sub_group.packages) - covered
    if verdict in {Verdict.FAILED, Verdict.CANCELLED}:
        return unready
    return unready.intersection(frozenset[int]().union(*(one.given_up for one in sub_group.upstream)))


def decide(sub_group: SubGroup, wanted: Recipes, *, now: datetime) -> Decision:
    """The decision on one sub-group; the order of the questions is that of their weight."""
    gap = _gap(sub_group, wanted)
    if gap is None:
        return _settled(sub_group)
    reason, because = gap
    abandoned = _abandoned(sub_group, wanted, reason)
    if abandoned is not None:
        return abandoned
    cut_off = _cut_off(sub_group, wanted)
    if cut_off is not None and cut_off > now:
        return Decision(
            Verdict.COOLING, f"{because}{_without(sub_group)}; rests until {cut_off:%H:%M:%S}", reason, due=cut_off
        )
    blocker, lacking = _blocker(sub_group, cut_off), sub_group.auxiliary.lacking
    if blocker is not None or sub_group.scan is not None or any(not one.gives_up for one in lacking):
        return Decision(Verdict.BLOCKED, _blocked(sub_group, blocker, cut_off), reason)
    if lacking:
        return Decision(Verdict.FAILED, f"given up, for there is no {_lacking(sub_group)}", reason)
    return Decision(Verdict.WANTED, f"{because}{_without(sub_group)}", reason, cut_off=cut_off)


def ready(sub_group: SubGroup, wanted: Recipes | None) -> frozenset[int]:
    """Packages that its products cover as they are wanted now, so that steps further down need not wait for them.

    Where only later packages are missing, the products of those before still count. `wanted` is None where no version
    is released: then nothing better is to be had than what there is.
    """
    last, packages = sub_group.last, frozenset(package.id for package in sub_group.packages)
    if last is None or last.damaged or (wanted is not None and not _same_recipe(last, wanted)):
        return frozenset()
    if sub_group.input_digest == last.input_digest:
        covered = packages
    elif sub_group.auxiliary.lost:
        covered = frozenset()
    else:  # where nothing is new, and nothing has faded, what it was made of has changed
        moved_on = packages - last.covers - sub_group.left_out.all or _has_faded(sub_group, last)
        moved_on = moved_on and not _other_pixels(sub_group, last)
        covered = packages & last.covers if moved_on else frozenset()
    return covered.difference(*(one.packages - one.ready for one in sub_group.upstream))


def _gap(sub_group: SubGroup, wanted: Recipes) -> tuple[RunReason, str] | None:
    last = sub_group.last
    if last is None:
        return RunReason.MISSING, "no run has completed yet"
    if not _same_recipe(last, wanted):
        return RunReason.RECIPE_CHANGED, f"recipe changed since run {last.id}: {_recipe_change(last, wanted)}"
    if last.withdrawn:
        return RunReason.INVALIDATED, f"products of run {last.id} do not count any more: {last.withdrawn}"
    if last.damaged:
        return RunReason.INVALIDATED, f"products of run {last.id} are damaged or lost: {_some(last.damaged)}"
    change = None if sub_group.input_digest == last.input_digest else _input_change(sub_group, last)
    if change is None and sub_group.request is not None and sub_group.request.is_forced:
        return RunReason.REQUESTED, f"wanted all the same: nothing changed since run {last.id}"
    return change


def _input_change(sub_group: SubGroup, last: CompletedRun) -> tuple[RunReason, str] | None:
    new = [package.name for package in _taken(sub_group) if package.id not in last.covers]
    pixels = _other_pixels(sub_group, last)
    if new or pixels:
        return RunReason.INPUTS_CHANGED, _told_change(last, new, pixels)
    newer = sorted(f"{one.step} {one.sub_group}" for one in _newer(sub_group, last.took))
    if newer:
        return RunReason.UPSTREAM_CHANGED, f"new products since run {last.id}: {_some(newer)}"
    if sub_group.auxiliary.is_all:
        return RunReason.AUXILIARY_CHANGED, _auxiliary_change(sub_group.auxiliary, last)
    if _has_faded(sub_group, last) and not sub_group.auxiliary.lost:
        return None
    return RunReason.INPUTS_CHANGED, _told_change(last, [], [])


def _told_change(last: CompletedRun, new: Sequence[str], pixels: Sequence[str]) -> str:
    told = [f"new since run {last.id}: {_some(new)}"] if new else []
    told += [f"excluded since run {last.id}: {_some(last.excluded)}"] if last.excluded else []
    told += [f"other pixels are excluded than for run {last.id}, now of {_some(pixels)}"] if pixels else []
    return "; ".join(told) or f"inputs differ from those of run {last.id}"


def _other_pixels(sub_group: SubGroup, last: CompletedRun) -> list[str]:
    """Packages of which other pixels are left out than were."""
    return [
        f"{one.name}: {', '.join(one.pixels) or 'none'}"
        for one in _taken(sub_group)
        if one.id in last.pixels and one.pixels != last.pixels[one.id]
    ]


def _auxiliary_change(auxiliary: Auxiliary, last: CompletedRun) -> str:
    if auxiliary.lost:
        return f"auxiliary inputs of run {last.id} do not count any more: {_some(auxiliary.lost)}"
    if auxiliary.better:
        return f"better auxiliary inputs since run {last.id}: {_some(auxiliary.better)}"
    return f"auxiliary inputs differ from those of run {last.id}"


def _lacking(sub_group: SubGroup) -> str:
    return ", and ".join(one.told for one in sub_group.auxiliary.lacking)


def _has_faded(sub_group: SubGroup, last: CompletedRun) -> bool:
    """Whether packages are gone, each because of a relative time only."""
    gone = last.covers.difference(package.id for package in sub_group.packages)
    return bool(gone) and gone <= sub_group.faded


def _recipe_change(last: CompletedRun, wanted: Recipes) -> str:
    """What makes the difference: another version of the same series does not, where the policy is `compatible`."""
    same_version = last.version == wanted.version
    if wanted.policy is VersionPolicy.COMPATIBLE:
        same_version = last.series == wanted.series
    return "config or definition" if same_version else f"version {last.version} → {wanted.version}"


def _same_recipe(last: CompletedRun, wanted: Recipes) -> bool:
    match wanted.policy:
        case VersionPolicy.COMPATIBLE:
            return last.series_digest == wanted.series_digest
        case VersionPolicy.EXACT | VersionPolicy.LATEST:
            return last.recipe_digest == wanted.digest
        case never:
            assert_never(never)


_SAME = "recipe and inputs are those of the newest completed run"


def _settled(sub_group: SubGroup) -> Decision:
    blocker = _blocker(sub_group, None)
    if blocker is not None:
        return Decision(Verdict.BLOCKED, f"up to date, but {blocker}{_hint(sub_group, None)}")
    return Decision(Verdict.UP_TO_DATE, f"{_SAME}{_without(sub_group)}")


def _abandoned(sub_group: SubGroup, wanted: Recipes, reason: RunReason) -> Decision | None:
    for run in sub_group.abandoned:
        if sub_group.request is not None and run.created_at <= sub_group.request.created_at:
            continue
        if (run.recipe_digest, run.input_digest) == (wanted.digest, sub_group.input_digest):
            what = f"run {run.id} with this recipe and these inputs"
            if run.cancelled:
                return Decision(Verdict.CANCELLED, f"{what} was cancelled", reason)
            return Decision(Verdict.FAILED, f"{what} failed: {run.failure}", reason)
    return None


def _cut_off(sub_group: SubGroup, wanted: Recipes) -> datetime | None:
    """End of the cooldown, which runs from the first change since the last run or from the creation of that run.

    The first run of all waits besides for what was there when it was defined. A recipe that no run has tried yet does
    not wait, nor does what is requested. None where nothing has happened but to what is omitted, and where that waits
    for a request.
    """
    if sub_group.request is not None:
        return sub_group.request.created_at
    if not sub_group.rests:
        return None
    runs = _since_completed(sub_group)
    if runs and not _was_tried(runs[-1], wanted):
        return max(wanted.since, runs[-1].created_at)
    covered = frozenset[int]().union(*(run.covers for run in runs))
    took = frozenset[str]().union(*(run.took for run in runs))
    counted = [package for package in sub_group.packages if package.id not in sub_group.left_out.omitted]
    changes = [package.archived_at for package in counted if package.id not in covered]
    # An upstream sub-group that none of ours was in before came with its package, whenever it was completed.
    changes += [one.completed_at for one in _newer(sub_group, took) if one.completed_at and one.packages & covered]
    changes += [at for made, at, package in sub_group.auxiliary.changes if made not in took and package in covered]
    begins = [*([min(changes)] if changes else []), *(run.created_at for run in runs)]
    if not begins:
        return None
    rested = max(begins) + sub_group.cooldown
    return rested if runs else max(rested, wanted.since)


def _since_completed(sub_group: SubGroup) -> list[PastRun]:
    """The newest completed run, and those that were abandoned after it; the oldest first."""
    last = sub_group.last
    after = [run for run in sub_group.abandoned if last is None or run.id > last.id]
    return sorted([*([last] if last else []), *after], key=lambda run: run.id)


def _was_tried(run: PastRun, wanted: Recipes) -> bool:
    return _same_recipe(run, wanted) if isinstance(run, CompletedRun) else run.recipe_digest == wanted.digest


def _newer(sub_group: SubGroup, took: Collection[str]) -> Collection[Upstream]:
    """Upstream sub-groups that made something else than what was taken."""
    taken = {package.id for package in _taken(sub_group)}
    return [one for one in sub_group.upstream if one.packages & taken and one.made is not None and one.made not in took]


def _taken(sub_group: SubGroup) -> Sequence[Package]:
    return [package for package in sub_group.packages if package.id not in sub_group.left_out.all]


def _blocker(sub_group: SubGroup, cut_off: datetime | None) -> str | None:
    """What the packages of the cut-off still wait for upstream; None where enough of them is ready."""
    in_time = {one.id for one in sub_group.packages if cut_off is None or one.archived_at <= cut_off}
    left_out, least = sub_group.left_out, sub_group.waits.min_fraction
    is_empty = bool(left_out.all) and not sub_group.has_inputs
    counted = in_time - left_out.omitted
    ready = counted - left_out.awaited
    waits = _awaiting(sub_group, in_time if is_empty else counted)
    is_enough = not waits if least is None else len(ready) >= least * len(counted)
    if is_enough and not is_empty:
        return None
    blocker = f"waits for {_some([_state(one) for one in waits])}"
    if least is None or not counted:
        return blocker
    must = f"{least * 100:g} %" if least else "one"
    return f"{blocker}; {len(ready)} of {len(counted)} packages are ready, at least {must} must be"


def _blocked(sub_group: SubGroup, blocker: str | None, cut_off: datetime | None) -> str:
    scan, hint = sub_group.scan, _hint(sub_group, cut_off) if blocker is not None or sub_group.scan is not None else ""
    lacking = f"waits for {_lacking(sub_group)}" if sub_group.auxiliary.lacking else None
    data = "; ".join(filter(None, [blocker, scan.missing if scan else None]))
    hint = hint or (_HINT if scan and scan.is_stuck else "")
    return "; ".join(filter(None, [f"{data}{hint}", lacking]))


_HINT = "; `ccat accept` lets it go without"


def _hint(sub_group: SubGroup, cut_off: datetime | None) -> str:
    """What a person may do where something that is waited for was given up."""
    in_time = {one.id for one in sub_group.packages if cut_off is None or one.archived_at <= cut_off}
    counted = in_time - sub_group.left_out.omitted
    return _HINT if any(one.given_up & counted for one in sub_group.upstream) else ""


def _awaiting(sub_group: SubGroup, packages: Collection[int]) -> list[Upstream]:
    return [one for one in sub_group.upstream if (one.packages - one.ready).intersection(packages)]


def _without(sub_group: SubGroup) -> str:
    number = len(sub_group.left_out.all)
    return f"; leaves out {number} of {len(sub_group.packages)} packages" if number else ""


def _state(one: Upstream) -> str:
    verdict = "incomplete" if one.verdict is Verdict.UP_TO_DATE else one.verdict.replace("_", " ")
    return f"{one.step} {one.sub_group} ({'running' if one.busy else verdict})"


def _some(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
