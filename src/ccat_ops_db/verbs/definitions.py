"""Definitions as code, applied: identities stay, what changed becomes a new revision, the rest is left alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.definitions import document as written
from ccat_ops_db.definitions.auxiliary import Auxiliary
from ccat_ops_db.definitions.steps import Step
from ccat_ops_db.errors import CcatError
from ccat_ops_db.gap.evaluation import come_by
from ccat_ops_db.gap.steps import current_revisions
from ccat_ops_db.lookup import CONFIG, GROUPING, LOCATION, OBS_MODE, SOFTWARE, SOURCE, find
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.plan.digests import content_digest
from ccat_ops_db.queries.definitions import SWITCHES, written_pipeline
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import InputReadiness
from ccat_ops_db.verbs.archiving import archived_steps, request_archiving
from ccat_ops_db.verbs.auxiliary import require_sound_rules
from ccat_ops_db.verbs.changes import Change, identity, put, update
from ccat_ops_db.verbs.references import require_known_names
from ccat_ops_db.verbs.releases import hold_validity, release_versions
from ccat_ops_db.verbs.turns import take_turn
from ccat_ops_db.verbs.waiting import look_again

DEFINITIONS_APPLIED: Final = "definitions:applied"
"""Payload of the wake-up that follows a change of definitions."""


class WithdrawnContent(CcatError):
    """A config was told to be what it was withdrawn for."""

    code = "withdrawn_content"

    def __init__(self, revision: str, because: str) -> None:
        name = revision.rpartition("/")[0]
        super().__init__(
            f"What the file says of config {name} is what {revision} was withdrawn for: {because}. Change it, or say "
            f"`ccat reinstate config {revision}` if it was right. Nothing was applied."
        )


def apply_definitions(session: Session, definitions: written.Definitions, *, folder: Path, by: str) -> list[Change]:
    """Make the database say what the definitions say, and return what that did, in the order of the file.

    `folder` is where relative paths start. Applying the same twice changes nothing. Pipelines that are not in the file
    but use a changed grouping or config get a revision that pins the new one. Two at once take turns.

    Raises InvalidDefinition where a name stands for nothing, WithdrawnContent, VersionChanged and others of `releases`;
    then nothing may be committed.
    """
    take_turn(session)
    hold_validity(session, definitions.software)
    before, archived = _switched(session), set(session.scalars(archived_steps()))
    require_known_names(session, definitions)
    require_sound_rules(session, definitions)
    changes = [
        *(_apply_source(session, one) for one in definitions.sources),
        *(change for one in definitions.observing_programs for change in _apply_program(session, one)),
        *(
            change
            for index, one in enumerate(definitions.software)
            for change in release_versions(session, one, folder=folder, place=f"software[{index}]", by=by)
        ),
        *(_apply_config(session, one) for one in definitions.configs),
        *(_apply_grouping(session, one) for one in definitions.groupings),
        *(_apply_pipeline(session, one) for one in definitions.pipelines),
        *_pin_anew(session, except_for={one.name for one in definitions.pipelines}),
    ]
    others = [number for number, now in _switched(session).items() if before.get(number) != now]
    come_by(session, is_among(models.PipelineEvaluation.pipeline_id, others))
    look_again(session, is_among(models.ExecutedReductionStep.pipeline_id, others))
    if any(change.action != "unchanged" for change in changes):
        newly = set(session.scalars(archived_steps())) - archived
        request_archiving(session, is_among(models.ExecutedReductionStep.reduction_step_id, newly))
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, DEFINITIONS_APPLIED)))
    return changes


def _switched(session: Session) -> Mapping[int, Any]:
    """What is said of every pipeline that its runs may wait for."""
    session.flush()
    rows = session.execute(sa.select(models.Pipeline.id, models.Pipeline.enabled, models.Pipeline.limits))
    return {number: switches for number, *switches in rows}


def _apply_source(session: Session, one: written.FixedSource) -> Change:
    values = {"ra_deg": one.ra_deg, "dec_deg": one.dec_deg}
    return put(session, models.FixedSource, {"name": one.name}, values=values, kind="source", name=one.name)[1]


def _apply_program(session: Session, one: written.ObservingProgram) -> Iterator[Change]:
    key, values = {"short_name": one.short_name}, {"name": one.name or one.short_name, "description": one.description}
    program, change = put(
        session, models.ObservingProgram, key, values=values, kind="observing program", name=one.short_name
    )
    yield change
    for observation in one.observations:
        yield _apply_observation(session, observation, program)


def _apply_observation(session: Session, one: written.Observation, program: models.ObservingProgram) -> Change:
    values = {
        "observing_program_id": program.id,
        "source_id": find(session, SOURCE, one.source).id,
        "obs_mode_id": find(session, OBS_MODE, one.obs_mode).id,
        "line_id": one.line_id,
    }
    return put(session, models.ObsUnit, {"name": one.name}, values=values, kind="observation", name=one.name)[1]


def _revise(
    session: Session, noun: Any, identity: Mapping[str, int], *, digest: str, content: Mapping[str, Any]
) -> int:
    """Number of the new revision, or 0 where the newest one says the same already."""
    newest = _newest(session, noun, **identity)
    if newest is not None and newest.digest == digest:
        return 0
    number = newest.number + 1 if newest is not None else 1
    session.add(noun(**identity, number=number, digest=digest, **content))
    session.flush()
    return number


def _revised(kind: str, name: str, number: int) -> Change:
    if number == 0:
        return Change(kind, name, "unchanged")
    return Change(kind, name, "created" if number == 1 else "changed", f"revision {number}")


def _apply_config(session: Session, one: written.Config) -> Change:
    config = identity(session, models.ReductionStepConfig, name=one.name)
    content = {"parameters": one.parameters, "environment": one.environment}
    of_config, digest = {"reduction_step_config_id": config.id}, content_digest(content)
    number = _revise(session, models.ReductionStepConfigRevision, of_config, digest=digest, content=content)
    if number:
        _require_not_withdrawn(session, one.name, digest=digest, **of_config)
    return _revised("config", one.name, number)


def _require_not_withdrawn(session: Session, name: str, **content: Any) -> None:
    """Raise WithdrawnContent where a revision with this content is withdrawn: under a new number it is as wrong."""
    revision = models.ReductionStepConfigRevision
    wrong = sa.select(revision).filter_by(**content).where(revision.withdrawn_at.is_not(None))
    found = session.scalars(wrong.order_by(revision.number.desc()).limit(1)).one_or_none()
    if found is not None:
        raise WithdrawnContent(f"{name}/{found.number}", found.withdrawn_because or "")


def _apply_grouping(session: Session, one: written.Grouping) -> Change:
    grouping = identity(session, models.DataGrouping, name=one.name)
    content = {"filter_rules": list(one.rules), "description": one.description}
    number = _revise(
        session,
        models.DataGroupingRevision,
        {"data_grouping_id": grouping.id},
        digest=content_digest(content),
        content=content,
    )
    return _revised("grouping", one.name, number)


def _newest(session: Session, revisions: Any, **identity: int) -> Any:
    """The highest revision of an identity, or None."""
    return session.scalars(
        sa.select(revisions).filter_by(**identity).order_by(revisions.number.desc()).limit(1)
    ).one_or_none()


def _newest_grouping(session: Session, name: str) -> models.DataGroupingRevision:
    grouping = find(session, GROUPING, name)
    revision: models.DataGroupingRevision = _newest(session, models.DataGroupingRevision, data_grouping_id=grouping.id)
    return revision


def _newest_config(session: Session, name: str) -> models.ReductionStepConfigRevision:
    config = find(session, CONFIG, name)
    revision: models.ReductionStepConfigRevision = _newest(
        session, models.ReductionStepConfigRevision, reduction_step_config_id=config.id
    )
    return revision


def _apply_pipeline(session: Session, one: written.Pipeline) -> Change:
    pipeline = identity(session, models.Pipeline, name=one.name)
    owner = identity(session, models.User, name=one.owner) if one.owner else None
    switches = {name: getattr(one, name) for name in SWITCHES} | {"limits": one.limits.as_stored(), "owner": owner}
    switched = update(pipeline, switches, kind="pipeline", name=one.name)
    location = find(session, LOCATION, one.location)
    grouping = _newest_grouping(session, one.grouping)
    ordered = written.in_order(one)
    steps = [_step_content(session, step, one) for step in ordered]
    definition = one.model_dump(mode="json", exclude=set(switches))
    pinned = {"definition": definition, "grouping": grouping.digest, "location": location.id, "steps": steps}
    number = _revise(
        session,
        models.PipelineRevision,
        {"pipeline_id": pipeline.id},
        digest=content_digest(pinned),
        content={
            "data_grouping_revision_id": grouping.id,
            "processing_location_id": location.id,
            "trigger_type": one.trigger,
            "trigger_config": definition["trigger_config"],
            "definition": definition,
        },
    )
    if number == 0:
        return switched
    revision = _newest(session, models.PipelineRevision, pipeline_id=pipeline.id)
    _add_steps(session, revision, list(zip(ordered, steps, strict=True)))
    return _revised("pipeline", one.name, number)


def _step_content(session: Session, step: Step, pipeline: written.Pipeline) -> dict[str, Any]:
    software = find(session, SOFTWARE, step.software)
    config = _newest_config(session, step.config) if step.config else None
    return {
        "name": step.name or step.key,
        "group_by": list(step.group_by),
        "cooldown_seconds": step.cooldown_seconds,
        "reduction_software_id": software.id,
        "version_policy": step.version_policy,
        "pinned_version_id": _pinned_version(session, step, software),
        "reduction_step_config_revision_id": config.id if config else None,
        "takes_raw": step.takes_raw,
        **({"listed_types": list(step.listed)} if step.listed else {}),
        "on_failed_input": step.on_failed_input,
        "readiness": step.readiness,
        "min_fraction": (step.min_fraction or 0.0) if step.readiness is InputReadiness.AVAILABLE else None,
        "wait_for": step.wait_for,
        "is_final": written.is_final(step, pipeline.steps),
        "required_outputs": list(step.required_outputs),
        "resources": step.resources.as_stored(),
        "max_retries": step.max_retries,
        "retention_days": step.retention_days,
        **({"archive": True} if step.archive else {}),
        **({"recompute": True} if step.recompute else {}),
    }


def _pinned_version(session: Session, step: Step, software: models.ReductionSoftware) -> int | None:
    if step.version is None:
        return None
    version = sa.select(models.ReductionSoftwareVersion.id).filter_by(
        reduction_software_id=software.id, version=step.version
    )
    return session.scalars(version).one()


def _add_steps(
    session: Session, revision: models.PipelineRevision, steps: Sequence[tuple[Step, Mapping[str, Any]]]
) -> None:
    identities = {
        step.key: identity(session, models.ReductionStep, pipeline_id=revision.pipeline_id, key=step.key)
        for step, _ in steps
    }
    for position, (step, content) in enumerate(steps):
        session.add(
            models.ReductionStepRevision(
                pipeline_revision_id=revision.id,
                reduction_step_id=identities[step.key].id,
                position=position,
                upstream=[identities[key] for key in step.depends_on],
                auxiliary=[_rule(session, rule) for rule in step.auxiliary],
                **content,
            )
        )
    session.flush()


def _rule(session: Session, rule: Auxiliary) -> models.AuxiliaryRule:
    """The rule, naming a step that may be defined further down in the file."""
    pipeline = identity(session, models.Pipeline, name=rule.pipeline)
    return models.AuxiliaryRule(
        name=rule.name,
        from_step_id=identity(session, models.ReductionStep, pipeline_id=pipeline.id, key=rule.step).id,
        same=list(rule.same),
        max_age=rule.window,
        on_missing=rule.on_missing,
        redo_on_better=rule.redo_on_better,
    )


def _pin_anew(session: Session, *, except_for: set[str]) -> Iterator[Change]:
    """Apply the stored definition of every other pipeline again, so that it pins what was changed under it."""
    for revision in session.scalars(current_revisions()).all():
        name = revision.pipeline.name
        if name not in except_for:
            change = _apply_pipeline(session, written.Pipeline.model_validate(written_pipeline(revision)))
            if change.action != "unchanged":
                yield change
