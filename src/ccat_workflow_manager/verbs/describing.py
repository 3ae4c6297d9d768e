"""From the rows of a run to what is executed: read once, then values only."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, joinedload

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.queries.configs import config_of
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PhysicalCopyStatus
from ccat_workflow_manager.execution import manifest as told
from ccat_workflow_manager.execution.command import Execution, process_job
from ccat_workflow_manager.execution.layout import AttemptLayout, RunLayout, run_layout
from ccat_workflow_manager.execution.prepare import Input, Recorded
from ccat_workflow_manager.hpc.base import JobSpec
from ccat_workflow_manager.verbs.asking import asked_or_first

_Run = models.ExecutedReductionStep
_TRIALS: Final = "trials"


@dataclass(frozen=True)
class Description:
    """Everything that preparing an attempt needs."""

    execution: Execution
    manifest: told.Manifest
    inputs: Sequence[Input]
    copies: Mapping[str, int]
    """Physical copy behind each input, by the input's label."""


class InputGone(CcatError):
    """A run cannot start because some of its inputs have no copy at its location any more."""

    code = "input_gone"
    transient = True

    def __init__(self, run_id: int, location: str, *, found: int, wanted: int) -> None:
        super().__init__(
            f"only {found} of {wanted} inputs of run {run_id} have a copy at {location}: "
            "raw packages are staged again, a lost product is made again by its own step"
        )


@dataclass(frozen=True)
class _Raw:
    package: models.RawDataPackage
    files: Sequence[models.RawDataFile]
    copy: models.PhysicalCopy


@dataclass(frozen=True)
class _Product:
    product: models.DataProduct
    copy: models.PhysicalCopy
    name: str | None
    """How the step calls it, of an auxiliary input."""


def current_attempts(session: Session, *conditions: sa.ColumnElement[bool]) -> Sequence[models.RunAttempt]:
    """The newest attempt of every run that meets the conditions, with all that describes the run."""
    newest = (
        sa.select(models.RunAttempt.id)
        .join(models.RunAttempt.run)
        .where(*conditions)
        .ext(distinct_on(models.RunAttempt.run_id))
        .order_by(models.RunAttempt.run_id, models.RunAttempt.number.desc())
    )
    run = joinedload(models.RunAttempt.run)
    return session.scalars(
        sa.select(models.RunAttempt)
        .where(models.RunAttempt.id.in_(newest))
        .options(
            run.joinedload(_Run.pipeline),
            run.joinedload(_Run.location),
            run.joinedload(_Run.reduction_step),
            run.joinedload(_Run.step_revision).joinedload(models.ReductionStepRevision.pipeline_revision),
            run.joinedload(_Run.software_version).joinedload(models.ReductionSoftwareVersion.reduction_software),
            run.joinedload(_Run.config_revision).joinedload(models.ReductionStepConfigRevision.reduction_step_config),
        )
        .order_by(models.RunAttempt.run_id)
    ).all()


def run_directory(run: _Run, base: Path) -> RunLayout:
    """Where a run lies below the pipeline base directory; trials lie apart."""
    return run_layout(
        base / _TRIALS if run.is_trial else base,
        pipeline_id=run.pipeline_id,
        sub_group=run.sub_group_path,
        step_key=run.reduction_step.key,
        run_id=run.id,
    )


def describe(session: Session, attempt: models.RunAttempt, *, base: Path) -> Description:
    """What an attempt executes, reads and is told."""
    run = attempt.run
    root = Path(run.location.path) if isinstance(run.location, models.DiskDataLocation) else base
    raw, products = _raw(session, run), _products(session, run)
    _require_all(session, run, len(raw) + len(products))
    execution = execution_of(attempt, base=base)
    return Description(
        execution=execution,
        manifest=_manifest(
            attempt,
            execution,
            told.Inputs(
                raw=tuple(map(_told_raw, raw)),
                upstream=tuple(_told_upstream(one) for one in products if one.name is None),
                auxiliary=tuple(_told_auxiliary(one, one.name) for one in products if one.name is not None),
            ),
        ),
        inputs=[*(_raw_input(one, root) for one in raw), *(_product_input(one, root) for one in products)],
        copies={_raw_label(one): one.copy.id for one in raw} | {_product_label(one): one.copy.id for one in products},
    )


def job_of(attempt: models.RunAttempt, *, base: Path) -> JobSpec:
    """The job of a prepared attempt."""
    asked = asked_or_first(attempt)
    return process_job(
        execution_of(attempt, base=base),
        name=attempt.job_name,
        memory_gb=asked.memory_gb,
        time_limit=asked.time_limit,
        priority=attempt.run.priority,
    )


def _require_all(session: Session, run: _Run, found: int) -> None:
    wanted = session.scalar(sa.select(sa.func.count()).select_from(models.RunInput).filter_by(run_id=run.id)) or 0
    if found != wanted:
        raise InputGone(run.id, run.location.name, found=found, wanted=wanted)


def execution_of(attempt: models.RunAttempt, *, base: Path) -> Execution:
    """Command, directories and environment of an attempt."""
    run, version, config = attempt.run, attempt.run.software_version, attempt.run.config_revision
    return Execution(
        layout=AttemptLayout(base / attempt.directory),
        pipeline_id=run.pipeline_id,
        run_id=run.id,
        attempt=attempt.number,
        step_key=run.reduction_step.key,
        step_name=run.step_revision.name,
        sub_group_key=run.sub_group_key,
        is_final=run.step_revision.is_final,
        command=tuple(version.command),
        environment_prefix=Path(version.environment_prefix) if version.environment_prefix else None,
        variables=config.environment if config else {},
        cpu=run.step_revision.resources["cpu"],
    )


def _raw(session: Session, run: _Run) -> list[_Raw]:
    package = models.RawDataPackage
    rows = session.execute(
        sa.select(package, models.PhysicalCopy)
        .join(models.RunInput, models.RunInput.raw_data_package_id == package.id)
        .join(models.PhysicalCopy, models.PhysicalCopy.raw_data_package_id == package.id)
        .where(
            models.RunInput.run_id == run.id,
            models.PhysicalCopy.data_location_id == run.data_location_id,
            models.PhysicalCopy.status == PhysicalCopyStatus.STAGED,
        )
        .options(
            joinedload(package.instrument_module).joinedload(models.InstrumentModule.instrument),
            joinedload(package.executed_obs_unit)
            .joinedload(models.ExecutedObsUnit.obs_unit)
            .joinedload(models.ObsUnit.source),
        )
        .order_by(package.name)
    ).all()
    files = _files(session, [one.id for one, _ in rows])
    return [_Raw(one, files[one.id], copy) for one, copy in rows]


def _files(session: Session, package_ids: Iterable[int]) -> Mapping[int | None, Sequence[models.RawDataFile]]:
    """Raw files by their package, in the order of their paths."""
    file = models.RawDataFile
    found: defaultdict[int | None, list[models.RawDataFile]] = defaultdict(list)
    for one in session.scalars(
        sa.select(file).where(is_among(file.raw_data_package_id, package_ids)).order_by(file.relative_path)
    ):
        found[one.raw_data_package_id].append(one)
    return found


def _products(session: Session, run: _Run) -> list[_Product]:
    """Upstream and auxiliary products."""
    product = models.DataProduct
    rows = session.execute(
        sa.select(product, models.PhysicalCopy, models.RunInput.name)
        .join(models.RunInput, models.RunInput.data_product_id == product.id)
        .join(models.PhysicalCopy, models.PhysicalCopy.data_product_id == product.id)
        .where(
            models.RunInput.run_id == run.id,
            models.PhysicalCopy.data_location_id == run.data_location_id,
            models.PhysicalCopy.status == PhysicalCopyStatus.PRESENT,
        )
        .options(joinedload(product.run).joinedload(_Run.reduction_step))
        .order_by(product.id, models.RunInput.name)
    )
    return [_Product(one, copy, name) for one, copy, name in rows]


def _raw_label(one: _Raw) -> str:
    return f"package {one.package.name}"


def _product_label(one: _Product) -> str:
    return f"product {one.product.id}"


def _raw_place(one: _Raw) -> PurePosixPath:
    return PurePosixPath("raw") / one.package.name


def _product_place(one: _Product) -> PurePosixPath:
    maker = one.product.run
    role = ("upstream", maker.reduction_step.key) if one.name is None else ("auxiliary", one.name)
    return PurePosixPath(*role, maker.sub_group_path, one.product.relative_path)


def _raw_input(one: _Raw, root: Path) -> Input:
    files = [Recorded(path=file.relative_path, size_bytes=file.size_bytes) for file in one.files]
    recorded = [Recorded(path="", mtime_ns=one.copy.mtime_ns, inode=one.copy.inode), *files]
    return Input(
        label=_raw_label(one), root=root, target=root / one.copy.path, place=_raw_place(one), recorded=recorded
    )


def _product_input(one: _Product, root: Path) -> Input:
    return Input(
        label=_product_label(one),
        root=root,
        target=root / one.copy.path,
        place=_product_place(one),
        recorded=[Recorded(path="", size_bytes=one.product.size_bytes)],
    )


def _manifest(attempt: models.RunAttempt, execution: Execution, inputs: told.Inputs) -> told.Manifest:
    run, version, config = attempt.run, attempt.run.software_version, config_of(attempt.run)
    return told.Manifest(
        run=told.ManifestRun(id=run.id, attempt=attempt.number),
        pipeline=told.ManifestPipeline(
            id=run.pipeline_id, name=run.pipeline.name, revision=run.step_revision.pipeline_revision.number
        ),
        step=told.ManifestStep(name=run.step_revision.name, is_final=run.step_revision.is_final),
        sub_group=told.ManifestSubGroup(key=run.sub_group_key, dimensions=run.sub_group_labels),
        software=told.ManifestSoftware(
            name=version.reduction_software.name, version=version.version, image_ref=version.image_ref
        ),
        config=told.ManifestConfig(
            name=config.name if config else None,
            digest=config.digest if config else None,
            parameters=dict(config.parameters) if config else {},
        ),
        inputs=inputs,
        output=told.Output(dir=str(execution.output)),
    )


def _told_raw(one: _Raw) -> told.RawInput:
    module, scan = one.package.instrument_module, one.package.executed_obs_unit
    return told.RawInput(
        package_id=one.package.id,
        path=str(_raw_place(one)),
        executed_obs_unit=scan.id,
        obs_unit=scan.obs_unit.name,
        source=scan.obs_unit.source.name,
        instrument_module=f"{module.instrument.name}/{module.name}",
        files=tuple(
            told.InputFile(path=file.relative_path, size_bytes=file.size_bytes, checksum=file.checksum)
            for file in one.files
        ),
    )


def _told_upstream(one: _Product) -> told.UpstreamInput:
    return told.UpstreamInput(
        product_id=one.product.id,
        run_id=one.product.run_id,
        path=str(_product_place(one)),
        type=one.product.type,
        checksum=one.product.checksum,
        step=one.product.run.reduction_step.key,
    )


def _told_auxiliary(one: _Product, name: str) -> told.AuxiliaryInput:
    return told.AuxiliaryInput(
        name=name,
        product_id=one.product.id,
        run_id=one.product.run_id,
        path=str(_product_place(one)),
        type=one.product.type,
        checksum=one.product.checksum,
    )
