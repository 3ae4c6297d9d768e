"""What is defined now, as somebody would write it: applied again, it changes nothing."""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.steps import current_revisions
from ccat_ops_db.states import Runtime

SWITCHES: Final = ("description", "enabled", "priority", "limits")
"""What a definition says of the pipeline itself; it makes no revision."""

Written = dict[str, Any]


def written_definitions(session: Session) -> Mapping[str, list[Written]]:
    """Every section of a file of definitions, as it would have to be written to mean what is there."""
    sources = session.scalars(sa.select(models.FixedSource).order_by(models.FixedSource.id))
    programs = session.scalars(sa.select(models.ObservingProgram).order_by(models.ObservingProgram.id)).all()
    software = session.scalars(sa.select(models.ReductionSoftware).order_by(models.ReductionSoftware.id)).all()
    revision, grouping = models.ReductionStepConfigRevision, models.DataGroupingRevision
    return {
        "sources": [{"name": one.name, "ra_deg": one.ra_deg, "dec_deg": one.dec_deg} for one in sources],
        "observing_programs": [_program(session, one) for one in programs],
        "software": [_software(session, one) for one in software],
        "configs": [_config(one) for one in session.scalars(_newest(revision, revision.reduction_step_config_id))],
        "groupings": [_grouping(one) for one in session.scalars(_newest(grouping, grouping.data_grouping_id))],
        "pipelines": [_without_nulls(written_pipeline(one)) for one in session.scalars(current_revisions())],
    }


def written_pipeline(revision: models.PipelineRevision) -> Written:
    """A pipeline as it is defined by its newest revision, and by what makes no revision."""
    pipeline = revision.pipeline
    owner = {"owner": pipeline.owner.name} if pipeline.owner else {}
    return {**revision.definition, **{name: getattr(pipeline, name) for name in SWITCHES}, **owner}


def _newest(noun: Any, identity: sa.orm.InstrumentedAttribute[int]) -> sa.Select[Any]:
    """The revision of each identity that counts."""
    return sa.select(noun).ext(distinct_on(identity)).order_by(identity, noun.number.desc())


def _program(session: Session, one: models.ObservingProgram) -> Written:
    unit = models.ObsUnit
    planned = sa.select(unit).where(unit.observing_program_id == one.id).order_by(unit.id)
    return {
        "short_name": one.short_name,
        "name": one.name,
        "description": one.description,
        "observations": [_observation(planned_one) for planned_one in session.scalars(planned)],
    }


def _observation(one: models.ObsUnit) -> Written:
    return {"name": one.name, "source": one.source.name, "obs_mode": one.obs_mode.name, "line_id": one.line_id}


def _software(session: Session, one: models.ReductionSoftware) -> Written:
    version = models.ReductionSoftwareVersion
    versions = sa.select(version).where(version.reduction_software_id == one.id).order_by(version.id)
    return {
        "name": one.name,
        "description": one.description,
        "versions": [_version(each) for each in session.scalars(versions)],
    }


def _version(one: models.ReductionSoftwareVersion) -> Written:
    where = (
        {"image": one.image_ref, "image_digest": one.content_digest}
        if one.runtime is Runtime.APPTAINER
        else {"environment": one.environment_prefix, "distribution": one.distribution}
    )
    told = {"state": str(one.state), "runtime": str(one.runtime), "command": list(one.command)}
    return {"version": one.version, "series": one.series, **told, **where}


def _config(one: models.ReductionStepConfigRevision) -> Written:
    name = one.reduction_step_config.name
    return {"name": name, "parameters": dict(one.parameters), "environment": dict(one.environment)}


def _grouping(one: models.DataGroupingRevision) -> Written:
    return {"name": one.data_grouping.name, "description": one.description, "rules": list(one.filter_rules)}


def _without_nulls(value: Any) -> Any:
    """A value without the keys that say nothing, which in the definition of a pipeline is what null says."""
    match value:
        case dict():
            return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [_without_nulls(inner) for inner in value]
    return value
