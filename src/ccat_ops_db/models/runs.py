from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ccat_ops_db.models.base import (
    Base,
    CreatedAt,
    Identity,
    Json,
    Leased,
    is_checksum,
    is_not_negative,
    is_path_inside,
    is_positive,
)
from ccat_ops_db.models.data import RawDataPackage
from ccat_ops_db.models.locations import DataLocation
from ccat_ops_db.models.pipelines import (
    Pipeline,
    ReductionSoftwareVersion,
    ReductionStep,
    ReductionStepConfigRevision,
    ReductionStepRevision,
)
from ccat_ops_db.states import DataProductType, FailureClass, InputRole, ProductState, Resource, RunReason, RunStatus

ACTIVE_RUN = (
    "(status IN ('pending', 'staging_data', 'submitted', 'running', 'collecting_results')"
    " OR (status = 'failed' AND retry_at IS NOT NULL))"
)
"""SQL predicate of an active run: trials aside at most one per (step, sub-group), by a partial unique index."""

LIVE_RUN = "status IN ('staging_data', 'submitted', 'running', 'collecting_results')"
"""SQL predicate of a run that occupies something, and is counted by limits."""

_IN_LINE = "status = 'pending' AND (waiting_for IS NULL OR held_by_limit)"
_IS_TO_BE_CANCELLED = "cancel_requested_at IS NOT NULL AND cancel_answer IS NULL"
_WAITS = "status = 'pending' AND NOT (waiting_for IS NULL OR held_by_limit)"


class ExecutedReductionStep(Leased, Base):
    """A run: one execution of a step for one sub-group."""

    __tablename__ = "executed_reduction_step"
    __table_args__ = (
        sa.Index(
            "uq_executed_reduction_step_active",
            "reduction_step_id",
            "sub_group_key",
            unique=True,
            postgresql_where=sa.text(f"{ACTIVE_RUN} AND NOT is_trial"),
        ),
        sa.Index("ix_executed_reduction_step_step_sub_group", "reduction_step_id", "sub_group_key", "id"),
        sa.Index(
            "ix_executed_reduction_step_version_step", "software_version_id", "reduction_step_id", "inputs_frozen_at"
        ),
        sa.Index(
            "ix_executed_reduction_step_trigger", "trigger_id", postgresql_where=sa.text("trigger_id IS NOT NULL")
        ),
        sa.Index("ix_executed_reduction_step_active_status", "status", "id", postgresql_where=sa.text(ACTIVE_RUN)),
        sa.Index(
            "ix_executed_reduction_step_in_line",
            "pipeline_id",
            "is_redo",
            "queue_rank",
            "id",
            postgresql_where=sa.text(_IN_LINE),
        ),
        sa.Index(
            "ix_executed_reduction_step_waits",
            sa.text("lease_until ASC NULLS FIRST"),
            "id",
            postgresql_where=sa.text(_WAITS),
        ),
        sa.Index(
            "ix_executed_reduction_step_to_be_cancelled",
            "data_location_id",
            "id",
            postgresql_where=sa.text("is_to_be_cancelled"),
        ),
        sa.Index(
            "ix_executed_reduction_step_failed", "fingerprint", "id", postgresql_where=sa.text("status = 'failed'")
        ),
        is_checksum("recipe_digest"),
        is_checksum("series_digest"),
        is_checksum("input_digest"),
        is_checksum("made_digest"),
        is_not_negative("retry_count"),
        is_path_inside("sub_group_path"),
        sa.CheckConstraint("status = 'failed' OR retry_at IS NULL", name="only_failed_is_retried"),
        sa.CheckConstraint(
            "status IN ('pending', 'cancelled') OR inputs_frozen_at IS NOT NULL", name="started_has_frozen_inputs"
        ),
        sa.CheckConstraint("is_trial = (expires_at IS NOT NULL)", name="trial_expires"),
        sa.CheckConstraint("NOT is_trial OR inputs_frozen_at IS NOT NULL", name="trial_has_frozen_inputs"),
        sa.CheckConstraint("is_trial OR trial_parameters IS NULL", name="only_trial_sets_parameters"),
        sa.CheckConstraint(
            "num_nulls(cancel_requested_at, cancel_requested_by, cancel_because) IN (0, 3)"
            " AND (cancel_answer IS NULL OR cancel_requested_at IS NOT NULL)",
            name="cancel_is_asked_for_by_somebody",
        ),
    )

    id: Mapped[Identity]
    reduction_step_id: Mapped[int] = mapped_column(sa.ForeignKey("reduction_step.id"), comment="Step that is executed.")
    step_revision_id: Mapped[int] = mapped_column(
        sa.ForeignKey("reduction_step_revision.id"), comment="Revision that made it."
    )
    pipeline_id: Mapped[int] = mapped_column(sa.ForeignKey("pipeline.id"), index=True, comment="Pipeline of the step.")
    data_location_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_location.id"), comment="PROCESSING location where it runs."
    )
    software_version_id: Mapped[int] = mapped_column(
        sa.ForeignKey("reduction_software_version.id"), comment="Version of the software that it runs."
    )
    config_revision_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("reduction_step_config_revision.id"), index=True, comment="Parameters that it runs with."
    )
    sub_group_key: Mapped[str] = mapped_column(comment="`dim=value,…`: identity of the sub-group within the step.")
    sub_group_path: Mapped[str] = mapped_column(comment="Readable, path-safe form of the key.")
    sub_group_labels: Mapped[Json] = mapped_column(comment="Dimension → value as people read it.")
    status: Mapped[RunStatus] = mapped_column(
        server_default=RunStatus.PENDING, comment="How far it is; written by advance() only."
    )
    reason: Mapped[RunReason] = mapped_column(comment="Why it became necessary.")
    because: Mapped[str] = mapped_column(comment="The reason as a sentence.")
    waiting_for: Mapped[str | None] = mapped_column(comment="Why it does not go on, as far as known.")
    is_trial: Mapped[bool] = mapped_column(
        server_default=sa.false(),
        comment="Whether it tries something out: nothing that decides what is necessary sees it.",
    )
    trial_parameters: Mapped[Json | None] = mapped_column(
        comment="All parameters of a trial that sets some; NULL: those of its config."
    )
    expires_at: Mapped[datetime | None] = mapped_column(comment="Until when the products of a trial are kept.")
    held_by_limit: Mapped[bool] = mapped_column(
        server_default=sa.false(), comment="Whether it waits for a limit only, and so keeps its place in the order."
    )
    priority: Mapped[int] = mapped_column(server_default="0", comment="Higher goes first.")
    trigger_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("trigger.id"), comment="Trigger that it belongs to, if it does to one."
    )
    recipe_digest: Mapped[str] = mapped_column(comment="Version, config and definition that it was made with.")
    series_digest: Mapped[str] = mapped_column(comment="The same with the version's series in place of the version.")
    input_digest: Mapped[str] = mapped_column(comment="Wanted inputs at creation; those used once frozen.")
    packages_until: Mapped[datetime | None] = mapped_column(
        comment="Cut-off: the run waited for packages archived until then."
    )
    inputs_frozen_at: Mapped[datetime | None] = mapped_column(comment="When its inputs were fixed.")
    finished_at: Mapped[datetime | None] = mapped_column(comment="When it became COMPLETED, FAILED or CANCELLED.")
    retry_count: Mapped[int] = mapped_column(server_default="0", comment="Retries counted against the step.")
    trouble_count: Mapped[int] = mapped_column(server_default="0", comment="Retries for trouble outside the software.")
    trouble_since: Mapped[datetime | None] = mapped_column(
        comment="When the first failure in a row for trouble outside the software was; NULL: none since it last ran."
    )
    retry_at: Mapped[datetime | None] = mapped_column(comment="When a FAILED run is tried again; NULL: given up.")
    not_needed: Mapped[bool] = mapped_column(
        server_default=sa.false(), comment="CANCELLED, or FAILED, and nothing needed it any more; blocks nothing."
    )
    failure_class: Mapped[FailureClass | None] = mapped_column(comment="Kind of the last failure.")
    failure: Mapped[str | None] = mapped_column(comment="What went wrong last, in one line, and what to do.")
    fingerprint: Mapped[str | None] = mapped_column(comment="What is alike of all failures like its last one.")
    cancel_requested_at: Mapped[datetime | None] = mapped_column(comment="When somebody wished it to be cancelled.")
    cancel_requested_by: Mapped[str | None] = mapped_column(comment="Who wished that.")
    cancel_because: Mapped[str | None] = mapped_column(comment="Why that was wished.")
    cancel_answer: Mapped[str | None] = mapped_column(comment="What became of the wish; NULL: it is carried out.")
    is_to_be_cancelled: Mapped[bool] = mapped_column(
        sa.Computed(_IS_TO_BE_CANCELLED, persisted=True), comment="Whether a wish to cancel it stands."
    )
    made_digest: Mapped[str | None] = mapped_column(
        comment="Digest of what it made for others; NULL: nothing, or not yet COMPLETED."
    )
    metrics: Mapped[Json] = mapped_column(server_default=sa.text("'{}'"), comment="Quality metrics of its products.")
    created_at: Mapped[CreatedAt]
    is_redo: Mapped[bool] = mapped_column(
        sa.Computed("reason NOT IN ('missing', 'inputs_changed') AND NOT is_trial", persisted=True),
        comment="Whether it does again what was done before.",
    )
    queue_rank: Mapped[int] = mapped_column(
        sa.Computed(
            "floor(extract(epoch FROM created_at - timestamptz '2000-01-01 00:00:00+00') / 3600)::bigint - priority",
            persisted=True,
        ),
        comment="Of those that wait the lowest starts first: an hour of waiting counts as one priority.",
    )

    reduction_step: Mapped[ReductionStep] = relationship()
    step_revision: Mapped[ReductionStepRevision] = relationship()
    pipeline: Mapped[Pipeline] = relationship()
    location: Mapped[DataLocation] = relationship()
    software_version: Mapped[ReductionSoftwareVersion] = relationship()
    config_revision: Mapped[ReductionStepConfigRevision | None] = relationship()
    attempts: Mapped[list["RunAttempt"]] = relationship(back_populates="run", order_by="RunAttempt.number")
    products: Mapped[list["DataProduct"]] = relationship(back_populates="run", order_by="DataProduct.relative_path")


class JobBundle(Base):
    """Attempts that are handed in together: committed before the cluster hears of it, under a name made of its id."""

    __tablename__ = "job_bundle"
    __table_args__ = (is_positive("size"),)

    id: Mapped[Identity]
    data_location_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_location.id"), index=True, comment="PROCESSING location whose cluster it is given to."
    )
    size: Mapped[int] = mapped_column(comment="How many attempts it was made for.")
    created_at: Mapped[CreatedAt]
    submitted_at: Mapped[datetime | None] = mapped_column(comment="When the cluster took it.")


class RunAttempt(Base):
    """One try of a run; committed with its job name before the job is submitted."""

    __tablename__ = "run_attempt"
    __table_args__ = (
        sa.UniqueConstraint("run_id", "number"),
        sa.CheckConstraint("number >= 1", name="number_counts_from_one"),
        is_path_inside("directory"),
        is_positive("memory_gb"),
        is_positive("time_hours"),
        sa.Index("ix_run_attempt_bundle", "job_bundle_id", postgresql_where=sa.text("job_bundle_id IS NOT NULL")),
        sa.Index("ix_run_attempt_abandoned", "id", postgresql_where=sa.text("abandoned_at IS NOT NULL")),
    )

    id: Mapped[Identity]
    run_id: Mapped[int] = mapped_column(sa.ForeignKey("executed_reduction_step.id"), comment="Run that it tries.")
    number: Mapped[int] = mapped_column(comment="Counts from one; the highest is the current one.")
    directory: Mapped[str] = mapped_column(comment="Its directory below the pipeline base directory.")
    job_name: Mapped[str] = mapped_column(unique=True, comment="Key by which the cluster is asked after any doubt.")
    job_id: Mapped[str | None] = mapped_column(comment="Name that the cluster gave it.")
    job_bundle_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("job_bundle.id"), comment="Bundle with which it was last to be handed in; NULL: by itself."
    )
    memory_gb: Mapped[float | None] = mapped_column(comment="Memory that it asks the cluster for.")
    time_hours: Mapped[float | None] = mapped_column(comment="Time limit that it asks the cluster for.")
    prepared_at: Mapped[datetime | None] = mapped_column(comment="When its directories and manifest were complete.")
    submitted_at: Mapped[datetime | None] = mapped_column(comment="When the cluster took it.")
    started_at: Mapped[datetime | None] = mapped_column(comment="When the software started.")
    ended_at: Mapped[datetime | None] = mapped_column(comment="When the software ended, or was found gone.")
    unknown_since: Mapped[datetime | None] = mapped_column(
        comment="Since when the cluster cannot tell what the job does; NULL: it can."
    )
    cancel_asked_at: Mapped[datetime | None] = mapped_column(comment="When the cluster was last asked to end its job.")
    abandoned_at: Mapped[datetime | None] = mapped_column(
        comment="When its run went on though its job might live; NULL: it is over, or still followed."
    )
    exit_code: Mapped[int | None] = mapped_column(comment="Exit code of the software.")
    failure_class: Mapped[FailureClass | None] = mapped_column(comment="Kind of failure, if it failed.")
    exhausted: Mapped[Resource | None] = mapped_column(comment="Of what it needed more than it had, if that was it.")
    cause: Mapped[str | None] = mapped_column(comment="What went wrong, in one line.")
    fingerprint: Mapped[str | None] = mapped_column(comment="What is alike of all failures like this one.")
    log_tail: Mapped[str | None] = mapped_column(comment="Last 50 lines of its log.")
    wall_time_s: Mapped[float | None] = mapped_column(comment="Elapsed time in seconds.")
    cpu_time_s: Mapped[float | None] = mapped_column(comment="CPU time in seconds.")
    peak_memory_bytes: Mapped[int | None] = mapped_column(comment="Largest memory in bytes.")
    host: Mapped[str | None] = mapped_column(comment="Host that it ran on.")
    command: Mapped[list[str] | None] = mapped_column(comment="Argument list that was executed.")
    environment: Mapped[Json | None] = mapped_column(
        comment="Environment that it got; what is secret in it by its digest."
    )
    created_at: Mapped[CreatedAt]

    run: Mapped[ExecutedReductionStep] = relationship(back_populates="attempts")


class DataProduct(Base):
    """One file, or one `.zarr` directory, that a run made."""

    __tablename__ = "data_product"
    __table_args__ = (
        sa.UniqueConstraint("run_id", "relative_path"),
        is_checksum("checksum"),
        is_not_negative("size_bytes"),
        is_path_inside("relative_path"),
        sa.Index("ix_data_product_invalid", "run_id", postgresql_where=sa.text("state IN ('orphaned', 'withdrawn')")),
    )

    id: Mapped[Identity]
    run_id: Mapped[int] = mapped_column(sa.ForeignKey("executed_reduction_step.id"), comment="Run that made it.")
    run_attempt_id: Mapped[int] = mapped_column(sa.ForeignKey("run_attempt.id"), index=True, comment="Its attempt.")
    type: Mapped[DataProductType] = mapped_column(comment="What it is for.")
    state: Mapped[ProductState] = mapped_column(
        server_default=ProductState.CURRENT, comment="Whether it counts; written by advance() only."
    )
    relative_path: Mapped[str] = mapped_column(comment="Path below the run's products directory.")
    size_bytes: Mapped[int] = mapped_column(comment="Size in bytes; of a directory the sum of its files.")
    checksum: Mapped[str] = mapped_column(comment="Digest of the bytes; of a directory that of its sorted listing.")
    media_type: Mapped[str | None] = mapped_column(comment="Media type, as the software said.")
    description: Mapped[str | None] = mapped_column(comment="What it shows, as the software said.")
    metadata_: Mapped[Json] = mapped_column(
        "metadata", server_default=sa.text("'{}'"), comment="What the software said."
    )
    metrics: Mapped[Json] = mapped_column(server_default=sa.text("'{}'"), comment="Quality metrics of this product.")
    created_at: Mapped[CreatedAt]

    run: Mapped[ExecutedReductionStep] = relationship(back_populates="products")


class RunInput(Base):
    """One input of a run, fixed when its inputs were frozen: an edge of the lineage."""

    __tablename__ = "run_input"
    __table_args__ = (
        sa.CheckConstraint(
            "CASE role WHEN 'raw' THEN raw_data_package_id IS NOT NULL AND data_product_id IS NULL"
            " ELSE data_product_id IS NOT NULL AND raw_data_package_id IS NULL END",
            name="role_goes_with_the_object",
        ),
        sa.Index(
            "uq_run_input_raw",
            "run_id",
            "raw_data_package_id",
            unique=True,
            postgresql_where=sa.text("raw_data_package_id IS NOT NULL"),
        ),
        sa.CheckConstraint("(role = 'auxiliary') = (name IS NOT NULL)", name="auxiliary_has_a_name"),
        sa.Index(
            "uq_run_input_product",
            "run_id",
            "data_product_id",
            "name",
            unique=True,
            postgresql_nulls_not_distinct=True,
            postgresql_where=sa.text("data_product_id IS NOT NULL"),
        ),
    )

    id: Mapped[Identity]
    run_id: Mapped[int] = mapped_column(sa.ForeignKey("executed_reduction_step.id"), comment="Run that takes it.")
    role: Mapped[InputRole] = mapped_column(comment="What it is to the run.")
    name: Mapped[str | None] = mapped_column(comment="How the step calls it, for role auxiliary.")
    raw_data_package_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("raw_data_package.id"), index=True, comment="The raw package, for role raw."
    )
    data_product_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_product.id"), index=True, comment="The product, for the other roles."
    )
    excluded_pixels: Mapped[list[str] | None] = mapped_column(
        sa.ARRAY(sa.Text), comment="Pixels of the raw package that the run leaves out; NULL: none."
    )


class AcceptedCoverage(Base):
    """A person's word that a sub-group goes without packages that it would wait for."""

    __tablename__ = "accepted_coverage"
    __table_args__ = (sa.Index("ix_accepted_coverage_place", "reduction_step_id", "sub_group_key"),)

    id: Mapped[Identity]
    reduction_step_id: Mapped[int] = mapped_column(
        sa.ForeignKey("reduction_step.id"), comment="Step that goes without them."
    )
    sub_group_key: Mapped[str] = mapped_column(comment="Its sub-group.")
    because: Mapped[str] = mapped_column(comment="Why it was accepted.")
    by: Mapped[str] = mapped_column(comment="Who accepted it.")
    created_at: Mapped[CreatedAt]

    packages: Mapped[list[RawDataPackage]] = relationship(secondary="accepted_package", order_by="RawDataPackage.id")


class AcceptedPackage(Base):
    """A raw package that a sub-group goes without, because a person accepted that."""

    __tablename__ = "accepted_package"

    accepted_coverage_id: Mapped[int] = mapped_column(
        sa.ForeignKey("accepted_coverage.id"), primary_key=True, comment="What was accepted."
    )
    raw_data_package_id: Mapped[int] = mapped_column(
        sa.ForeignKey("raw_data_package.id"), primary_key=True, comment="The raw package."
    )


class RunCoverage(Base):
    """A raw package that went into a run, directly or through the runs whose products it took."""

    __tablename__ = "run_coverage"

    run_id: Mapped[int] = mapped_column(
        sa.ForeignKey("executed_reduction_step.id"), primary_key=True, comment="The run, once its inputs are fixed."
    )
    raw_data_package_id: Mapped[int] = mapped_column(
        sa.ForeignKey("raw_data_package.id"), primary_key=True, comment="The raw package."
    )
    is_excess: Mapped[bool] = mapped_column(
        server_default=sa.false(),
        comment="Whether its sub-group did not have it, and it came with products.",
    )
