"""Smallest valid rows, for tests that need something to point at."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from ccat_ops_db import models, states
from ccat_ops_db.lookup import LOCATION, MODULE, OBS_MODE, TELESCOPE, Named, find
from ccat_ops_db.verbs.initialization import initialize, reference_data

Noun = TypeVar("Noun", bound=models.Base)

DIGEST = f"sha256:{'0' * 64}"
START = datetime(2026, 4, 5, 1, 0, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class World:
    """An initialised database with one of each noun on the way from a plan to a product, by id."""

    obs_unit: int
    scan: uuid.UUID
    telescope: int
    module: int
    source_location: int
    archive: int
    processing: int
    transfer_package: int
    package: int
    file: uuid.UUID
    grouping_revision: int
    software: int
    version: int
    pipeline: int
    pipeline_revision: int
    step: int
    step_revision: int
    run: int
    attempt: int
    bundle: int
    product: int


def add(session: Session, row: Noun) -> Noun:
    session.add(row)
    session.flush()
    return row


def _seeded(session: Session, named: Named[Any], name: str) -> int:
    return int(find(session, named, name).id)


def a_world(session: Session) -> World:
    initialize(session, reference_data(), storage_root=Path("/storage"))
    planned = an_obs_unit(session, "map of M17")
    telescope, module = _seeded(session, TELESCOPE, "FYST"), _seeded(session, MODULE, "CHAI/LFA")
    processing = _seeded(session, LOCATION, "cologne/ramses")
    scan = add(session, a_scan(obs_unit=planned, telescope=telescope))
    transfer_package = add(session, models.DataTransferPackage(name="crossing-1"))
    package = add(session, a_package(scan=scan.id, module=module, name="package-1"))
    file = add(session, a_file(scan=scan.id, module=module, relative_path="scan-1.fits"))
    grouping = add(session, models.DataGrouping(name="all-chai"))
    grouping_revision = add(
        session, models.DataGroupingRevision(data_grouping_id=grouping.id, number=1, filter_rules=[], digest=DIGEST)
    )
    software = add(session, models.ReductionSoftware(name="gridder"))
    version = add(session, a_version(software=software.id, version="1.0"))
    pipeline = add(session, models.Pipeline(name="chai-maps"))
    pipeline_revision = add(
        session,
        models.PipelineRevision(
            pipeline_id=pipeline.id,
            number=1,
            data_grouping_revision_id=grouping_revision.id,
            processing_location_id=processing,
            trigger_type=states.TriggerType.CONTINUOUS,
            definition={},
            digest=DIGEST,
        ),
    )
    step = add(session, models.ReductionStep(pipeline_id=pipeline.id, key="grid"))
    step_revision = add(
        session, a_step_revision(pipeline_revision=pipeline_revision.id, step=step.id, software=software.id)
    )
    run = add(
        session,
        models.ExecutedReductionStep(
            reduction_step_id=step.id,
            step_revision_id=step_revision.id,
            pipeline_id=pipeline.id,
            data_location_id=processing,
            software_version_id=version.id,
            sub_group_key="source=1",
            sub_group_path="M17-00000000",
            sub_group_labels={"source": "M17"},
            reason=states.RunReason.MISSING,
            because="there is no product yet",
            recipe_digest=DIGEST,
            series_digest=DIGEST,
            input_digest=DIGEST,
        ),
    )
    attempt = add(session, models.RunAttempt(run_id=run.id, number=1, directory="1/attempt-1", job_name="ccat-0-1-1"))
    product = add(
        session,
        models.DataProduct(
            run_id=run.id,
            run_attempt_id=attempt.id,
            type=states.DataProductType.SCIENCE,
            relative_path="science/cube.fits",
            size_bytes=1,
            checksum=DIGEST,
        ),
    )
    bundle = add(session, models.JobBundle(data_location_id=processing, size=2))
    return World(
        bundle=bundle.id,
        obs_unit=planned,
        scan=scan.id,
        telescope=telescope,
        module=module,
        source_location=_seeded(session, LOCATION, "ccat/chai_raw_data"),
        archive=_seeded(session, LOCATION, "cologne/lta"),
        processing=processing,
        transfer_package=transfer_package.id,
        package=package.id,
        file=file.id,
        grouping_revision=grouping_revision.id,
        software=software.id,
        version=version.id,
        pipeline=pipeline.id,
        pipeline_revision=pipeline_revision.id,
        step=step.id,
        step_revision=step_revision.id,
        run=run.id,
        attempt=attempt.id,
        product=product.id,
    )


def an_obs_unit(session: Session, name: str) -> int:
    program = add(session, models.ObservingProgram(short_name=f"program of {name}", name="A survey"))
    source = add(session, models.FixedSource(name=f"source of {name}", ra_deg=275.1, dec_deg=-16.2))
    planned = models.ObsUnit(
        name=name,
        observing_program_id=program.id,
        source_id=source.id,
        obs_mode_id=_seeded(session, OBS_MODE, "OTF"),
    )
    return add(session, planned).id


def a_scan(*, obs_unit: int, telescope: int) -> models.ExecutedObsUnit:
    return models.ExecutedObsUnit(
        id=uuid.uuid4(),
        obs_unit_id=obs_unit,
        telescope_id=telescope,
        started_at=START,
        ended_at=START + timedelta(minutes=5),
        observing_night=START.date(),
    )


def a_package(*, scan: uuid.UUID, module: int, name: str, part: int = 1) -> models.RawDataPackage:
    return models.RawDataPackage(executed_obs_unit_id=scan, instrument_module_id=module, name=name, part=part)


def a_file(*, scan: uuid.UUID, module: int, relative_path: str) -> models.RawDataFile:
    return models.RawDataFile(
        id=uuid.uuid4(),
        executed_obs_unit_id=scan,
        instrument_module_id=module,
        relative_path=relative_path,
        size_bytes=1,
        checksum=DIGEST,
    )


def a_version(*, software: int, version: str) -> models.ReductionSoftwareVersion:
    return models.ReductionSoftwareVersion(
        reduction_software_id=software,
        version=version,
        series="1",
        runtime=states.Runtime.PROCESS,
        command=["gridder"],
        content_digest=DIGEST,
    )


def a_step_revision(*, pipeline_revision: int, step: int, software: int) -> models.ReductionStepRevision:
    return models.ReductionStepRevision(
        pipeline_revision_id=pipeline_revision,
        reduction_step_id=step,
        position=0,
        name="Grid",
        group_by=["source"],
        cooldown_seconds=0,
        reduction_software_id=software,
        version_policy=states.VersionPolicy.COMPATIBLE,
        takes_raw=True,
        is_final=True,
        required_outputs=[],
        resources={},
        max_retries=0,
    )
