"""The steps of a pipeline as its current revision defines them, and what a run of each would be made with now."""

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import Final, NamedTuple

import sqlalchemy as sa
from packaging.version import Version
from pydantic import ValidationError
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, joinedload

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.grouping.checking import check_rules
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.rules import AllOf, InvalidRule, parse_rules
from ccat_ops_db.plan.digests import Definition, Recipe, auxiliary_rule, content_digest, recipe
from ccat_ops_db.plan.schedule import Schedule
from ccat_ops_db.sets import is_given
from ccat_ops_db.states import (
    DataProductType,
    OnFailedInput,
    OnMissing,
    TriggerType,
    VersionPolicy,
    WaitFor,
)

_STATE: Final = sa.text("""
    SELECT r.id, r.created_at, r::text, p.priority, CAST(p.limits ->> 'created_per_minute' AS integer),
        g.filter_rules::text,
        ARRAY(SELECT s::text FROM reduction_step_revision s WHERE s.pipeline_revision_id = r.id ORDER BY s.position),
        ARRAY(SELECT v.id FROM reduction_software_version v
              WHERE v.state = 'released' AND v.reduction_software_id IN (
                SELECT s.reduction_software_id FROM reduction_step_revision s WHERE s.pipeline_revision_id = r.id)
              ORDER BY v.id),
        ARRAY(SELECT (v.id, v.version, v.series, v.content_digest)::text FROM reduction_software_version v
              WHERE v.reduction_software_id IN (
                SELECT s.reduction_software_id FROM reduction_step_revision s WHERE s.pipeline_revision_id = r.id)
              ORDER BY v.id),
        ARRAY(SELECT c.id FROM reduction_step_revision s
              JOIN reduction_step_config_revision c ON c.id = s.reduction_step_config_revision_id
              WHERE s.pipeline_revision_id = r.id AND c.withdrawn_at IS NOT NULL
              ORDER BY c.id)
    FROM pipeline_revision r
    JOIN pipeline p ON p.id = r.pipeline_id
    JOIN data_grouping_revision g ON g.id = r.data_grouping_revision_id
    WHERE r.pipeline_id = :pipeline ORDER BY r.number DESC LIMIT 1
""").bindparams(sa.bindparam("pipeline", type_=sa.BigInteger()))
_VERSIONS: Final = sa.select(models.ReductionSoftwareVersion).where(is_given(models.ReductionSoftwareVersion.id, "ids"))
_MOST_KNOWN: Final = 256


class UnreadableDefinition(CcatError):
    """A pipeline was defined in words that an older version of this system took, or with a time zone that is gone."""

    code = "unreadable_definition"

    def __init__(self, pipeline: str, problem: str) -> None:
        super().__init__(
            f"What pipeline {pipeline} was defined with is not understood any more, so nothing of it runs: {problem} "
            "Correct it in its file, and apply that."
        )


@dataclass(frozen=True)
class Waits:
    """What of its inputs a step waits for; nothing of this changes what a run makes of what it takes."""

    omits: bool = False
    """Whether packages that were given up upstream are not waited for."""
    min_fraction: float | None = None
    """Fraction of the packages at the cut-off that must be ready; 0: any one of them, None: all of them."""
    for_scan: bool = False
    """Whether all that the scan recorded has to be in the archive."""

    @property
    def takes_available(self) -> bool:
        """Whether a run takes what is there, if it is enough."""
        return self.min_fraction is not None

    @property
    def for_everything(self) -> bool:
        """Whether the step itself goes without nothing."""
        return not self.omits and not self.takes_available


@dataclass(frozen=True)
class Rule:
    """How a step chooses auxiliary inputs: for each package the nearest run of another step."""

    name: str
    from_step_id: int
    place: str
    """The step that gives, as `pipeline/step`."""
    same: tuple[str, ...]
    """Dimensions in which all packages of the run are as the package."""
    max_age: timedelta
    """How far apart scans of package and run may have started."""
    on_missing: OnMissing
    redo_on_better: bool


@dataclass(frozen=True)
class StepNow:
    """A step as it is wanted now."""

    id: int
    revision_id: int
    key: str
    group_by: tuple[str, ...]
    upstream: tuple[int, ...]
    """Ids of the steps whose products it takes."""
    takes_raw: bool
    listed: tuple[DataProductType, ...]
    """Product types that it takes though they are no inputs elsewhere."""
    auxiliary: tuple[Rule, ...]
    waits: Waits
    cooldown: timedelta
    policy: VersionPolicy
    software: str
    version: models.ReductionSoftwareVersion | None
    """What new work uses; None where none is released."""
    config_revision_id: int | None
    withdrawn_config: str | None
    """Its config, if what that holds was withdrawn."""
    recipe: Recipe | None
    """What a run would be made with; None without a version, or with a config that was withdrawn."""
    since: datetime
    """When version and definition came to be what they are."""
    recompute: bool = False
    """Whether what it made is made again where it was deleted and a run takes it; no verdict depends on that."""

    @cached_property
    def basis(self) -> str:
        """Digest of all that the verdicts of its sub-groups depend on, beside facts about data and runs."""
        wanted = (self.recipe.digest, self.recipe.series_digest) if self.recipe else None
        rest = [
            self.group_by,
            self.upstream,
            self.takes_raw,
            self.listed,
            astuple(self.waits),
            self.cooldown.total_seconds(),
            self.since.isoformat(),
            *([one.name, one.on_missing, one.redo_on_better] for one in self.auxiliary),
        ]
        return content_digest([wanted, self.policy, *rest])


@dataclass(frozen=True)
class PipelineNow:
    """A pipeline as it is wanted now; its steps stand in topological order."""

    id: int
    revision_id: int
    location_id: int
    priority: int
    trigger: TriggerType
    schedule: Schedule | None
    """Of trigger type CRON."""
    rules: AllOf
    steps: tuple[StepNow, ...]
    created_per_minute: int | None = None
    """Most runs of it that are created within a minute."""

    def below(self, step_id: int) -> Iterable[StepNow]:
        """Steps that take products of this one."""
        return (step for step in self.steps if step_id in step.upstream)


def current_revisions() -> sa.Select[models.PipelineRevision]:
    """The newest revision of every pipeline."""
    newest = (
        sa.select(models.PipelineRevision.id)
        .ext(distinct_on(models.PipelineRevision.pipeline_id))
        .order_by(models.PipelineRevision.pipeline_id, models.PipelineRevision.number.desc())
    )
    return sa.select(models.PipelineRevision).where(models.PipelineRevision.id.in_(newest))


@cache  # a row of columns, which is longer in the making than in the use
def current_revision() -> sa.Subquery:
    """The same as something to join."""
    return current_revisions().subquery()


class _State(NamedTuple):
    """What identifies a revision, in whatever database, and all that is put together from it and may change."""

    revision_id: int
    created_at: datetime
    revision: str
    priority: int
    created_per_minute: int | None
    rules: str
    steps: tuple[str, ...]
    released: tuple[int, ...]
    """Versions of its software."""
    versions: tuple[str, ...]
    """What recipes are made of, of all of them."""
    withdrawn: tuple[int, ...]
    """Revisions of its configs."""


_known: Final[dict[_State, PipelineNow]] = {}
"""To put one together takes longer than all else that a change without consequences costs."""


def pipeline_now(session: Session, pipeline_id: int) -> PipelineNow:
    """A pipeline as its newest revision and the released versions of its software define it.

    Raises UnreadableDefinition.
    """
    row = session.execute(_STATE, {"pipeline": pipeline_id}).one()
    state = _State._make(tuple(one) if isinstance(one, list) else one for one in row)
    known = _known.get(state)
    if known is None:
        known = _read(session, state)
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[state] = known
    return known


def _read(session: Session, state: _State) -> PipelineNow:
    # In a session of its own: what is kept outlives the caller's, whose end would let it forget what it holds.
    with Session(session.connection(), join_transaction_mode="rollback_only") as own:
        revision = own.scalars(_revision(), {"revision": state.revision_id}).unique().one()
        versions = own.scalars(_VERSIONS, {"ids": list(state.released)}).all()
        newest = {one.reduction_software_id: one for one in sorted(versions, key=_by_version)}
        return PipelineNow(
            id=revision.pipeline_id,
            revision_id=revision.id,
            location_id=revision.processing_location_id,
            priority=state.priority,
            trigger=revision.trigger_type,
            schedule=_schedule(revision),
            rules=_rules(revision),
            steps=tuple(_step(one, newest, state=state) for one in revision.steps),
            created_per_minute=state.created_per_minute,
        )


def _by_version(one: models.ReductionSoftwareVersion) -> tuple[Version, int]:
    """As PEP 440 orders them."""
    return Version(one.version), one.id


def _schedule(revision: models.PipelineRevision) -> Schedule | None:
    if not revision.trigger_config:
        return None
    try:
        return Schedule(**revision.trigger_config)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ").rstrip(".")
        raise UnreadableDefinition(revision.pipeline.name, f"trigger: {problem}.") from error


def _rules(revision: models.PipelineRevision) -> AllOf:
    try:
        return check_rules(parse_rules(revision.data_grouping_revision.filter_rules), catalogue())
    except InvalidRule as error:
        raise UnreadableDefinition(revision.pipeline.name, str(error)) from error


@cache  # to put it together takes longer than to carry it out
def _revision() -> sa.Select[models.PipelineRevision]:
    """The `revision` of that id, with all that its steps are made of."""
    step, revisions = models.ReductionStepRevision, models.PipelineRevision
    giver = joinedload(models.AuxiliaryRule.from_step).joinedload(models.ReductionStep.pipeline)
    of_step = (
        joinedload(step.reduction_step),
        joinedload(step.reduction_software),
        joinedload(step.pinned_version),
        joinedload(step.config_revision).joinedload(models.ReductionStepConfigRevision.reduction_step_config),
        joinedload(step.upstream),
        joinedload(step.auxiliary).options(giver),
    )
    query = sa.select(revisions).where(revisions.id == sa.bindparam("revision", type_=sa.BigInteger()))
    return query.options(
        joinedload(revisions.pipeline),
        joinedload(revisions.data_grouping_revision),
        joinedload(revisions.steps).options(*of_step),
    )


def _step(
    revision: models.ReductionStepRevision,
    newest: Mapping[int, models.ReductionSoftwareVersion],
    *,
    state: _State,
) -> StepNow:
    pinned = revision.pinned_version if revision.version_policy is VersionPolicy.EXACT else None
    version = pinned or newest.get(revision.reduction_software_id)
    released = version if version is not None and version.id in state.released else None
    withdrawn = _withdrawn_config(revision, state)
    usable = released if withdrawn is None else None
    return StepNow(
        id=revision.reduction_step_id,
        revision_id=revision.id,
        key=revision.reduction_step.key,
        group_by=tuple(revision.group_by),
        upstream=tuple(step.id for step in revision.upstream),
        takes_raw=revision.takes_raw,
        listed=tuple(map(DataProductType, revision.listed_types)),
        auxiliary=tuple(map(_rule, revision.auxiliary)),
        waits=Waits(
            omits=revision.on_failed_input is OnFailedInput.OMIT,
            min_fraction=revision.min_fraction,
            for_scan=revision.wait_for is WaitFor.SCAN_COMPLETE,
        ),
        cooldown=timedelta(seconds=revision.cooldown_seconds),
        policy=revision.version_policy,
        software=revision.reduction_software.name,
        version=released,
        config_revision_id=revision.reduction_step_config_revision_id,
        withdrawn_config=withdrawn,
        recipe=recipe_of(revision, usable, config_digest=_config_digest(revision)) if usable else None,
        since=max(state.created_at, version.created_at) if version is not None else state.created_at,
        recompute=revision.recompute,
    )


def _withdrawn_config(revision: models.ReductionStepRevision, state: _State) -> str | None:
    config = revision.config_revision
    if config is None or config.id not in state.withdrawn:
        return None
    return f"{config.reduction_step_config.name}/{config.number}"


def _config_digest(revision: models.ReductionStepRevision) -> str | None:
    return revision.config_revision.digest if revision.config_revision else None


def recipe_of(
    revision: models.ReductionStepRevision, version: models.ReductionSoftwareVersion, *, config_digest: str | None
) -> Recipe:
    """What a step would be made with, given its version and config."""
    return recipe(
        revision.reduction_software.name,
        version_digest=version.content_digest,
        series=version.series,
        config_digest=config_digest,
        definition=definition(revision),
    )


def definition(revision: models.ReductionStepRevision) -> Definition:
    """The part of a step's definition that changes results."""
    return Definition(
        revision.group_by,
        [step.key for step in revision.upstream],
        revision.takes_raw,
        [
            auxiliary_rule(one.name, _place(one.from_step), same=one.same, max_age=one.max_age)
            for one in revision.auxiliary
        ],
        list(map(DataProductType, revision.listed_types)),
    )


def _rule(rule: models.AuxiliaryRule) -> Rule:
    return Rule(
        name=rule.name,
        from_step_id=rule.from_step_id,
        place=_place(rule.from_step),
        same=tuple(rule.same),
        max_age=rule.max_age,
        on_missing=rule.on_missing,
        redo_on_better=rule.redo_on_better,
    )


def _place(step: models.ReductionStep) -> str:
    return f"{step.pipeline.name}/{step.key}"
