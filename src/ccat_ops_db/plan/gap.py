"""Whether a sub-group of a step needs a run, and why: decided from values alone.

The words are those of the project's semantics: gap, recipe, cooldown, cut-off, readiness.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from ccat_ops_db.states import RunReason, VersionPolicy


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


@dataclass(frozen=True)
class Recipes:
    """The wanted recipe, and how a completed run's is compared with it."""

    digest: str
    series_digest: str
    policy: VersionPolicy
    version: str


@dataclass(frozen=True)
class CompletedRun:
    """The newest completed run of a sub-group."""

    id: int
    created_at: datetime
    recipe_digest: str
    series_digest: str
    input_digest: str
    version: str
    covers: frozenset[int]
    """Raw packages that went into it, directly or through upstream runs."""


@dataclass(frozen=True)
class AbandonedRun:
    """The newest run of a sub-group that failed for good or was cancelled, where no run completed after it."""

    id: int
    created_at: datetime
    recipe_digest: str
    input_digest: str
    cancelled: bool
    failure: str


@dataclass(frozen=True)
class Upstream:
    """A sub-group of an upstream step that shares packages with ours."""

    step: str
    sub_group: str
    verdict: Verdict
    reason: RunReason | None
    packages: frozenset[int]
    covers: frozenset[int]
    completed_run_id: int | None
    completed_at: datetime | None
    busy: bool
    """Whether a run of it is active."""


@dataclass(frozen=True)
class SubGroup:
    """Everything that the decision on one sub-group depends on."""

    packages: Sequence[Package]
    input_digest: str
    """Digest of the inputs that a run would get now."""
    upstream: Sequence[Upstream]
    used_upstream_runs: frozenset[int]
    """Upstream runs whose products the newest completed run took."""
    last: CompletedRun | None
    abandoned: AbandonedRun | None
    cooldown: timedelta


@dataclass(frozen=True)
class Decision:
    """What is to be done, why in a sentence, and where it matters until when."""

    verdict: Verdict
    because: str
    reason: RunReason | None = None
    cut_off: datetime | None = None
    """A run waits for the packages archived until then, and takes later ones only if they are ready."""
    due: datetime | None = None
    """When the decision changes by itself."""


def decide(sub_group: SubGroup, wanted: Recipes, *, now: datetime) -> Decision:
    """The decision on one sub-group; the order of the questions is that of their weight."""
    gap = _gap(sub_group, wanted)
    if gap is None:
        return _settled(sub_group)
    reason, because = gap
    abandoned = _abandoned(sub_group, wanted)
    if abandoned is not None:
        return abandoned
    cut_off = now if reason is RunReason.RECIPE_CHANGED else _cooldown_end(sub_group, now)
    if cut_off > now:
        text = f"{because}; rests until {cut_off:%H:%M:%S}"
        return Decision(Verdict.COOLING, text, reason, due=cut_off)
    blocker = _blocker(sub_group, cut_off)
    if blocker is not None:
        return Decision(Verdict.BLOCKED, blocker, reason)
    return Decision(Verdict.WANTED, because, reason, cut_off=cut_off)


def _gap(sub_group: SubGroup, wanted: Recipes) -> tuple[RunReason, str] | None:
    last = sub_group.last
    if last is None:
        return RunReason.MISSING, "no run has completed yet"
    if not _same_recipe(last, wanted):
        change = (
            f"version {last.version} → {wanted.version}" if last.version != wanted.version else "config or definition"
        )
        return RunReason.RECIPE_CHANGED, f"recipe changed since run {last.id}: {change}"
    new = [package.name for package in sub_group.packages if package.id not in last.covers]
    if new:
        return RunReason.INPUTS_CHANGED, f"new since run {last.id}: {_some(new)}"
    if sub_group.input_digest != last.input_digest:
        return _changed_inputs(sub_group, last)
    return None


def _changed_inputs(sub_group: SubGroup, last: CompletedRun) -> tuple[RunReason, str]:
    newer = sorted(f"{one.step} {one.sub_group}" for one in _newer(sub_group))
    if newer:
        return RunReason.UPSTREAM_CHANGED, f"new products since run {last.id}: {_some(newer)}"
    return RunReason.INPUTS_CHANGED, f"inputs differ from those of run {last.id}"


def _same_recipe(last: CompletedRun, wanted: Recipes) -> bool:
    match wanted.policy:
        case VersionPolicy.COMPATIBLE:
            return last.series_digest == wanted.series_digest
        case VersionPolicy.EXACT | VersionPolicy.LATEST:
            return last.recipe_digest == wanted.digest
        case never:
            assert_never(never)


def _settled(sub_group: SubGroup) -> Decision:
    unsettled = [one for one in sub_group.upstream if one.verdict is not Verdict.UP_TO_DATE]
    if unsettled:
        return Decision(Verdict.BLOCKED, f"up to date, but {_state(unsettled[0])}")
    return Decision(Verdict.UP_TO_DATE, "recipe and inputs are those of the newest completed run")


def _abandoned(sub_group: SubGroup, wanted: Recipes) -> Decision | None:
    run = sub_group.abandoned
    if run is None or (run.recipe_digest, run.input_digest) != (wanted.digest, sub_group.input_digest):
        return None
    if run.cancelled:
        return Decision(Verdict.CANCELLED, f"run {run.id} with this recipe and these inputs was cancelled")
    return Decision(Verdict.FAILED, f"run {run.id} with this recipe and these inputs failed: {run.failure}")


def _cooldown_end(sub_group: SubGroup, now: datetime) -> datetime:
    covered = sub_group.last.covers if sub_group.last else frozenset()
    changes = [package.archived_at for package in sub_group.packages if package.id not in covered]
    changes += [one.completed_at for one in _newer(sub_group) if one.completed_at is not None]
    runs = [run.created_at for run in (sub_group.last, sub_group.abandoned) if run is not None]
    return max([min(changes, default=now - sub_group.cooldown), *runs]) + sub_group.cooldown


def _newer(sub_group: SubGroup) -> Collection[Upstream]:
    """Upstream sub-groups whose newest completed run is not the one that our last run used."""
    used = sub_group.used_upstream_runs
    return [one for one in sub_group.upstream if one.completed_run_id is not None and one.completed_run_id not in used]


def _blocker(sub_group: SubGroup, cut_off: datetime) -> str | None:
    """What the first package up to the cut-off still waits for upstream; packages that came later do not count."""
    needed = {package.id: package for package in sub_group.packages if package.archived_at <= cut_off}
    for one in sub_group.upstream:
        if one.packages.isdisjoint(needed):
            continue
        waits_for_later_only = one.verdict is not Verdict.UP_TO_DATE and one.reason is RunReason.INPUTS_CHANGED
        if one.verdict is not Verdict.UP_TO_DATE and not waits_for_later_only:
            return _state(one)
        uncovered = [needed[number].name for number in one.packages & needed.keys() if number not in one.covers]
        if uncovered:
            return f"{_state(one)} (needed: {_some(sorted(uncovered))})"
    return None


def _state(one: Upstream) -> str:
    return f"waits for {one.step} {one.sub_group}: {'running' if one.busy else one.verdict.replace('_', ' ')}"


def _some(names: Sequence[str], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
