"""The gap of a pipeline: every sub-group of every step with its decision, from facts alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from uuid import UUID

from ccat_ops_db.grouping.keys import DimensionValue, SubGroupName, name_sub_group
from ccat_ops_db.plan.digests import NOT_INPUTS, Definition, Input, Recipe, input_digest, made_digest, recipe
from ccat_ops_db.states import DataProductType, InputRole, VersionPolicy
from tests.engine.oracle.auxiliary import Auxiliary, Giver, Lacking, Rule, Taken
from tests.engine.oracle.gap import (
    AbandonedRun,
    CompletedRun,
    Decision,
    Package,
    Recipes,
    Request,
    Scan,
    SubGroup,
    Upstream,
    Verdict,
    Waits,
    decide,
    given_up,
    left_out,
    ready,
)

Place = tuple[int, str]
"""Step id and sub-group key: where runs belong."""


@dataclass(frozen=True)
class PackageFacts:
    """A usable package, and what the dimensions say of it."""

    package: Package
    checksum: str
    values: Mapping[str, DimensionValue]


@dataclass(frozen=True)
class ProductFacts:
    """A current product of a completed run."""

    id: int
    relative_path: str
    checksum: str
    type: DataProductType


@dataclass(frozen=True)
class CompletedFacts:
    """The newest completed run of a sub-group, with what it used and made."""

    run: CompletedRun
    completed_at: datetime
    products: tuple[ProductFacts, ...]


@dataclass(frozen=True)
class ScanFacts:
    """What of a scan is not in the archive."""

    id: UUID
    lacks: tuple[str, ...]
    """What is in no package, in words."""
    lacks_files: bool
    """Whether it has ended, and announced files are not registered."""
    pending: Mapping[int, tuple[str, str]]
    """Packages on their way: name and state."""


@dataclass(frozen=True)
class VersionFacts:
    """The software version that new work uses."""

    id: int
    version: str
    content_digest: str
    series: str


@dataclass(frozen=True)
class StepFacts:
    """A step as its pipeline's current revision defines it."""

    id: int
    revision_id: int
    key: str
    group_by: tuple[str, ...]
    upstream: tuple[str, ...]
    takes_raw: bool
    cooldown: timedelta
    software: str
    policy: VersionPolicy
    version: VersionFacts | None
    config_revision_id: int | None
    config_digest: str | None
    since: datetime
    """When version and definition came to be what they are."""
    rule_digests: tuple[Mapping[str, object], ...] = ()
    waits: Waits = field(default_factory=Waits)
    rules: tuple[Rule, ...] = ()
    withdrawn_config: str | None = None

    @cached_property
    def recipe(self) -> Recipe | None:
        """What a run would be made with now; None where no version is released, or the config was withdrawn."""
        if self.version is None or self.withdrawn_config is not None:
            return None
        return recipe(
            self.software,
            version_digest=self.version.content_digest,
            series=self.version.series,
            config_digest=self.config_digest,
            definition=Definition(self.group_by, self.upstream, self.takes_raw, self.rule_digests),
        )


@dataclass(frozen=True)
class Facts:
    """All that the gap of one pipeline depends on. Steps stand in topological order."""

    pipeline_id: int
    location_id: int
    priority: int
    steps: tuple[StepFacts, ...]
    packages: tuple[PackageFacts, ...]
    faded: frozenset[int]
    """Packages that left only because of a relative time in the rules."""
    completed: Mapping[Place, CompletedFacts]
    abandoned: Mapping[Place, Sequence[AbandonedRun]]
    active: Mapping[Place, int]
    scans: Mapping[int, ScanFacts]
    """The scan of every package."""
    accepted: Mapping[Place, frozenset[int]]
    """Packages that people let a sub-group go without."""
    auxiliary: Mapping[Place, Sequence[Taken]] = field(default_factory=dict)
    """Auxiliary inputs of the newest completed runs."""
    requests: Mapping[Place, Request] = field(default_factory=dict)
    rests: bool = True
    """Whether runs are created at every change."""


@dataclass(frozen=True)
class Candidate:
    """A sub-group of a step: what is decided, and what a run of it would get now."""

    step: StepFacts
    name: SubGroupName
    packages: tuple[PackageFacts, ...]
    decision: Decision
    ready: frozenset[int]
    """Packages that its products cover as they are wanted now."""
    given_up: frozenset[int]
    """Packages that are not ready and do not become it by themselves."""
    raw_package_ids: tuple[int, ...]
    product_ids: tuple[int, ...]
    input_digest: str
    active_run_id: int | None
    lost_inputs: bool
    """Whether an upstream product that it takes is damaged or lost, and has to be made again first."""


Evaluated = Mapping[str, Mapping[int, Candidate]]
"""Step key → package id → the candidate that holds the package."""


def evaluate(facts: Facts, *, now: datetime) -> list[Candidate]:
    """Every sub-group of every step, in topological order of the steps."""
    candidates: list[Candidate] = []
    evaluated: dict[str, dict[int, Candidate]] = {}
    for step in facts.steps:
        of_step = [
            _candidate(facts, step, name=name, members=members, evaluated=evaluated, now=now)
            for name, members in divide(facts.packages, step.group_by)
        ]
        evaluated[step.key] = {member.package.id: one for one in of_step for member in one.packages}
        candidates += of_step
    return candidates


def divide(
    packages: Iterable[PackageFacts], group_by: Sequence[str]
) -> list[tuple[SubGroupName, tuple[PackageFacts, ...]]]:
    """Packages divided into sub-groups, each with its name; sorted by key."""
    groups: dict[str, tuple[SubGroupName, list[PackageFacts]]] = {}
    for one in packages:
        name = name_sub_group([(dimension, one.values[dimension]) for dimension in group_by])
        groups.setdefault(name.key, (name, []))[1].append(one)
    return [(name, tuple(members)) for _, (name, members) in sorted(groups.items())]


def _candidate(
    facts: Facts,
    step: StepFacts,
    *,
    name: SubGroupName,
    members: tuple[PackageFacts, ...],
    evaluated: Evaluated,
    now: datetime,
) -> Candidate:
    place = (step.id, name.key)
    upstream = [_upstream(facts, source) for source in _sources(step, members, evaluated)]
    accepted = facts.accepted.get(place)
    without = left_out([member.package for member in members], upstream, step.waits, accepted=accepted or frozenset())
    taken = [member for member in members if member.package.id not in without.all]
    sources = _sources(step, taken, evaluated)
    raw = taken if step.takes_raw else ()
    products = _products(facts, sources)
    data = [*map(_raw_input, raw), *(_upstream_input(*one) for one in products)]
    completed = facts.completed.get(place)
    auxiliary = _auxiliary(facts, step, place, taken=taken, data=data)
    inputs = [*data, *map(_auxiliary_entry, auxiliary.inputs)]
    digest = input_digest(inputs)
    sub_group = SubGroup(
        packages=[member.package for member in members],
        input_digest=digest,
        upstream=upstream,
        last=completed.run if completed else None,
        abandoned=facts.abandoned.get(place, ()),
        rests=facts.rests,
        cooldown=step.cooldown,
        waits=step.waits,
        left_out=without,
        scan=_lacking(facts, members, accepted) if step.waits.for_scan else None,
        has_inputs=bool(inputs),
        auxiliary=auxiliary,
        faded=facts.faded,
        request=facts.requests.get(place),
    )
    wanted = _recipes(step)
    decision = decide(sub_group, wanted, now=now) if wanted else _unreleased(step)
    request, active = facts.requests.get(place), facts.active.get(place)
    is_made_again = request is not None and request.is_forced and (decision.verdict is Verdict.WANTED or bool(active))
    covered = frozenset[int]() if is_made_again else ready(sub_group, wanted)
    return Candidate(
        step=step,
        name=name,
        packages=members,
        decision=decision,
        ready=covered,
        given_up=given_up(sub_group, decision.verdict, covered),
        raw_package_ids=tuple(member.package.id for member in raw),
        product_ids=tuple(product.id for _, product in products),
        input_digest=digest,
        active_run_id=facts.active.get(place),
        lost_inputs=any(_is_damaged(facts, source) for source in sources),
    )


def _auxiliary(
    facts: Facts, step: StepFacts, place: Place, *, taken: Sequence[PackageFacts], data: Sequence[Input]
) -> Auxiliary:
    """What a run of now takes by the rules of its step."""
    completed, before = facts.completed.get(place), facts.auxiliary.get(place, ())
    found = [(rule, member.package, rule.nearest(member.package.id)) for rule in step.rules for member in taken]
    nearest = {one for rule, _, giver in found if giver for one in giver.products}
    mixed = {one for one in before if one.name not in {rule.name for rule in step.rules if rule.redoes}}
    mixed |= {one for rule, _, giver in found if giver and rule.redoes for one in giver.products}
    lost = [one for one in before if not one.counts]
    request = facts.requests.get(place)
    keeps = (
        completed is not None
        and not (request is not None and request.is_forced)
        and _same_recipe(step, completed.run)
        and not completed.run.damaged
        and not lost
        and {rule.name for rule, _, giver in found if giver} <= {one.name for one in before}
        and all(member.package.id in completed.run.covers for member in taken)
        and input_digest([*data, *map(_auxiliary_entry, mixed)]) == completed.run.input_digest
    )
    digest = input_digest([*data, *map(_auxiliary_entry, before)])
    known = {(one.name, one.made) for one in before}
    return Auxiliary(
        inputs=tuple(mixed if keeps else nearest),
        lacking=tuple(one for rule in step.rules if (one := _without_any(rule, found))),
        is_all=bool(step.rules) and completed is not None and digest == completed.run.input_digest,
        lost=tuple(sorted({one.told for one in lost})),
        better=tuple(sorted({one.told for one in (mixed if keeps else nearest) if (one.name, one.made) not in known})),
        changes=tuple(
            (giver.made, giver.completed_at, package.id) for rule, package, giver in found if giver and rule.redoes
        ),
    )


def _same_recipe(step: StepFacts, last: CompletedRun) -> bool:
    if step.recipe is None:
        return True
    if step.policy is VersionPolicy.COMPATIBLE:
        return last.series_digest == step.recipe.series_digest
    return last.recipe_digest == step.recipe.digest


def _without_any(rule: Rule, found: Iterable[tuple[Rule, Package, Giver | None]]) -> Lacking | None:
    names = [package.name for of, package, giver in found if of is rule and giver is None]
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    told = f"{rule.name} of {rule.place} within {rule.window} of {', '.join(names[:3])}{rest}"
    return Lacking(told, rule.gives_up) if names else None


def _auxiliary_entry(one: Taken) -> Input:
    key = f"{one.name}={one.place}"
    return Input(InputRole.AUXILIARY, key, one.sub_group_key, one.relative_path, one.checksum)


def _lacking(facts: Facts, members: Iterable[PackageFacts], accepted: frozenset[int] | None) -> Scan | None:
    """What the scan of a sub-group lacks; None where that is nothing, or was accepted."""
    scan = facts.scans[next(iter(members)).package.id]
    pending = {number: one for number, one in scan.pending.items() if number not in (accepted or ())}
    names = [f"{name} ({state})" for name, state in pending.values()]
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    lacks = [*(scan.lacks if accepted is None else ())]
    lacks += [f"packages not archived: {', '.join(names[:3])}{rest}"] if names else []
    has_failed = any(state == "failed" for _, state in pending.values())
    is_stuck = has_failed or (scan.lacks_files and accepted is None)
    return Scan(f"waits for scan {scan.id} to be complete: {'; '.join(lacks)}", is_stuck) if lacks else None


def _is_damaged(facts: Facts, source: Candidate) -> bool:
    completed = facts.completed.get((source.step.id, source.name.key))
    return completed is not None and bool(completed.run.damaged)


def _recipes(step: StepFacts) -> Recipes | None:
    wanted = step.recipe
    if wanted is None or step.version is None:
        return None
    return Recipes(
        digest=wanted.digest,
        series_digest=wanted.series_digest,
        policy=step.policy,
        version=step.version.version,
        series=step.version.series,
        since=step.since,
    )


def _unreleased(step: StepFacts) -> Decision:
    if step.version is not None:
        return Decision(Verdict.BLOCKED, f"waits for its config to be changed: {step.withdrawn_config} was withdrawn")
    which = "its pinned version" if step.policy is VersionPolicy.EXACT else "a version"
    return Decision(Verdict.BLOCKED, f"waits for {which} of {step.software} to be released")


def _sources(step: StepFacts, members: Iterable[PackageFacts], evaluated: Evaluated) -> list[Candidate]:
    """Upstream candidates that share packages with ours."""
    found = {
        (key, evaluated[key][member.package.id].name.key): evaluated[key][member.package.id]
        for member in members
        for key in step.upstream
    }
    return [found[place] for place in sorted(found)]


def _products(facts: Facts, sources: Iterable[Candidate]) -> list[tuple[Candidate, ProductFacts]]:
    return [
        (source, product)
        for source in sources
        if (completed := facts.completed.get((source.step.id, source.name.key)))
        for product in completed.products
        if product.type not in NOT_INPUTS
    ]


def _raw_input(member: PackageFacts) -> Input:
    return Input(InputRole.RAW, "", "", member.package.name, member.checksum, member.package.pixels)


def _upstream_input(source: Candidate, product: ProductFacts) -> Input:
    return Input(InputRole.UPSTREAM, source.step.key, source.name.key, product.relative_path, product.checksum)


def _made(source: Candidate, products: Iterable[ProductFacts]) -> str | None:
    inputs = ((one.relative_path, one.checksum) for one in products if one.type not in NOT_INPUTS)
    return made_digest(source.step.id, source.name.key, inputs)


def _upstream(facts: Facts, source: Candidate) -> Upstream:
    completed = facts.completed.get((source.step.id, source.name.key))
    return Upstream(
        step=source.step.key,
        sub_group=source.name.path,
        verdict=source.decision.verdict,
        packages=frozenset(member.package.id for member in source.packages),
        ready=source.ready,
        given_up=source.given_up,
        made=_made(source, completed.products) if completed else None,
        completed_at=completed.completed_at if completed else None,
        busy=source.active_run_id is not None,
    )
