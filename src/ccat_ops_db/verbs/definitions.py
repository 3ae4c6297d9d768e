"""Definitions as code, applied: identities stay, what changed becomes a new revision, the rest is left alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import definitions as written
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import CONFIG, GROUPING, LOCATION, OBS_MODE, SOFTWARE, SOURCE, UnknownName, find
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.plan.digests import content_digest
from ccat_ops_db.queries.gaps import current_revisions
from ccat_ops_db.states import LocationType, VersionPolicy
from ccat_ops_db.verbs.changes import Change, identity, update
from ccat_ops_db.verbs.releases import release_versions

DEFINITIONS_APPLIED: Final = "definitions:applied"
"""Payload of the wake-up that follows a change of definitions."""


class NoProcessingLocation(CcatError):
    """A pipeline names a location where nothing can be processed."""

    code = "no_processing_location"

    def __init__(self, where: str, location: str, kind: str) -> None:
        super().__init__(f"{where}: `{location}` is a {kind} location; a pipeline runs at a processing location.")


def apply_definitions(session: Session, definitions: written.Definitions, *, folder: Path, by: str) -> list[Change]:
    """Make the database say what the definitions say, and return what that did, in the order of the file.

    `folder` is where relative paths start. Applying the same twice changes nothing. Pipelines that are not in the file
    but use a changed grouping or config get a revision that pins the new one.
    """
    changes = [
        *(_apply_source(session, one) for one in definitions.sources),
        *(change for one in definitions.observing_programs for change in _apply_program(session, one)),
        *(change for one in definitions.software for change in release_versions(session, one, folder=folder, by=by)),
        *(_apply_config(session, one) for one in definitions.configs),
        *(_apply_grouping(session, one) for one in definitions.groupings),
        *(_apply_pipeline(session, one, f"pipelines[{i}]") for i, one in enumerate(definitions.pipelines)),
        *_pin_anew(session, except_for={one.name for one in definitions.pipelines}),
    ]
    if any(change.action != "unchanged" for change in changes):
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, DEFINITIONS_APPLIED)))
    return changes


def _apply_source(session: Session, one: written.FixedSource) -> Change:
    known = session.scalars(sa.select(models.FixedSource).where(models.FixedSource.name == one.name)).one_or_none()
    if known is None:
        session.add(models.FixedSource(name=one.name, ra_deg=one.ra_deg, dec_deg=one.dec_deg))
        session.flush()
        return Change("source", one.name, "created")
    return update(known, {"ra_deg": one.ra_deg, "dec_deg": one.dec_deg}, kind="source", name=one.name)


def _apply_program(session: Session, one: written.ObservingProgram) -> Iterator[Change]:
    known = session.scalars(sa.select(models.ObservingProgram).filter_by(short_name=one.short_name)).one_or_none()
    values = {"name": one.name or one.short_name, "description": one.description}
    if known is None:
        known = models.ObservingProgram(short_name=one.short_name, **values)
        session.add(known)
        session.flush()
        yield Change("observing program", one.short_name, "created")
    else:
        yield update(known, values, kind="observing program", name=one.short_name)
    for observation in one.observations:
        yield _apply_observation(session, observation, known)


def _apply_observation(session: Session, one: written.Observation, program: models.ObservingProgram) -> Change:
    where = f"observation `{one.name}`"
    values = {
        "observing_program_id": program.id,
        "source_id": find(session, SOURCE, one.source, where=where).id,
        "obs_mode_id": find(session, OBS_MODE, one.obs_mode, where=where).id,
        "line_id": one.line_id,
    }
    known = session.scalars(sa.select(models.ObsUnit).filter_by(name=one.name)).one_or_none()
    if known is None:
        session.add(models.ObsUnit(name=one.name, **values))
        session.flush()
        return Change("observation", one.name, "created")
    return update(known, values, kind="observation", name=one.name)


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
    number = _revise(
        session,
        models.ReductionStepConfigRevision,
        {"reduction_step_config_id": config.id},
        digest=content_digest(content),
        content=content,
    )
    return _revised("config", one.name, number)


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


def _newest_grouping(session: Session, name: str, where: str) -> models.DataGroupingRevision:
    grouping = find(session, GROUPING, name, where=where)
    revision: models.DataGroupingRevision = _newest(session, models.DataGroupingRevision, data_grouping_id=grouping.id)
    return revision


def _newest_config(session: Session, name: str, where: str) -> models.ReductionStepConfigRevision:
    config = find(session, CONFIG, name, where=where)
    revision: models.ReductionStepConfigRevision = _newest(
        session, models.ReductionStepConfigRevision, reduction_step_config_id=config.id
    )
    return revision


def _apply_pipeline(session: Session, one: written.Pipeline, where: str) -> Change:
    pipeline = identity(session, models.Pipeline, name=one.name)
    switches = {"description": one.description, "enabled": one.enabled, "priority": one.priority}
    switched = update(pipeline, switches, kind="pipeline", name=one.name)
    location = find(session, LOCATION, one.location, where=f"{where}.location")
    if location.location_type is not LocationType.PROCESSING:
        raise NoProcessingLocation(f"{where}.location", one.location, location.location_type)
    grouping = _newest_grouping(session, one.grouping, f"{where}.grouping")
    steps = [
        _step_content(session, step, one, where=f"{where}.steps[{one.steps.index(step)}]")
        for step in written.in_order(one)
    ]
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
            "trigger_config": one.trigger_config,
            "definition": definition,
        },
    )
    if number == 0:
        return switched
    revision = _newest(session, models.PipelineRevision, pipeline_id=pipeline.id)
    _add_steps(session, revision, list(zip(written.in_order(one), steps, strict=True)))
    return _revised("pipeline", one.name, number)


def _step_content(session: Session, step: written.Step, pipeline: written.Pipeline, *, where: str) -> dict[str, Any]:
    software = find(session, SOFTWARE, step.software, where=f"{where}.software")
    config = _newest_config(session, step.config, f"{where}.config") if step.config else None
    return {
        "name": step.name or step.key,
        "group_by": list(step.group_by),
        "cooldown_seconds": step.cooldown_seconds,
        "reduction_software_id": software.id,
        "version_policy": step.version_policy,
        "pinned_version_id": _pinned_version(session, step, software, where=f"{where}.version"),
        "reduction_step_config_revision_id": config.id if config else None,
        "takes_raw": step.takes_raw,
        "is_final": written.is_final(step, pipeline),
        "required_outputs": list(step.required_outputs),
        "resources": step.resources.model_dump(),
        "max_retries": step.max_retries,
        "retention_days": step.retention_days,
    }


def _pinned_version(
    session: Session, step: written.Step, software: models.ReductionSoftware, *, where: str
) -> int | None:
    if step.version_policy is not VersionPolicy.EXACT or step.version is None:
        return None
    versions = dict(
        session.execute(
            sa.select(models.ReductionSoftwareVersion.version, models.ReductionSoftwareVersion.id).where(
                models.ReductionSoftwareVersion.reduction_software_id == software.id
            )
        )
        .tuples()
        .all()
    )
    if step.version not in versions:
        raise UnknownName(f"version of {software.name}", step.version, versions, where=where)
    return versions[step.version]


def _add_steps(
    session: Session, revision: models.PipelineRevision, steps: Sequence[tuple[written.Step, Mapping[str, Any]]]
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
                **content,
            )
        )
    session.flush()


def _pin_anew(session: Session, *, except_for: set[str]) -> Iterator[Change]:
    """Apply the stored definition of every other pipeline again, so that it pins what was changed under it."""
    for revision in session.scalars(current_revisions()).all():
        name = revision.pipeline.name
        if name not in except_for:
            switches = {key: getattr(revision.pipeline, key) for key in ("description", "enabled", "priority")}
            definition = written.Pipeline.model_validate({**revision.definition, **switches})
            change = _apply_pipeline(session, definition, f"pipeline `{name}`")
            if change.action != "unchanged":
                yield change
