"""Definitions as code: what people write in YAML, checked piece by piece. Pure."""

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Final, Literal, TypeVar

from packaging.version import InvalidVersion, Version
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from ccat_ops_db.errors import CcatError
from ccat_ops_db.grouping.checking import Catalogue, check_rules
from ccat_ops_db.grouping.presets import Preset, expand
from ccat_ops_db.grouping.rules import InvalidRule, parse_rules
from ccat_ops_db.naming import list_problems, nearest
from ccat_ops_db.plan.schedule import Schedule
from ccat_ops_db.states import InputReadiness, OnFailedInput, Runtime, TriggerType, VersionPolicy, VersionState, WaitFor

_IDENTIFIER: Final = r"[a-z0-9]([a-z0-9_.-]*[a-z0-9])?"
Item = TypeVar("Item")


def _pep440(version: str) -> str:
    try:
        Version(version)
    except InvalidVersion as error:
        raise ValueError(f"`{version}` is no version by PEP 440, such as 1.2.0") from error
    return version


def _json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"it has a value that JSON cannot hold: {error}") from error
    return found


def _identifier(name: str) -> str:
    if not re.fullmatch(_IDENTIFIER, name):
        raise ValueError(f"`{name}` is no identifier: lower-case letters, digits, `_`, `.` and `-` make one")
    return name


def _not_empty(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if not values:
        raise ValueError("it is empty")
    return values


Identifier = Annotated[str, Field(max_length=100), AfterValidator(_identifier)]
VersionText = Annotated[str, AfterValidator(_pep440)]
Json = Annotated[dict[str, Any], AfterValidator(_json)]
_A_YEAR: Final = timedelta(days=366)


class _Piece(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FixedSource(_Piece):
    """A source with fixed coordinates, ICRS, in degrees."""

    name: str
    ra_deg: float = Field(ge=0, lt=360)
    dec_deg: float = Field(ge=-90, le=90)


class Observation(_Piece):
    """A planned observation."""

    name: str
    source: str
    obs_mode: str
    line_id: str | None = None


class ObservingProgram(_Piece):
    """A survey or project, with its planned observations."""

    short_name: str
    name: str = ""
    description: str = ""
    observations: tuple[Observation, ...] = ()


class SoftwareVersion(_Piece):
    """A released version of a program."""

    version: VersionText
    series: str
    state: VersionState = VersionState.RELEASED
    runtime: Runtime = Runtime.PROCESS
    command: Annotated[tuple[str, ...], AfterValidator(_not_empty)]
    environment: str | None = None
    """Directory of the installed environment; relative to the file that names it."""
    distribution: str | None = None
    """Installed Python distribution whose RECORD identifies the code."""
    image: str | None = None
    image_digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _has_what_its_runtime_needs(self) -> "SoftwareVersion":
        needed, other = (
            (("environment", "distribution"), ("image", "image_digest"))
            if self.runtime is Runtime.PROCESS
            else (("image", "image_digest"), ("environment", "distribution"))
        )
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"runtime {self.runtime} needs `{name}`")
        for name in other:
            if getattr(self, name) is not None:
                raise ValueError(f"runtime {self.runtime} takes no `{name}`")
        return self


class Software(_Piece):
    """A program and its released versions."""

    name: Identifier
    description: str = ""
    versions: tuple[SoftwareVersion, ...] = ()


class Config(_Piece):
    """Parameters and environment variables of a program."""

    name: Identifier
    parameters: Json = {}
    environment: dict[str, str] = {}


class Grouping(_Piece):
    """Which raw packages: those that match all rules."""

    name: Identifier
    description: str = ""
    rules: tuple[Json, ...]


class Resources(_Piece):
    """What a run asks the cluster for."""

    cpu: int = Field(default=1, ge=1)
    memory_gb: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    time_hours: float = Field(default=1.0, gt=0, le=_A_YEAR / timedelta(hours=1))


class Step(_Piece):
    """One program applied to every sub-group."""

    key: Identifier
    name: str = ""
    group_by: tuple[str, ...]
    cooldown_seconds: int = Field(default=0, ge=0, le=int(_A_YEAR.total_seconds()))
    software: Identifier
    version_policy: VersionPolicy = VersionPolicy.COMPATIBLE
    version: VersionText | None = None
    config: Identifier | None = None
    depends_on: tuple[Identifier, ...] = ()
    inputs: tuple[Literal["raw", "upstream"], ...] | None = None
    on_failed_input: OnFailedInput = OnFailedInput.BLOCK
    """Whether packages are waited for that were given up upstream."""
    readiness: InputReadiness = InputReadiness.COMPLETE
    min_fraction: float | None = Field(default=None, gt=0, le=1)
    """Of readiness `available`: fraction of the packages that must be ready; left out: any one of them."""
    wait_for: WaitFor | None = None
    products: Literal["final", "intermediate"] | None = None
    required_outputs: tuple[str, ...] = ()
    resources: Resources = Resources()
    max_retries: int = Field(default=1, ge=0)
    retention_days: int | None = Field(default=None, ge=0)

    @property
    def takes_raw(self) -> bool:
        """Whether raw packages are inputs; a dependent step gets upstream products only, unless it says otherwise."""
        return "raw" in self.inputs if self.inputs is not None else not self.depends_on

    @model_validator(mode="after")
    def _version_goes_with_its_policy(self) -> "Step":
        if (self.version_policy is VersionPolicy.EXACT) != (self.version is not None):
            raise ValueError("`version` is given with `version_policy: exact`, and only then")
        return self

    @model_validator(mode="after")
    def _upstream_is_an_input_where_there_is_any(self) -> "Step":
        if self.inputs is not None and ("upstream" in self.inputs) != bool(self.depends_on):
            raise ValueError("`inputs` names `upstream` where `depends_on` names a step, and only then")
        if self.inputs == ():
            raise ValueError("`inputs` is empty; leave it out, or name `raw`, `upstream` or both")
        return self

    @model_validator(mode="after")
    def _readiness_is_that_of_what_it_depends_on(self) -> "Step":
        if self.min_fraction is not None and self.readiness is not InputReadiness.AVAILABLE:
            raise ValueError("`min_fraction` goes with `readiness: available`; write that too, or leave it out")
        for name in ("on_failed_input", "readiness"):
            if not self.depends_on and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` is about what `depends_on` names, and it names nothing; leave it out")
        return self

    @model_validator(mode="after")
    def _only_a_step_by_scan_waits_for_it(self) -> "Step":
        if self.wait_for is WaitFor.SCAN_COMPLETE and "executed_obs_unit" not in self.group_by:
            raise ValueError("`wait_for: scan_complete` needs `executed_obs_unit` in `group_by`")
        return self


class Pipeline(_Piece):
    """Steps over one grouping at one processing location."""

    name: Identifier
    description: str = ""
    grouping: Identifier
    location: str
    trigger: TriggerType = TriggerType.CONTINUOUS
    trigger_config: Schedule | None = Field(default=None, validate_default=True)
    """When a `cron` pipeline is due; the others have none."""
    enabled: bool = True
    priority: int = 0
    steps: Annotated[tuple[Step, ...], AfterValidator(_not_empty)]

    @field_validator("trigger_config", mode="before")
    @classmethod
    def _schedule_goes_with_cron(cls, written: Any, info: ValidationInfo) -> Any:
        trigger = info.data.get("trigger")  # none where it is refused itself
        if written in (None, {}):
            if trigger is TriggerType.CRON:
                raise ValueError(
                    '`trigger: cron` needs one, such as {cron: "30 18 * * *", time_zone: America/Santiago}'
                )
            return None
        if trigger in (TriggerType.CONTINUOUS, TriggerType.MANUAL):
            raise ValueError(f"`trigger: {trigger}` takes none; leave it out, or write `trigger: cron`")
        return written

    @field_serializer("trigger_config")
    def _schedule_is_kept_as_a_mapping(self, schedule: Schedule | None) -> dict[str, str]:
        return schedule.model_dump() if schedule else {}


class Definitions(_Piece):
    """Everything that one file may define; every section may be left out."""

    sources: tuple[FixedSource, ...] = ()
    observing_programs: tuple[ObservingProgram, ...] = ()
    software: tuple[Software, ...] = ()
    configs: tuple[Config, ...] = ()
    groupings: tuple[Grouping, ...] = ()
    pipelines: tuple[Pipeline, ...] = ()


class InvalidDefinition(CcatError):
    """A definition file that cannot be applied; nothing of it was."""

    code = "invalid_definition"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join([*problems, "Nothing was applied."]))
        self.problems = tuple(problems)


def parse_definitions(
    document: Any, *, catalogue: Catalogue, dimensions: Sequence[str], presets: Mapping[str, Preset]
) -> Definitions:
    """Checked definitions, in which presets are filled in.

    Raises InvalidDefinition with all problems at once, each with its place in the file.
    """
    with suppress(RecursionError):  # what contains itself is refused below, where it is not allowed to be at all
        if unwritable := [f"{place}: it has a character that cannot be kept." for place in _unwritable(document, ())]:
            raise InvalidDefinition(unwritable)
    try:
        definitions = Definitions.model_validate(document or {})
    except ValidationError as error:
        raise InvalidDefinition([_problem(detail) for detail in error.errors()]) from error
    groupings, problems = _with_rules_of(presets, definitions.groupings, catalogue)
    definitions = definitions.model_copy(update={"groupings": groupings})
    problems += _repeated_names(definitions)
    for index, pipeline in enumerate(definitions.pipelines):
        problems += _pipeline_problems(pipeline, f"pipelines[{index}]", dimensions)
    if problems:
        raise InvalidDefinition(problems)
    return definitions


_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")
"""NUL, and halves of surrogate pairs: no database keeps them."""


def _unwritable(value: Any, place: tuple[str | int, ...]) -> Iterator[str]:
    """Places of text that cannot be kept."""
    if isinstance(value, str) and _UNWRITABLE.search(value):
        yield _place(place) or "file"
    elif isinstance(value, dict):
        yield from _unwritable(list(value), place)
        for key, inner in value.items():
            yield from _unwritable(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unwritable(inner, (*place, index))


_SENTENCES: Final = {
    "missing": "it is missing",
    "tuple_type": "it must be a list",
    "dict_type": "it must be a mapping",
    "model_type": "it must be a mapping",
}
"""What Pydantic says in terms of Python, in those of YAML."""


def _problem(detail: Any) -> str:
    place = _place(detail["loc"])
    if detail["type"] == "extra_forbidden":
        *parent, key = detail["loc"]
        return f"{_place(parent) or 'file'}: unknown key `{key}`.{nearest(str(key), _keys_at(parent))}"
    if detail["type"] == "string_type" and isinstance(detail["input"], int | float):
        return f"{place}: {detail['input']} is a number here; write it in quotes."
    message = _SENTENCES.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    stop = "" if message.endswith((".", "?")) else "."
    return f"{place or 'file'}: {message[0].lower()}{message[1:]}{stop}"


def _place(parts: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def _keys_at(parts: Sequence[str | int]) -> Sequence[str]:
    """Keys that a mapping at this place of the file may have."""
    model: type[BaseModel] = Definitions
    for part in parts:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            inner = getattr(annotation, "__args__", (annotation,))[0]
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return list(model.model_fields)


def _repeated_names(definitions: Definitions) -> Iterator[str]:
    for section in ("sources", "software", "configs", "groupings", "pipelines"):
        yield from _repeated((f"{section}[{i}].name", one.name) for i, one in enumerate(getattr(definitions, section)))
    programs = list(enumerate(definitions.observing_programs))
    yield from _repeated((f"observing_programs[{i}].short_name", one.short_name) for i, one in programs)
    yield from _repeated(
        (f"observing_programs[{i}].observations[{j}].name", observation.name)
        for i, one in programs
        for j, observation in enumerate(one.observations)
    )
    for i, software in enumerate(definitions.software):
        versions = enumerate(software.versions)
        yield from _repeated((f"software[{i}].versions[{j}].version", Version(one.version)) for j, one in versions)


def _repeated(names: Iterable[tuple[str, Hashable]]) -> Iterator[str]:
    seen = set()
    for place, name in names:
        if name in seen:
            yield f"{place}: `{name}` is defined twice."
        seen.add(name)


def _with_rules_of(
    presets: Mapping[str, Preset], groupings: Iterable[Grouping], catalogue: Catalogue
) -> tuple[tuple[Grouping, ...], list[str]]:
    """The groupings with their presets filled in, and what is wrong with their rules."""
    filled, problems = [], []
    for index, grouping in enumerate(groupings):
        where = f"groupings[{index}].rules"
        try:
            rules = expand(grouping.rules, presets, where=where)
            check_rules(parse_rules(rules, where=where), catalogue)
            filled.append(grouping.model_copy(update={"rules": tuple(rules)}))
        except InvalidRule as error:
            problems.append(str(error))
    return tuple(filled), problems


def _pipeline_problems(pipeline: Pipeline, where: str, dimensions: Sequence[str]) -> Iterator[str]:
    keys = [step.key for step in pipeline.steps]
    for index, step in enumerate(pipeline.steps):
        place = f"{where}.steps[{index}]"
        if step.key in keys[:index]:
            yield f"{place}.key: `{step.key}` is used twice in pipeline `{pipeline.name}`."
        yield from list_problems(step.group_by, f"{place}.group_by", known=dimensions, what="dimension")
        yield from list_problems(step.depends_on, f"{place}.depends_on", known=keys, what="step")
    try:
        in_order(pipeline)
    except CycleError as error:
        yield f"{where}.steps: the steps depend on each other in a circle: {' → '.join(error.args[1])}."


def in_order(pipeline: Pipeline) -> list[Step]:
    """Steps in topological order, otherwise as written; raises CycleError."""
    steps = {step.key: step for step in pipeline.steps}
    graph = TopologicalSorter({step.key: [key for key in step.depends_on if key in steps] for step in pipeline.steps})
    return [steps[key] for key in graph.static_order()]


def is_final(step: Step, pipeline: Pipeline) -> bool:
    """Whether the products of a step are final: as it says, else if nothing depends on it."""
    if step.products is not None:
        return step.products == "final"
    return not any(step.key in other.depends_on for other in pipeline.steps)
