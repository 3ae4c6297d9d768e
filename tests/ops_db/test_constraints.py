"""What the database itself refuses, whoever writes: each bad row, by the constraint that names what is wrong."""

import uuid
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ccat_ops_db import models, states
from ccat_ops_db.models import Base
from ccat_ops_db.session import transaction
from tests.ops_db.rows import DIGEST, START, World, a_file, a_package, add

Rows = Mapping[type[Base], Any]

NOT_CHECKSUMS = ["", "0" * 64, f"md5:{'0' * 32}", f"sha256:{'0' * 63}", f"sha256:{'A' * 64}", f"{DIGEST}\n"]
NOT_INSIDE = ["", "/etc/passwd", "..", "../other", "night/../../other", "night/.."]
NOT_IDENTIFIERS = ["", "Grid", "grid map", "-grid", "grid/map", "gr\u00edd", "grid\n"]

BAD_VALUES: list[tuple[type[Base], str, list[Any], str]] = [
    *(
        (noun, column, NOT_CHECKSUMS, f"{column}_is_sha256")
        for noun, column in [
            (models.RawDataFile, "checksum"),
            (models.RawDataPackage, "checksum"),
            (models.DataTransferPackage, "checksum"),
            (models.PhysicalCopy, "checksum"),
            (models.DataProduct, "checksum"),
            (models.DataGroupingRevision, "digest"),
            (models.ReductionStepConfigRevision, "digest"),
            (models.PipelineRevision, "digest"),
            (models.ReductionSoftwareVersion, "content_digest"),
            (models.ExecutedReductionStep, "recipe_digest"),
            (models.ExecutedReductionStep, "series_digest"),
            (models.ExecutedReductionStep, "input_digest"),
            (models.ExecutedReductionStep, "made_digest"),
        ]
    ),
    *(
        (noun, column, NOT_INSIDE, f"{column}_stays_inside")
        for noun, column in [
            (models.RawDataFile, "relative_path"),
            (models.RawDataPackage, "name"),
            (models.DataTransferPackage, "name"),
            (models.PhysicalCopy, "path"),
            (models.DataProduct, "relative_path"),
            (models.ExecutedReductionStep, "sub_group_path"),
            (models.RunAttempt, "directory"),
        ]
    ),
    *(
        (noun, column, [0, -1], f"{column}_is_positive")
        for noun, column in [
            (models.DataLocation, "live_limit"),
            (models.DataTransferRoute, "package_bytes"),
            (models.DataLocation, "scrub_mb_per_s"),
            (models.User, "live_limit"),
            (models.Installation, "live_limit_per_user"),
        ]
    ),
    *(
        (noun, column, [-1], f"{column}_is_not_negative")
        for noun, column in [
            (models.RawDataFile, "size_bytes"),
            (models.RawDataPackage, "size_bytes"),
            (models.DataTransferPackage, "size_bytes"),
            (models.PhysicalCopy, "size_bytes"),
            (models.DataProduct, "size_bytes"),
            (models.ExecutedObsUnit, "expected_files"),
            (models.DataLocation, "free_space_reserve_bytes"),
            (models.DataLocation, "scrub_days"),
            (models.ReductionStepRevision, "cooldown_seconds"),
            (models.ReductionStepRevision, "max_retries"),
            (models.ReductionStepRevision, "retention_days"),
            (models.ExecutedReductionStep, "retry_count"),
        ]
    ),
    *(
        (noun, column, NOT_IDENTIFIERS, f"{column}_is_an_identifier")
        for noun, column in [
            (models.DataGrouping, "name"),
            (models.ReductionStepConfig, "name"),
            (models.ReductionSoftware, "name"),
            (models.Pipeline, "name"),
            (models.ReductionStep, "key"),
        ]
    ),
    (models.Installation, "id", [2], "there_is_one"),
    (models.Observatory, "longitude_deg", [-180.1, 292.3], "longitude_in_range"),
    (models.Observatory, "latitude_deg", [-90.1, 90.1], "latitude_in_range"),
    (models.FixedSource, "ra_deg", [-0.1, 360.0], "ra_in_range"),
    (models.FixedSource, "dec_deg", [-90.1, 90.1], "dec_in_range"),
    (models.ConstantElevationSource, "elevation_deg", [-0.1, 90.1], "elevation_in_range"),
    (models.Source, "type", ["comet"], "type_is_known"),
    (models.Permission, "name", ["read", "read:All", "read all", ":all"], "name_is_action_and_resource"),
    (models.Site, "short_name", ["", "Cologne", "new york", "a.b"], "short_name_fits_in_a_queue_name"),
    (models.DataLocation, "name", ["", "Ramses", "a.b"], "name_fits_in_a_queue_name"),
    (models.DiskDataLocation, "path", ["", "data", "~/data"], "path_is_absolute"),
    (models.RawDataPackage, "part", [0], "part_counts_from_one"),
    (models.RunAttempt, "number", [0], "number_counts_from_one"),
]

BAD_COMBINATIONS: list[tuple[type[Base], dict[str, Any], str]] = [
    (models.ExecutedObsUnit, {"ended_at": START - timedelta(seconds=1)}, "ends_after_start"),
    (models.DataLocation, {"backend": None}, "processing_has_a_backend"),
    (models.DataLocation, {"location_type": states.LocationType.BUFFER}, "processing_has_a_backend"),
    (models.RawDataPackage, {"archived_at": START}, "archived_at_goes_with_the_state"),
    (
        models.RawDataPackage,
        {"state": states.PackageState.ARCHIVED, "checksum": DIGEST},
        "archived_at_goes_with_the_state",
    ),
    (
        models.RawDataPackage,
        {"state": states.PackageState.ARCHIVED, "archived_at": START},
        "archived_has_a_checksum",
    ),
    (models.RawDataPackage, {"excluded_at": START}, "exclusion_has_a_reason"),
    (models.RawDataPackage, {"excluded_pixels": []}, "excluded_pixels_are_named"),
    (models.Exclusion, {"instrument_id": 1}, "is_of_exactly_one_object"),
    (models.Exclusion, {"begins_at": START}, "is_of_a_package_or_a_time"),
    (
        models.Exclusion,
        {"raw_data_package_id": None, "instrument_id": 1, "begins_at": START, "ends_at": START},
        "ends_after_it_begins",
    ),
    (models.Exclusion, {"pixels": []}, "pixels_are_named"),
    (models.Exclusion, {"because": ""}, "has_a_reason"),
    (models.Exclusion, {"lifted_at": START}, "lifted_by_somebody_who_says_why"),
    (models.RawDataPackage, {"withdrawn_because": "wrong pointing"}, "withdrawal_has_a_reason"),
    (models.RawDataPackage, {"given_up_at": START}, "given_up_has_a_reason"),
    (models.RawDataPackage, {"given_up_at": START, "given_up_because": "its disk died"}, "what_is_gone_is_given_up"),
    (models.RawDataFile, {"lost_at": START}, "loss_is_told_as_a_whole"),
    (
        models.RawDataFile,
        {"lost_at": START, "lost_because": "its disk died", "lost_from_id": 1, "raw_data_package_id": 1},
        "what_is_lost_is_in_no_package",
    ),
    (models.PhysicalCopy, {"raw_data_file_id": None}, "is_of_exactly_one_object"),
    (models.PhysicalCopy, {"type": "raw_data_package"}, "type_goes_with_the_object"),
    (models.PhysicalCopy, {"type": "photograph"}, "type_goes_with_the_object"),
    (models.ReductionSoftwareVersion, {"runtime": states.Runtime.APPTAINER}, "apptainer_has_an_image"),
    (models.ReductionSoftwareVersion, {"image_ref": "gridder.sif"}, "apptainer_has_an_image"),
    (
        models.ReductionStepRevision,
        {"version_policy": states.VersionPolicy.EXACT},
        "exact_policy_pins_a_version",
    ),
    (models.ReductionStepRevision, {"min_fraction": 0.5}, "available_has_a_fraction"),
    (
        models.ReductionStepRevision,
        {"readiness": states.InputReadiness.AVAILABLE, "min_fraction": 1.5},
        "min_fraction_is_a_fraction",
    ),
    (models.ReductionStepRevision, {"archive": True, "is_final": False}, "only_final_is_archived"),
    (models.ReductionStepRevision, {"recompute": True, "is_final": True}, "only_intermediate_is_recomputed"),
    (models.ProductArchiveTransfer, {"status": states.Status.SCHEDULED}, "goes_somewhere"),
    (models.ProductArchiveTransfer, {"next_id": 1}, "moves_along_a_route"),
    (models.StagingJob, {"raw_data_package_id": None}, "is_of_exactly_one_object"),
    (models.ExecutedReductionStep, {"retry_at": START}, "only_failed_is_retried"),
    (models.ExecutedReductionStep, {"is_trial": True, "inputs_frozen_at": START}, "trial_expires"),
    (models.ExecutedReductionStep, {"expires_at": START}, "trial_expires"),
    (models.ExecutedReductionStep, {"is_trial": True, "expires_at": START}, "trial_has_frozen_inputs"),
    (models.ExecutedReductionStep, {"trial_parameters": {}}, "only_trial_sets_parameters"),
    *(
        (models.ExecutedReductionStep, {"status": status}, "started_has_frozen_inputs")
        for status in states.RunStatus
        if status not in {states.RunStatus.PENDING, states.RunStatus.CANCELLED}
    ),
    (models.RunInput, {"role": states.InputRole.UPSTREAM}, "role_goes_with_the_object"),
    (models.RunInput, {"raw_data_package_id": None}, "role_goes_with_the_object"),
    (models.RunInput, {"name": "flat"}, "auxiliary_has_a_name"),
    *((models.AuxiliaryRule, {"max_age": timedelta(hours=hours)}, "max_age_is_positive") for hours in (0, -1)),
    (models.Trigger, {"type": states.TriggerType.CRON}, "cron_has_a_tick"),
    (models.ExecutedReductionStep, {"cancel_requested_at": START}, "cancel_is_asked_for_by_somebody"),
    (models.ExecutedReductionStep, {"cancel_answer": "too late"}, "cancel_is_asked_for_by_somebody"),
    (models.JobBundle, {"size": 0}, "size_is_positive"),
    (models.RunAttempt, {"memory_gb": 0.0}, "memory_gb_is_positive"),
    (models.RunAttempt, {"time_hours": 0.0}, "time_hours_is_positive"),
    (models.ReductionStepConfigRevision, {"withdrawn_at": START}, "withdrawal_has_a_reason"),
    (models.Withdrawal, {"run_id": 1}, "is_of_exactly_one_object"),
    (models.Withdrawal, {"raw_data_package_id": None}, "is_of_exactly_one_object"),
    (models.Withdrawal, {"reinstated_at": START}, "reinstated_by_somebody"),
    (models.Alert, {"number": 0}, "number_is_positive"),
    (models.Alert, {"told_number": -1}, "told_number_is_not_negative"),
    (models.AlertWatch, {"id": 2}, "there_is_one"),
    (models.ReplicationRound, {"id": 2}, "there_is_one"),
    (models.AlertWatch, {"tries": -1}, "tries_is_not_negative"),
    (models.DataLocation, {"free_bytes": -1, "space_checked_at": START}, "free_bytes_is_not_negative"),
    (models.DataLocation, {"free_bytes": 1}, "space_has_a_moment"),
    (models.DataLocation, {"retention_days": -1}, "retention_days_is_not_negative"),
    (models.DataLocation, {"high_watermark": 0.8, "low_watermark": 0.9}, "marks_are_fractions"),
    (models.DataLocation, {"high_watermark": 0.9}, "marks_go_together"),
    (models.DataClass, {"name": "x", "min_verified_archive_copies": 0}, "min_verified_archive_copies_is_positive"),
    (models.DataLocation, {"trouble": "is missing"}, "space_has_a_moment"),
    (models.DataLocation, {"unreadable": "is missing"}, "unreadable_has_a_moment"),
    (models.DataLocation, {"lost_at": START, "lost_because": "fire"}, "what_is_lost_takes_nothing"),
    (models.DataLocation, {"lost_at": START, "active": False}, "loss_is_told_as_a_whole"),
    (models.DataLocation, {"space_checked_at": START}, "space_has_a_moment"),
    (models.ArchiveReader, {"unreadable": "is missing"}, "unreadable_has_a_moment"),
    (models.Pause, {"pipeline_id": 1, "data_location_id": 1}, "is_of_one_thing"),
    (models.DataTransferRoute, {"destination_site_id": 1, "origin_site_id": 1}, "leads_somewhere_else"),
    (models.DataTransferRoute, {"package_wait_seconds": -1}, "package_wait_seconds_is_not_negative"),
    (models.DataTransferRoute, {"route_type": states.RouteType.RELAY}, "relay_has_a_site"),
    (models.DataTransferRoute, {"route_type": states.RouteType.RELAY, "via_site_id": 1}, "relay_is_another_site"),
    (models.DataTransferRoute, {"route_type": states.RouteType.CUSTOM}, "custom_has_locations"),
    (models.DataTransferRoute, {"origin_id": 1}, "custom_has_locations"),
]

BAD_ROWS = [
    *((noun, {column: value}, check) for noun, column, values, check in BAD_VALUES for value in values),
    *BAD_COMBINATIONS,
]


@pytest.fixture(scope="module")
def rows(shared_engine: sa.Engine, world: World) -> Rows:
    """A valid row of each noun that has a constraint, by its id."""
    with transaction(shared_engine) as session:
        route = add(
            session,
            models.DataTransferRoute(
                name="another",
                origin_site_id=_id(session, models.Site, short_name="ccat"),
                destination_site_id=_id(session, models.Site, short_name="cologne"),
                route_type=states.RouteType.DIRECT,
                method=states.Mover.COPY,
            ),
        )
        more: list[Base] = [
            route,
            models.ConstantElevationSource(name="strip", elevation_deg=60),
            models.RawDataFilePhysicalCopy(
                raw_data_file_id=world.file, data_location_id=world.source_location, path="scan-1.fits"
            ),
            models.RunInput(run_id=world.run, role=states.InputRole.RAW, raw_data_package_id=world.package),
            models.AuxiliaryRule(
                step_revision_id=world.step_revision,
                name="flat",
                from_step_id=world.step,
                same=[],
                max_age=timedelta(hours=12),
                on_missing=states.OnMissing.WAIT,
                redo_on_better=False,
            ),
            models.Trigger(pipeline_id=world.pipeline, type=states.TriggerType.MANUAL, because="a test", by="a test"),
            models.Pause(because="a test", by="a test"),
            models.User(name="ann"),
            models.StagingJob(raw_data_package_id=world.package, data_location_id=world.processing),
            models.ArchiveReader(data_location_id=world.archive, worker="worker", looked_at=START),
            models.Alert(kind=states.AlertKind.FULL_DISK, key="1", sentence="it is full"),
            models.AlertWatch(id=1),
            models.ReplicationRound(id=1),
            models.Withdrawal(raw_data_package_id=world.package, what="package 1", because="a test", by="a test"),
            models.Exclusion(
                raw_data_package_id=world.package, what="package 1", pixels=["7"], because="a test", by="a test"
            ),
            models.LongTermArchiveTransfer(
                raw_data_package_id=world.package, origin_id=world.source_location, destination_id=world.archive
            ),
            models.ProductArchiveTransfer(run_id=world.run, origin_id=world.processing),
            models.DataTransfer(
                data_transfer_package_id=world.transfer_package,
                data_transfer_route_id=route.id,
                origin_id=world.source_location,
                destination_id=world.archive,
            ),
        ]
        config = add(session, models.ReductionStepConfig(name="grid-defaults"))
        more.append(
            models.ReductionStepConfigRevision(
                reduction_step_config_id=config.id, number=1, parameters={}, environment={}, digest=DIGEST
            )
        )
        session.add_all(more)
        session.flush()
        added = {type(row): row.__mapper__.primary_key_from_instance(row)[0] for row in [config, *more]}
        site = _id(session, models.Site, short_name="cologne")
        return added | {
            models.PhysicalCopy: added[models.RawDataFilePhysicalCopy],
            models.RawDataFile: world.file,
            models.RawDataPackage: world.package,
            models.DataTransferPackage: world.transfer_package,
            models.DataProduct: world.product,
            models.DataGroupingRevision: world.grouping_revision,
            models.DataGrouping: _id(session, models.DataGrouping, name="all-chai"),
            models.PipelineRevision: world.pipeline_revision,
            models.Pipeline: world.pipeline,
            models.ReductionSoftware: world.software,
            models.ReductionSoftwareVersion: world.version,
            models.ReductionStep: world.step,
            models.ReductionStepRevision: world.step_revision,
            models.ExecutedReductionStep: world.run,
            models.RunAttempt: world.attempt,
            models.JobBundle: world.bundle,
            models.ExecutedObsUnit: world.scan,
            models.Site: site,
            models.DataLocation: world.processing,
            models.DiskDataLocation: world.processing,
            models.Installation: 1,
            models.Observatory: _id(session, models.Observatory, name="CCAT Observatory"),
            models.Source: _id(session, models.Source, name="source of map of M17"),
            models.FixedSource: _id(session, models.Source, name="source of map of M17"),
            models.Permission: _id(session, models.Permission, name="read:all"),
            models.DataClass: _id(session, models.DataClass, name="raw"),
        }


@pytest.fixture
def session(shared_engine: sa.Engine) -> Iterator[Session]:
    """A session whose work is undone."""
    with Session(shared_engine) as session:
        yield session


def _id(session: Session, noun: type[Base], **names: str) -> Any:
    return session.scalars(sa.select(noun.__table__.c.id).filter_by(**names)).one()


def _change(session: Session, noun: type[Base], row: Any, **values: Any) -> None:
    session.execute(_table(noun).update().where(_table(noun).c.id == row).values(values))


def _copy(session: Session, noun: type[Base], row: Any, **changes: Any) -> None:
    """A second row that differs from the first in its own id and in what is given."""
    table = _table(noun)
    written = [column for column in table.c if column.computed is None]
    values = dict(session.execute(sa.select(*written).where(table.c.id == row)).mappings().one())
    values["id"] = uuid.uuid4() if isinstance(row, uuid.UUID) else values["id"] + 1_000_000
    session.execute(table.insert().values(values | changes))


def _table(noun: type[Base]) -> sa.Table:
    assert isinstance(noun.__table__, sa.Table)
    return noun.__table__


def _refusal(error: IntegrityError) -> str | None:
    assert isinstance(error.orig, psycopg.IntegrityError)
    return error.orig.diag.constraint_name


@pytest.mark.parametrize(
    ("noun", "values", "check"),
    BAD_ROWS,
    ids=[f"{noun.__name__} {check}: {next(iter(values.values()))!r}" for noun, values, check in BAD_ROWS],
)
def test_a_bad_row_is_refused_by_the_check_that_says_why(
    session: Session, rows: Rows, noun: type[Base], values: dict[str, Any], check: str
) -> None:
    with pytest.raises(IntegrityError) as refused:
        _change(session, noun, rows[noun], **values)
    assert _refusal(refused.value) == f"ck_{noun.__tablename__}_{check}"


def test_every_check_of_the_schema_has_a_bad_row_here(session: Session) -> None:
    checks = set(session.scalars(sa.text("SELECT conname FROM pg_constraint WHERE conname LIKE 'ck\\_%'")))
    enums = {
        f"ck_{table.name}_{column.type.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, sa.Enum)
    }
    assert checks - enums == {f"ck_{noun.__tablename__}_{check}" for noun, _, check in BAD_ROWS}


ENUM_COLUMNS = [
    (table, column.name)
    for table in Base.metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, sa.Enum)
]


@pytest.mark.parametrize(("table", "column"), ENUM_COLUMNS, ids=[f"{table}.{column}" for table, column in ENUM_COLUMNS])
def test_an_enum_column_takes_its_published_values_in_lower_case_and_nothing_else(
    session: Session, table: sa.Table, column: str
) -> None:
    kind = table.c[column].type
    assert isinstance(kind, sa.Enum)
    assert kind.enum_class is not None
    (definition,) = session.scalars(
        sa.text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name"),
        {"name": f"ck_{table.name}_{kind.name}"},
    )
    allowed = {word.split("'")[1] for word in definition.split(",")}
    assert allowed == {name.lower() for name in kind.enum_class.__members__}


SECOND_ROWS: list[tuple[type[Base], dict[str, Any], str]] = [
    (models.Pipeline, {}, "uq_pipeline_name"),
    (models.ReductionStep, {}, "uq_reduction_step_pipeline_id_key"),
    (models.PipelineRevision, {}, "uq_pipeline_revision_pipeline_id_number"),
    (models.DataGroupingRevision, {}, "uq_data_grouping_revision_data_grouping_id_number"),
    (models.ReductionStepConfigRevision, {}, "uq_reduction_step_config_revision_reduction_step_config_id_number"),
    (models.ReductionSoftwareVersion, {}, "uq_reduction_software_version_reduction_software_id_version"),
    (models.DataLocation, {}, "uq_data_location_site_id_name"),
    (models.RawDataFile, {}, "uq_raw_data_file_executed_obs_unit_id_instrument_module_id_relative_path"),
    (models.RawDataPackage, {"part": 2}, "uq_raw_data_package_name"),
    (
        models.RawDataPackage,
        {"name": "another"},
        "uq_raw_data_package_executed_obs_unit_id_instrument_module_id_part",
    ),
    (models.RunAttempt, {"job_name": "another"}, "uq_run_attempt_run_id_number"),
    (models.RunAttempt, {"number": 2}, "uq_run_attempt_job_name"),
    (models.DataProduct, {}, "uq_data_product_run_id_relative_path"),
    (models.RunInput, {}, "uq_run_input_raw"),
    (models.AuxiliaryRule, {}, "uq_auxiliary_rule_step_revision_id_name"),
    (models.StagingJob, {}, "uq_staging_job_live"),
    (models.DataTransfer, {}, "uq_data_transfer_live"),
    (models.PhysicalCopy, {}, "uq_physical_copy_live_raw_data_file"),
]


@pytest.mark.parametrize(
    ("noun", "changes", "constraint"), SECOND_ROWS, ids=[constraint for _, _, constraint in SECOND_ROWS]
)
def test_a_second_row_with_the_same_identity_is_refused(
    session: Session, rows: Rows, noun: type[Base], changes: dict[str, Any], constraint: str
) -> None:
    with pytest.raises(IntegrityError) as refused:
        _copy(session, noun, rows[noun], **changes)
    assert str(_refusal(refused.value))[:55] == constraint[:55]  # longer names than PostgreSQL's end in a digest


ACTIVE = [*((status, None) for status in states.LIVE_RUN_STATUSES), (states.RunStatus.FAILED, START)]
OVER = [(status, None) for status in states.RunStatus if status not in states.LIVE_RUN_STATUSES]


@pytest.mark.parametrize(("first", "retry_of_first"), ACTIVE)
@pytest.mark.parametrize(("second", "retry_of_second"), ACTIVE)
def test_a_sub_group_has_at_most_one_active_run(
    session: Session, world: World, first: str, retry_of_first: Any, second: str, retry_of_second: Any
) -> None:
    run = models.ExecutedReductionStep
    _change(session, run, world.run, status=first, retry_at=retry_of_first, inputs_frozen_at=START)
    with pytest.raises(IntegrityError) as refused:
        _copy(session, run, world.run, status=second, retry_at=retry_of_second)
    assert _refusal(refused.value) == "uq_executed_reduction_step_active"


@pytest.mark.parametrize(("status", "retry_at"), OVER)
def test_runs_that_are_over_leave_the_place_to_the_next(
    session: Session, world: World, status: str, retry_at: Any
) -> None:
    run = models.ExecutedReductionStep
    _copy(session, run, world.run, status=status, retry_at=retry_at, inputs_frozen_at=START)


def test_trials_take_no_place(session: Session, world: World) -> None:
    trial = {"is_trial": True, "expires_at": START, "inputs_frozen_at": START}
    _copy(session, models.ExecutedReductionStep, world.run, **trial)


def test_two_sub_groups_of_a_step_run_at_the_same_time(session: Session, world: World) -> None:
    _copy(session, models.ExecutedReductionStep, world.run, sub_group_key="source=2")


@pytest.mark.parametrize("noun", ["raw_data_file", "raw_data_package", "data_transfer_package", "data_product"])
def test_an_object_has_one_live_copy_at_a_location_and_any_number_of_deleted_ones(
    session: Session, world: World, noun: str
) -> None:
    objects = {
        "raw_data_file": world.file,
        "raw_data_package": world.package,
        "data_transfer_package": world.transfer_package,
        "data_product": world.product,
    }

    def copy_at(location: int, status: states.PhysicalCopyStatus) -> sa.Insert:
        values = {"type": noun, f"{noun}_id": objects[noun], "path": "here", "status": status}
        return _table(models.PhysicalCopy).insert().values(values | {"data_location_id": location})

    deleted, present = states.PhysicalCopyStatus.DELETED, states.PhysicalCopyStatus.PRESENT
    for status in (deleted, deleted, present):
        session.execute(copy_at(world.archive, status))
    session.execute(copy_at(world.processing, present))
    with pytest.raises(IntegrityError) as refused:
        session.execute(copy_at(world.archive, states.PhysicalCopyStatus.MISSING))
    assert _refusal(refused.value) == f"uq_physical_copy_live_{noun}"


def test_a_package_is_staged_again_once_the_first_staging_is_over(session: Session, rows: Rows) -> None:
    _change(session, models.StagingJob, rows[models.StagingJob], status=states.Status.COMPLETED)
    _copy(session, models.StagingJob, rows[models.StagingJob], status=states.Status.PENDING)


def test_moments_come_back_in_utc_and_a_night_is_a_date(session: Session, world: World) -> None:
    scan = session.get_one(models.ExecutedObsUnit, world.scan)
    assert scan.started_at == START
    assert scan.started_at.utcoffset() == timedelta(0)
    assert scan.observing_night == date(2026, 4, 5)


def test_what_is_not_said_is_null_and_not_a_json_null(session: Session, world: World) -> None:
    package = add(session, a_package(scan=world.scan, module=world.module, name="p2", part=2))
    file = add(session, a_file(scan=world.scan, module=world.module, relative_path="scan-2.fits"))
    assert (package.metadata_, file.raw_data_package_id) == ({}, None)
    attempt = models.RunAttempt(run_id=world.run, number=2, directory="x", job_name="x", environment=None)
    add(session, attempt)
    absent = sa.select(models.RunAttempt.id).where(models.RunAttempt.environment.is_(sa.null()))
    assert attempt.id in session.scalars(absent).all()
