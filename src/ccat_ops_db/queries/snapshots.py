from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased, joinedload, selectinload

from ccat_ops_db import models
from ccat_ops_db.gap.steps import definition
from ccat_ops_db.plan.difference import Attempt, Config, Made, Snapshot, Software, Taken
from ccat_ops_db.queries.configs import UsedConfig, config_of
from ccat_ops_db.queries.runs import UnknownRun
from ccat_ops_db.states import RunStatus

_Run = models.ExecutedReductionStep


def snapshot(session: Session, run_id: int) -> Snapshot:
    """All of a run that can make a difference, in a fixed number of statements; raises UnknownRun."""
    run = session.get(
        _Run,
        run_id,
        options=[
            joinedload(_Run.pipeline),
            joinedload(_Run.reduction_step),
            joinedload(_Run.software_version).joinedload(models.ReductionSoftwareVersion.reduction_software),
            joinedload(_Run.config_revision).joinedload(models.ReductionStepConfigRevision.reduction_step_config),
            joinedload(_Run.step_revision).selectinload(models.ReductionStepRevision.upstream),
            selectinload(_Run.attempts),
            selectinload(_Run.products),
        ],
    )
    if run is None:
        raise UnknownRun(run_id)
    return Snapshot(
        id=run.id,
        status=run.status,
        finished_at=run.finished_at,
        pipeline=run.pipeline.name,
        step=run.reduction_step.key,
        sub_group=run.sub_group_labels,
        recipe_digest=run.recipe_digest,
        software=_software(run.software_version),
        config=_config(used) if (used := config_of(run)) else None,
        definition=definition(run.step_revision),
        inputs=_inputs(session, run_id) if run.inputs_frozen_at else None,
        last_attempt=_last_attempt(run.attempts, run.step_revision.resources),
        products=_products(run.products) if run.status is RunStatus.COMPLETED else None,
        metrics=run.metrics,
    )


def _software(version: models.ReductionSoftwareVersion) -> Software:
    return Software(
        name=version.reduction_software.name,
        version=version.version,
        series=version.series,
        content_digest=version.content_digest,
    )


def _config(used: UsedConfig) -> Config:
    return Config(name=used.label, revision=used.revision, parameters=used.parameters, environment=used.environment)


def _inputs(session: Session, run_id: int) -> Sequence[Taken]:
    one, package, product, maker = models.RunInput, models.RawDataPackage, models.DataProduct, aliased(_Run)
    rows = session.execute(
        sa.select(
            one.role,
            sa.func.coalesce(one.name, ""),
            sa.func.coalesce(models.ReductionStep.key, ""),
            sa.func.coalesce(maker.sub_group_path, ""),
            sa.func.coalesce(package.name, product.relative_path),
            sa.func.coalesce(package.checksum, product.checksum),
            product.run_id,
            one.excluded_pixels,
        )
        .outerjoin(package, package.id == one.raw_data_package_id)
        .outerjoin(product, product.id == one.data_product_id)
        .outerjoin(maker, maker.id == product.run_id)
        .outerjoin(models.ReductionStep, models.ReductionStep.id == maker.reduction_step_id)
        .where(one.run_id == run_id)
        .order_by(one.id)
    )
    return [
        Taken(
            role=role,
            name=name,
            step=step,
            sub_group=sub_group,
            path=path,
            checksum=checksum,
            made_by=made_by,
            excluded_pixels=pixels or (),
        )
        for role, name, step, sub_group, path, checksum, made_by, pixels in rows
    ]


def _last_attempt(attempts: Sequence[models.RunAttempt], resources: Mapping[str, float]) -> Attempt | None:
    """The last one, where it was submitted."""
    last = attempts[-1] if attempts else None
    if last is None or last.command is None:
        return None
    asked = {"memory_gb": last.memory_gb, "time_hours": last.time_hours}
    return Attempt(
        directory=last.directory,
        host=last.host,
        command=last.command,
        environment=last.environment or {},
        resources={**resources, **{name: value for name, value in asked.items() if value is not None}},
    )


def _products(products: Sequence[models.DataProduct]) -> Sequence[Made]:
    return [Made(path=one.relative_path, type=one.type, checksum=one.checksum, metrics=one.metrics) for one in products]
