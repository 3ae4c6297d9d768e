"""From the rows of a run to what is executed: read once, then values only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, contains_eager

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.queries.configs import config_of
from ccat_ops_db.sets import is_given, once_more
from ccat_ops_db.states import RunStatus
from ccat_workflow_manager.execution import manifest as told
from ccat_workflow_manager.execution.command import Execution, job
from ccat_workflow_manager.execution.container import Container, linked_roots
from ccat_workflow_manager.execution.layout import AttemptLayout, RunLayout, run_layout
from ccat_workflow_manager.execution.prepare import Input, Recorded
from ccat_workflow_manager.hpc.base import JobSpec
from ccat_workflow_manager.hpc.images.containers import Containers
from ccat_workflow_manager.hpc.images.fetching import Image
from ccat_workflow_manager.plan.resources import allotted
from ccat_workflow_manager.verbs.asking import asked_or_first
from ccat_workflow_manager.verbs.inputs import Product, Raw, RunInputs

_Run = models.ExecutedReductionStep
_Attempt, _Other = models.RunAttempt, once_more(models.RunAttempt)
_TRIALS: Final = "trials"
_NEWEST: Final = (
    sa.select(_Other.id)
    .where(_Other.run_id == _Run.id)
    .order_by(_Other.number.desc())
    .limit(1)
    .correlate(_Run)
    .scalar_subquery()
)
_CURRENT: Final = (
    sa.select(_Attempt)
    .join(_Attempt.run)
    .where(is_given(_Run.id, "runs"), _Run.status == sa.bindparam("status", type_=_Run.status.type))
    .where(_Attempt.id == _NEWEST)
    .options(contains_eager(_Attempt.run))
    .order_by(_Attempt.run_id)
)
_USED: Final = (
    sa.select(_Run.step_revision_id, _Run.software_version_id, _Run.config_revision_id, _Run.data_location_id)
    .where(is_given(_Run.id, "runs"))
    .distinct()
    .subquery()
)
_Revision, _Step = models.ReductionStepRevision, models.ReductionStep
_Version, _Config = models.ReductionSoftwareVersion, models.ReductionStepConfigRevision
_SHARED: Final = (
    sa.select(
        _Revision,
        _Step,
        _Version,
        _Config,
        models.PipelineRevision,
        models.Pipeline,
        models.ReductionSoftware,
        models.ReductionStepConfig,
        models.DataLocation,
    )
    .select_from(_USED)
    .join(_Revision, _Revision.id == _USED.c.step_revision_id)
    .join(models.PipelineRevision, models.PipelineRevision.id == _Revision.pipeline_revision_id)
    .join(_Step, _Step.id == _Revision.reduction_step_id)
    .join(models.Pipeline, models.Pipeline.id == _Step.pipeline_id)
    .join(_Version, _Version.id == _USED.c.software_version_id)
    .join(models.ReductionSoftware, models.ReductionSoftware.id == _Version.reduction_software_id)
    .join(models.DataLocation, models.DataLocation.id == _USED.c.data_location_id)
    .outerjoin(_Config, _Config.id == _USED.c.config_revision_id)
    .outerjoin(models.ReductionStepConfig, models.ReductionStepConfig.id == _Config.reduction_step_config_id)
)
"""What describes runs, and many have in common: read once for all of them."""


class NoContainers(CcatError):
    """A location that runs no images was given software in one."""

    code = "no_containers"

    def __init__(self, software: str, location: str) -> None:
        super().__init__(
            f"{software} is in an image, and location {location} runs none: give the pipeline a location whose backend "
            "is local or slurm, or release the software as runtime process"
        )


@dataclass(frozen=True)
class Place:
    """What a location has for its runs: the root of their directories, and how it runs images, if it does."""

    base: Path
    containers: Containers | None = None


@dataclass(frozen=True)
class Description:
    """Everything that preparing an attempt needs."""

    execution: Execution
    manifest: told.Manifest
    inputs: Sequence[Input]
    copies: Mapping[str, int]
    """Physical copy behind each input, by the input's label."""


def current_attempts(session: Session, run_ids: Iterable[int], status: RunStatus) -> Sequence[models.RunAttempt]:
    """The newest attempt of each of these runs that has a status, with all that describes the run."""
    attempts = session.scalars(_CURRENT, {"runs": list(run_ids), "status": status}).all()
    shared = session.execute(_SHARED, {"runs": [one.run_id for one in attempts]}).all() if attempts else []
    # The session finds by its id what it has read, and asks no more; so it is all there when the session is gone.
    for revision, step, version, config, *_ in shared:
        _ = revision.pipeline_revision, step.pipeline, version.reduction_software
        _ = config and config.reduction_step_config
    for run in (one.run for one in attempts):
        _ = run.location, run.reduction_step, run.step_revision, run.software_version, run.config_revision
    return attempts


def run_directory(run: _Run, base: Path) -> RunLayout:
    """Where a run lies below the pipeline base directory; trials lie apart."""
    return run_layout(
        base / _TRIALS if run.is_trial else base,
        pipeline_id=run.pipeline_id,
        sub_group=run.sub_group_path,
        step_key=run.reduction_step.key,
        run_id=run.id,
    )


def root_of(run: _Run, base: Path) -> Path:
    """Directory of the location of a run, whose run directories lie in `base`."""
    return Path(run.location.path) if isinstance(run.location, models.DiskDataLocation) else base


def describe(attempt: models.RunAttempt, inputs: RunInputs, *, place: Place) -> Description:
    """What an attempt executes, reads and is told. Raises InputGone, or NoContainers."""
    run = attempt.run
    inputs.require_all(run)
    root = root_of(run, place.base)
    links = [
        *(_raw_input(one, root) for one in inputs.raw),
        *(_product_input(one, root) for one in inputs.products),
    ]
    execution = execution_of(attempt, place=place)
    if execution.container:
        roots = linked_roots(root, (one.target for one in links))
        execution = replace(execution, container=replace(execution.container, roots=roots))
    return Description(
        execution=execution,
        manifest=_manifest(attempt, execution, _told(inputs)),
        inputs=links,
        copies={_raw_label(one): one.copy_id for one in inputs.raw}
        | {_product_label(one): one.copy_id for one in inputs.products},
    )


def job_of(attempt: models.RunAttempt, execution: Execution) -> JobSpec:
    """The job of a prepared attempt."""
    asked = asked_or_first(attempt)
    plain = job(
        execution,
        name=attempt.job_name,
        memory_gb=asked.memory_gb,
        time_limit=asked.time_limit,
        priority=attempt.run.priority,
    )
    return allotted(plain, attempt.run.step_revision.resources)


def image_of(run: _Run) -> Image | None:
    """The image that the software of a run is in, if it is in one."""
    version = run.software_version
    return Image(version.image_ref, version.content_digest) if version.image_ref else None


def execution_of(attempt: models.RunAttempt, *, place: Place) -> Execution:
    """Command, directories and environment of an attempt. Raises NoContainers."""
    run, version, config = attempt.run, attempt.run.software_version, attempt.run.config_revision
    return Execution(
        layout=AttemptLayout(place.base / attempt.directory),
        pipeline_id=run.pipeline_id,
        run_id=run.id,
        attempt=attempt.number,
        step_key=run.reduction_step.key,
        step_name=run.step_revision.name,
        sub_group_key=run.sub_group_key,
        is_final=run.step_revision.is_final,
        command=tuple(version.command),
        environment_prefix=Path(version.environment_prefix) if version.environment_prefix else None,
        container=_container(run, place),
        variables=config.environment if config else {},
        cpu=run.step_revision.resources["cpu"],
    )


def _container(run: _Run, place: Place) -> Container | None:
    image = image_of(run)
    if image is None:
        return None
    if place.containers is None:
        version = run.software_version
        raise NoContainers(f"{version.reduction_software.name} {version.version}", run.location.name)
    gpu = [place.containers.gpu_option] if run.step_revision.resources.get("gpus") else []
    return Container(
        sif=place.containers.cache.place(image.digest),
        roots=(root_of(run, place.base),),
        program=place.containers.program,
        options=(*place.containers.options, *gpu),
    )


def _raw_label(one: Raw) -> str:
    return f"package {one.name}"


def _product_label(one: Product) -> str:
    return f"product {one.product_id}"


def _raw_place(one: Raw) -> PurePosixPath:
    return PurePosixPath("raw") / one.name


def _product_place(one: Product) -> PurePosixPath:
    role = ("upstream", one.step) if one.name is None else ("auxiliary", one.name)
    return PurePosixPath(*role, one.sub_group_path, one.relative_path)


def _raw_input(one: Raw, root: Path) -> Input:
    files = [Recorded(path=file.path, size_bytes=file.size_bytes) for file in one.files]
    recorded = [*files, Recorded(path="", mtime_ns=one.mtime_ns, inode=one.inode)]  # what is gone is named first
    return Input(
        label=_raw_label(one), root=root, target=root / one.copy_path, place=_raw_place(one), recorded=recorded
    )


def _product_input(one: Product, root: Path) -> Input:
    return Input(
        label=_product_label(one),
        root=root,
        target=root / one.copy_path,
        place=_product_place(one),
        recorded=[Recorded(path="", size_bytes=one.size_bytes)],
    )


def _manifest(attempt: models.RunAttempt, execution: Execution, inputs: told.Inputs) -> told.Manifest:
    run, version, config = attempt.run, attempt.run.software_version, config_of(attempt.run)
    pipeline = run.reduction_step.pipeline
    return told.Manifest(
        run=told.ManifestRun(id=run.id, attempt=attempt.number),
        pipeline=told.ManifestPipeline(
            id=pipeline.id, name=pipeline.name, revision=run.step_revision.pipeline_revision.number
        ),
        step=told.ManifestStep(name=run.step_revision.name, is_final=run.step_revision.is_final),
        sub_group=told.ManifestSubGroup(key=run.sub_group_key, dimensions=run.sub_group_labels),
        software=told.ManifestSoftware(
            name=version.reduction_software.name,
            version=version.version,
            image_ref=version.image_ref,
            image_digest=version.content_digest if version.image_ref else None,
        ),
        config=told.ManifestConfig(
            name=config.name if config else None,
            digest=config.digest if config else None,
            parameters=dict(config.parameters) if config else {},
        ),
        inputs=inputs,
        output=told.Output(dir=str(execution.seen_output)),
    )


def _told(inputs: RunInputs) -> told.Inputs:
    return told.Inputs(
        raw=tuple(map(_told_raw, inputs.raw)),
        upstream=tuple(
            told.UpstreamInput(**_told_product(one), step=one.step) for one in inputs.products if one.name is None
        ),
        auxiliary=tuple(
            told.AuxiliaryInput(**_told_product(one), name=one.name) for one in inputs.products if one.name is not None
        ),
    )


def _told_raw(one: Raw) -> told.RawInput:
    return told.RawInput(
        package_id=one.package_id,
        path=str(_raw_place(one)),
        executed_obs_unit=one.executed_obs_unit,
        obs_unit=one.obs_unit,
        source=one.source,
        instrument_module=one.instrument_module,
        files=tuple(
            told.InputFile(path=file.path, size_bytes=file.size_bytes, checksum=file.checksum) for file in one.files
        ),
        excluded_pixels=tuple(one.excluded_pixels or ()),
    )


def _told_product(one: Product) -> dict[str, Any]:
    return {
        "product_id": one.product_id,
        "run_id": one.run_id,
        "path": str(_product_place(one)),
        "type": one.type,
        "checksum": one.checksum,
    }
