from collections.abc import Iterable
from graphlib import TopologicalSorter
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo, field_serializer, field_validator, model_validator

from ccat_ops_db.definitions.images import ImageReference
from ccat_ops_db.definitions.limits import Limits
from ccat_ops_db.definitions.steps import Step
from ccat_ops_db.definitions.words import (
    MOST,
    Digest,
    Environment,
    Identifier,
    Json,
    Number,
    Piece,
    Switch,
    Text,
    VersionText,
    WholeNumber,
    not_empty,
)
from ccat_ops_db.plan.schedule import Schedule
from ccat_ops_db.states import Runtime, TriggerType, VersionState


def _names_a_program(command: tuple[str, ...]) -> tuple[str, ...]:
    if not command[0].strip():
        raise ValueError("its first word is empty; it names the program, such as [make-map, --fast]")
    return command


class FixedSource(Piece):
    """A source with fixed coordinates, ICRS, in degrees."""

    name: Text
    ra_deg: Number = Field(ge=0, lt=360)
    dec_deg: Number = Field(ge=-90, le=90)


class Observation(Piece):
    """A planned observation."""

    name: Text
    source: Text
    obs_mode: Text
    line_id: str | None = None


class ObservingProgram(Piece):
    """A survey or project, with its planned observations."""

    short_name: Text
    name: str = ""
    description: str = ""
    observations: tuple[Observation, ...] = ()


class SoftwareVersion(Piece):
    """A released version of a program."""

    version: VersionText
    series: Text
    state: VersionState = VersionState.RELEASED
    runtime: Runtime = Runtime.PROCESS
    command: Annotated[tuple[str, ...], AfterValidator(not_empty), AfterValidator(_names_a_program)]
    environment: Text | None = None
    """Directory of the installed environment; relative to the file that names it."""
    distribution: Text | None = None
    """Installed Python distribution whose RECORD identifies the code."""
    image: Text | None = None
    """Path of a SIF file, relative to the file that names it, or where Apptainer gets it from: `docker://…`."""
    image_digest: Digest | None = None
    """Of an image from `docker://` the digest of its manifest, else SHA-256 of the SIF file."""

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
        if self.image is not None and self.image_digest is not None:
            ImageReference.parse(self.image).confirm(self.image_digest)
        return self


class Software(Piece):
    """A program and its released versions."""

    name: Identifier
    description: str = ""
    versions: tuple[SoftwareVersion, ...] = ()


class Config(Piece):
    """Parameters and environment variables of a program."""

    name: Identifier
    parameters: Json = Field(default_factory=dict)
    environment: Environment = Field(default_factory=dict)


class Grouping(Piece):
    """Which raw packages: those that match all rules."""

    name: Identifier
    description: str = ""
    rules: tuple[Json, ...]


class Pipeline(Piece):
    """Steps over one grouping at one processing location."""

    name: Identifier
    description: str = ""
    grouping: Identifier
    location: str
    trigger: TriggerType = TriggerType.CONTINUOUS
    trigger_config: Schedule | None = Field(default=None, validate_default=True)
    """When a `cron` pipeline is due; the others have none."""
    enabled: Switch = True
    priority: WholeNumber = Field(default=0, ge=-MOST, le=MOST)
    owner: Identifier | None = None
    """The user whose limit its live runs count for; left out: no user's."""
    limits: Limits = Limits()
    steps: Annotated[tuple[Step, ...], AfterValidator(not_empty)]

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

    @field_validator("steps")
    @classmethod
    def _what_is_archived_is_final(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        for step in steps:
            if step.archive and not is_final(step, steps):
                why = "says `products: intermediate`" if step.products else "is depended on by other steps"
                remedy = "take `archive` away" if step.products else "say `products: final` too, or take `archive` away"
                raise ValueError(
                    f"step `{step.key}` says `archive: true`, but {why}, and only final products are archived; {remedy}"
                )
        return steps

    @field_validator("steps")
    @classmethod
    def _what_is_recomputed_is_taken_by_others(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        for step in steps:
            if step.recompute and (why := _why_not_recomputed(step, steps)):
                raise ValueError(f"step `{step.key}` says `recompute: true`, but {why}; take `recompute` away")
        return steps


class Definitions(Piece):
    """Everything that one file may define; every section may be left out."""

    sources: tuple[FixedSource, ...] = ()
    observing_programs: tuple[ObservingProgram, ...] = ()
    software: tuple[Software, ...] = ()
    configs: tuple[Config, ...] = ()
    groupings: tuple[Grouping, ...] = ()
    pipelines: tuple[Pipeline, ...] = ()


def in_order(pipeline: Pipeline) -> list[Step]:
    """Steps in topological order, otherwise as written; raises CycleError."""
    steps = {step.key: step for step in pipeline.steps}
    graph = TopologicalSorter(
        {step.key: [key for key in _before(step, pipeline) if key in steps] for step in pipeline.steps}
    )
    return [steps[key] for key in graph.static_order()]


def _before(step: Step, pipeline: Pipeline) -> list[str]:
    """Steps of the pipeline whose products a step takes."""
    return [*step.depends_on, *(rule.step for rule in step.auxiliary if rule.pipeline == pipeline.name)]


def _why_not_recomputed(step: Step, steps: Iterable[Step]) -> str | None:
    if not any(step.key in other.depends_on for other in steps):
        return "no step depends on it that would have its products made again"
    if step.products == "final":
        return "its products are final: they are kept for people, and go only as `retention_days` says"
    return None


def is_final(step: Step, steps: Iterable[Step]) -> bool:
    """Whether the products of a step are final: as it says, else if none of the steps depends on it."""
    if step.products is not None:
        return step.products == "final"
    return not any(step.key in other.depends_on for other in steps)
