"""What differs between two runs: recipe, inputs, execution and results, from values alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

from ccat_ops_db.plan.digests import NOT_INPUTS, Definition
from ccat_ops_db.plan.hiding import hide, seal
from ccat_ops_db.states import DataProductType, InputRole, RunStatus

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands, such as `("baseline", "windows", 0)` in nested parameters."""


class Topic(StrEnum):
    """What two runs are compared in."""

    PLACE = "place"
    """Pipeline, step and sub-group."""
    SOFTWARE = "software"
    PARAMETERS = "parameters"
    VARIABLES = "environment_variables"
    """Those of the config."""
    DEFINITION = "definition"
    """The part of it that changes results."""
    INPUTS = "inputs"
    EXECUTION = "execution"
    """Of the last attempt: host, command, resources, and what else was in its environment."""
    PRODUCTS = "products"
    LOGS = "logs_plots_and_statistics"
    """Products that no step takes, and that often hold times."""
    METRICS = "metrics"


_RECIPE: Final = (Topic.SOFTWARE, Topic.PARAMETERS, Topic.VARIABLES, Topic.DEFINITION)
_MAY_HOLD_SECRETS: Final = (Topic.PARAMETERS, Topic.VARIABLES, Topic.EXECUTION)
_NAMES_OF_ATTEMPT: Final = {
    "WORKFLOW_RUN_ID",
    "WORKFLOW_ATTEMPT",
    "WORKFLOW_PIPELINE_ID",
    "WORKFLOW_SUB_GROUP_KEY",
}
"""Variables that say which attempt it is: they differ always, or with the place."""
_ATTEMPT: Final = "{attempt}"
"""Stands for the directory of an attempt, which is never that of another."""


@dataclass(frozen=True, kw_only=True)
class Software:
    """A software version."""

    name: str
    version: str
    series: str
    content_digest: str


@dataclass(frozen=True)
class Config:
    """A revision of a config."""

    name: str
    revision: int | None
    """None of parameters that a trial set where its step has no config."""
    parameters: Mapping[str, Any]
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """An input; a raw package has no step and no sub-group, and its name is the path."""

    role: InputRole
    name: str = ""
    """How the step calls it, of an auxiliary input."""
    step: str = ""
    sub_group: str = ""
    path: str
    checksum: str | None
    made_by: int | None = None
    """The run, of a product."""
    excluded_pixels: Sequence[str] = ()
    """Of a raw package."""

    @property
    def place(self) -> Path:
        """What it is called in any run that takes it, or its successor."""
        return (self.role, *filter(None, (self.name, self.step, self.sub_group)), self.path)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How an attempt was executed; `directory` is its own, below the base directory."""

    directory: str
    host: str | None
    command: Sequence[str]
    environment: Mapping[str, str]
    resources: Mapping[str, float] = field(default_factory=dict)
    """What it asked the cluster for."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A product."""

    path: str
    type: DataProductType
    checksum: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All of a run that can make a difference."""

    id: int
    status: RunStatus
    finished_at: datetime | None
    pipeline: str
    step: str
    sub_group: Mapping[str, object]
    recipe_digest: str
    software: Software
    config: Config | None
    definition: Definition
    inputs: Sequence[Taken] | None
    """None until they are fixed."""
    last_attempt: Attempt | None
    """None until one was submitted."""
    products: Sequence[Made] | None
    """None unless it has completed."""
    metrics: Mapping[str, float]


class Kind(StrEnum):
    """How a value differs."""

    CHANGED = "changed"
    REMOVED = "removed"
    """Only the first run has it."""
    ADDED = "added"
    """Only the second run has it."""


@dataclass(frozen=True)
class Change:
    """One value that differs; secret ones are hidden."""

    kind: Kind
    path: Path
    old: Any
    new: Any


@dataclass(frozen=True)
class Part:
    """What differs in one topic, and how many values do not."""

    same: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Difference:
    """What differs between two runs; a topic is None where a run has nothing yet that could be compared."""

    before: int
    after: int
    summary: str
    upstream: tuple[int, int] | None
    """Two runs that made one of the inputs that changed: what differs between them tells why."""
    parts: Mapping[Topic, Part | None]


_Facts: TypeAlias = Mapping[Path, Any]


def difference(before: Snapshot, after: Snapshot) -> Difference:
    """What differs, and that in one sentence; what only says which run and attempt it is makes no difference."""
    ours, theirs = _facts(before), _facts(after)
    parts = {topic: _compare(topic, ours[topic], theirs[topic]) for topic in Topic}
    same_recipe = before.recipe_digest == after.recipe_digest
    made_of = ", ".join([*_place(parts), *_made_of(parts, same_recipe=same_recipe)])
    results = _results(parts, same_recipe=same_recipe) or _unfinished(before, after)
    return Difference(before.id, after.id, f"{made_of}; {results}", _makers(before, after), parts)


def _makers(before: Snapshot, after: Snapshot) -> tuple[int, int] | None:
    taken = {one.place: one for one in before.inputs or ()}
    for new in after.inputs or ():
        old = taken.get(new.place)
        if old and old.checksum != new.checksum and old.made_by and new.made_by:
            return old.made_by, new.made_by
    return None


def _facts(run: Snapshot) -> Mapping[Topic, _Facts | None]:
    parameters, variables = (run.config.parameters, run.config.environment) if run.config else ({}, {})
    products = run.products
    return {
        Topic.PLACE: _flat({"pipeline": run.pipeline, "step": run.step, "sub_group": run.sub_group}),
        Topic.SOFTWARE: _fields(run.software),
        Topic.PARAMETERS: _flat(parameters),
        Topic.VARIABLES: _flat(variables),
        Topic.DEFINITION: _definition(run.definition),
        Topic.INPUTS: None if run.inputs is None else _inputs(run.inputs),
        Topic.EXECUTION: _execution(run.last_attempt, variables) if run.last_attempt else None,
        Topic.PRODUCTS: None if products is None else _checksums(one for one in products if one.type not in NOT_INPUTS),
        Topic.LOGS: None if products is None else _checksums(one for one in products if one.type in NOT_INPUTS),
        Topic.METRICS: None if products is None else _metrics(run.metrics, products),
    }


def _flat(value: Any, path: Path = ()) -> dict[Path, Any]:
    """Every value in nested mappings and lists by its path; empty ones are values too."""
    if isinstance(value, Mapping) and (value or not path):
        return {place: leaf for key in sorted(value) for place, leaf in _flat(value[key], (*path, key)).items()}
    if isinstance(value, list) and value:
        return {place: leaf for index, one in enumerate(value) for place, leaf in _flat(one, (*path, index)).items()}
    return {path: value}


def _fields(value: Software | Definition) -> _Facts:
    return {(name,): list(one) if isinstance(one, tuple) else one for name, one in vars(value).items()}


def _definition(definition: Definition) -> _Facts:
    """Rules for auxiliary inputs by their names, and key by key."""
    facts = {place: value for place, value in _fields(definition).items() if place != ("auxiliary",)}
    rules = {
        ("auxiliary", rule["name"], key): value
        for rule in definition.auxiliary
        for key, value in rule.items()
        if key != "name"
    }
    return facts | rules


def _inputs(inputs: Iterable[Taken]) -> _Facts:
    listed = sorted(inputs, key=lambda one: one.place)
    pixels = {(*one.place, "excluded_pixels"): list(one.excluded_pixels) for one in listed if one.excluded_pixels}
    return {one.place: one.checksum for one in listed} | pixels


def _execution(attempt: Attempt, variables: Mapping[str, str]) -> _Facts:
    """Host, command, resources and environment without what the config set, which is told elsewhere."""
    known = seal(variables)
    surroundings: dict[Path, Any] = {
        ("environment", name): value.replace(attempt.directory, _ATTEMPT)
        for name, value in sorted(attempt.environment.items())
        if name not in _NAMES_OF_ATTEMPT and value not in {variables.get(name), known.get(name)}
    }
    command = [word.replace(attempt.directory, _ATTEMPT) for word in attempt.command]
    resources: dict[Path, Any] = {("resources", name): value for name, value in sorted(attempt.resources.items())}
    return {("host",): attempt.host, ("command",): command, **resources, **surroundings}


def _checksums(products: Iterable[Made]) -> _Facts:
    return {(one.path,): one.checksum for one in products}


def _metrics(of_run: Mapping[str, float], products: Iterable[Made]) -> _Facts:
    found: dict[Path, Any] = {(name,): value for name, value in sorted(of_run.items())}
    return found | {(one.path, name): value for one in products for name, value in sorted(one.metrics.items())}


def _compare(topic: Topic, ours: _Facts | None, theirs: _Facts | None) -> Part | None:
    if ours is None or theirs is None:
        return None
    paths = {**ours, **theirs}
    changes = tuple(
        _change(topic, kind, path=path, old=ours.get(path), new=theirs.get(path))
        for path in paths
        if (kind := _kind(path, ours, theirs)) is not None
    )
    return Part(len(paths) - len(changes), changes)


def _kind(path: Path, ours: _Facts, theirs: _Facts) -> Kind | None:
    if path not in theirs:
        return Kind.REMOVED
    if path not in ours:
        return Kind.ADDED
    # As JSON, as the digests of a recipe are: 1, 1.0 and true differ.
    return None if json.dumps(ours[path]) == json.dumps(theirs[path]) else Kind.CHANGED


def _change(topic: Topic, kind: Kind, *, path: Path, old: Any, new: Any) -> Change:
    if topic in _MAY_HOLD_SECRETS:
        old, new = hide(path, old), hide(path, new)
    return Change(kind, path, old, new)


_Parts: TypeAlias = Mapping[Topic, Part | None]


def _place(parts: _Parts) -> list[str]:
    names = {str(one.path[0]).replace("_", "-"): None for one in _changes(parts, Topic.PLACE)}
    return [f"another {name}" for name in names]


def _made_of(parts: _Parts, *, same_recipe: bool) -> list[str]:
    inputs = parts[Topic.INPUTS]
    others = [topic.replace("_", " ") for topic in _RECIPE if _changes(parts, topic)]
    recipe = "the same recipe" if same_recipe else f"another recipe ({', '.join(others)})"
    if inputs is None:
        return [recipe, "inputs that are not fixed yet"]
    if same_recipe and not inputs.changes:
        return ["the same recipe and inputs"]
    return [recipe, "other inputs" if inputs.changes else "the same inputs"]


def _results(parts: _Parts, *, same_recipe: bool) -> str | None:
    """What became of it; None where one of the runs has no products yet."""
    inputs, products = parts[Topic.INPUTS], parts[Topic.PRODUCTS]
    if products is None:
        return None
    differ, number = len(products.changes), products.same + len(products.changes)
    if not differ:
        return "products are byte-identical" if number else "neither made a product that counts as a result"
    verb = "differs" if differ == 1 else "differ"
    found = f"the product {verb}" if number == 1 else f"{differ} of {number} products {verb}"
    if same_recipe and inputs is not None and not inputs.changes:
        return f"yet {found}: the software writes other bytes each time, or depends on its host"
    return found


def _unfinished(before: Snapshot, after: Snapshot) -> str:
    without = [f"run {run.id} has none ({run.status})" for run in (before, after) if run.products is None]
    return f"products are not compared: {' and '.join(without)}"


def _changes(parts: _Parts, topic: Topic) -> tuple[Change, ...]:
    part = parts[topic]
    return part.changes if part else ()
