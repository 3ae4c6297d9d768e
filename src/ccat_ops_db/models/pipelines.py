from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ccat_ops_db.models.access import User
from ccat_ops_db.models.base import Base, CreatedAt, Identity, Json, is_checksum, is_not_negative
from ccat_ops_db.models.locations import DataLocation
from ccat_ops_db.states import (
    InputReadiness,
    OnFailedInput,
    OnMissing,
    Runtime,
    TriggerType,
    VersionPolicy,
    VersionState,
    WaitFor,
)

IDENTIFIER_PATTERN = r"^[a-z0-9]([a-z0-9_.-]*[a-z0-9])?$"


def _is_identifier(column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} ~ '{IDENTIFIER_PATTERN}'", name=f"{column}_is_an_identifier")


class DataGrouping(Base):
    """Identity of a rule that selects raw packages; what it says is in its revisions."""

    __tablename__ = "data_grouping"
    __table_args__ = (_is_identifier("name"),)

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Identifier in definitions.")


class DataGroupingRevision(Base):
    """What a grouping says; never changed, the highest number counts."""

    __tablename__ = "data_grouping_revision"
    __table_args__ = (sa.UniqueConstraint("data_grouping_id", "number"), is_checksum("digest"))

    id: Mapped[Identity]
    data_grouping_id: Mapped[int] = mapped_column(sa.ForeignKey("data_grouping.id"), comment="Whose revision it is.")
    number: Mapped[int] = mapped_column(comment="Counts from one.")
    description: Mapped[str] = mapped_column(server_default="", comment="What it selects, for people.")
    filter_rules: Mapped[list[Json]] = mapped_column(comment="Rules that a raw package must all match.")
    digest: Mapped[str] = mapped_column(comment="Digest of the content.")
    created_at: Mapped[CreatedAt]

    data_grouping: Mapped[DataGrouping] = relationship()


class ReductionStepConfig(Base):
    """Identity of a set of parameters; the values are in its revisions."""

    __tablename__ = "reduction_step_config"
    __table_args__ = (_is_identifier("name"),)

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Identifier in definitions.")


class ReductionStepConfigRevision(Base):
    """Values of a config; never changed, the highest number counts."""

    __tablename__ = "reduction_step_config_revision"
    __table_args__ = (
        sa.UniqueConstraint("reduction_step_config_id", "number"),
        is_checksum("digest"),
        sa.CheckConstraint("(withdrawn_at IS NULL) = (withdrawn_because IS NULL)", name="withdrawal_has_a_reason"),
    )

    id: Mapped[Identity]
    reduction_step_config_id: Mapped[int] = mapped_column(
        sa.ForeignKey("reduction_step_config.id"), comment="Whose revision it is."
    )
    number: Mapped[int] = mapped_column(comment="Counts from one.")
    parameters: Mapped[Json] = mapped_column(comment="Parameters that the software reads from its manifest.")
    environment: Mapped[Json] = mapped_column(comment="Environment variables that the software gets.")
    digest: Mapped[str] = mapped_column(comment="Digest of the content; part of the recipe.")
    withdrawn_at: Mapped[datetime | None] = mapped_column(comment="When it was declared invalid; it starts nothing.")
    withdrawn_because: Mapped[str | None] = mapped_column(comment="Why it is invalid.")
    created_at: Mapped[CreatedAt]

    reduction_step_config: Mapped[ReductionStepConfig] = relationship()


class ReductionSoftware(Base):
    """A reduction program."""

    __tablename__ = "reduction_software"
    __table_args__ = (_is_identifier("name"),)

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Identifier in definitions.")
    description: Mapped[str] = mapped_column(server_default="", comment="What it does, for people.")


class ReductionSoftwareVersion(Base):
    """A released version of a program; what it executes never changes."""

    __tablename__ = "reduction_software_version"
    __table_args__ = (
        sa.UniqueConstraint("reduction_software_id", "version"),
        is_checksum("content_digest"),
        sa.CheckConstraint("(runtime = 'apptainer') = (image_ref IS NOT NULL)", name="apptainer_has_an_image"),
    )

    id: Mapped[Identity]
    reduction_software_id: Mapped[int] = mapped_column(
        sa.ForeignKey("reduction_software.id"), comment="Program that it is a version of."
    )
    version: Mapped[str] = mapped_column(comment="PEP 440 version.")
    state: Mapped[VersionState] = mapped_column(
        server_default=VersionState.RELEASED, comment="Whether it starts new work; written by advance() only."
    )
    series: Mapped[str] = mapped_column(
        comment="Declared compatibility series: results of one series are exchangeable."
    )
    runtime: Mapped[Runtime] = mapped_column(comment="How it is executed.")
    command: Mapped[list[str]] = mapped_column(comment="Argument list that starts it.")
    image_ref: Mapped[str | None] = mapped_column(comment="Container image; apptainer only.")
    environment_prefix: Mapped[str | None] = mapped_column(
        comment="Directory whose bin/ comes first on PATH; process runtime only."
    )
    distribution: Mapped[str | None] = mapped_column(
        comment="Installed Python distribution whose RECORD identifies the code; process runtime only."
    )
    content_digest: Mapped[str] = mapped_column(comment="Digest of the image, or of the distribution's RECORD.")
    created_at: Mapped[CreatedAt]

    reduction_software: Mapped[ReductionSoftware] = relationship()


class Pipeline(Base):
    """Identity of a pipeline, and its switches; what it does is in its revisions."""

    __tablename__ = "pipeline"
    __table_args__ = (_is_identifier("name"),)

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Identifier in definitions.")
    description: Mapped[str] = mapped_column(server_default="", comment="What it makes, for people.")
    enabled: Mapped[bool] = mapped_column(server_default=sa.true(), comment="Whether it is evaluated at all.")
    priority: Mapped[int] = mapped_column(server_default="0", comment="Higher goes first.")
    limits: Mapped[Json] = mapped_column(
        server_default=sa.text("'{}'"), comment="How many of its runs may be live or created, and when it may redo."
    )
    created_by_user_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("user.id"), comment="On whose authority it exists."
    )
    created_at: Mapped[CreatedAt]

    owner: Mapped[User | None] = relationship()


class PipelineRevision(Base):
    """What a pipeline does: pins revisions of grouping, steps and configs; the highest number counts."""

    __tablename__ = "pipeline_revision"
    __table_args__ = (sa.UniqueConstraint("pipeline_id", "number"), is_checksum("digest"))

    id: Mapped[Identity]
    pipeline_id: Mapped[int] = mapped_column(sa.ForeignKey("pipeline.id"), comment="Whose revision it is.")
    number: Mapped[int] = mapped_column(comment="Counts from one.")
    data_grouping_revision_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_grouping_revision.id"), comment="Which raw packages it works on."
    )
    processing_location_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_location.id"), comment="PROCESSING location where it runs."
    )
    trigger_type: Mapped[TriggerType] = mapped_column(comment="When it is evaluated.")
    trigger_config: Mapped[Json] = mapped_column(server_default=sa.text("'{}'"), comment="Details of the trigger.")
    definition: Mapped[Json] = mapped_column(comment="The definition as applied; applying it again pins anew.")
    digest: Mapped[str] = mapped_column(comment="Digest of the definition and all that it pins.")
    created_at: Mapped[CreatedAt]

    pipeline: Mapped[Pipeline] = relationship()
    processing_location: Mapped[DataLocation] = relationship()
    data_grouping_revision: Mapped[DataGroupingRevision] = relationship()
    steps: Mapped[list["ReductionStepRevision"]] = relationship(
        back_populates="pipeline_revision", order_by="ReductionStepRevision.position"
    )


class ReductionStep(Base):
    """Identity of a step: (pipeline, key) for ever; its name is a label of its revisions."""

    __tablename__ = "reduction_step"
    __table_args__ = (sa.UniqueConstraint("pipeline_id", "key"), _is_identifier("key"))

    id: Mapped[Identity]
    pipeline_id: Mapped[int] = mapped_column(sa.ForeignKey("pipeline.id"), comment="Pipeline that it belongs to.")
    key: Mapped[str] = mapped_column(comment="Identifier within the pipeline.")

    pipeline: Mapped[Pipeline] = relationship()


class ReductionStepRevision(Base):
    """What a step does in one revision of its pipeline."""

    __tablename__ = "reduction_step_revision"
    __table_args__ = (
        sa.UniqueConstraint("pipeline_revision_id", "reduction_step_id"),
        sa.UniqueConstraint("pipeline_revision_id", "position"),
        is_not_negative("cooldown_seconds"),
        is_not_negative("max_retries"),
        is_not_negative("retention_days"),
        sa.CheckConstraint(
            "(version_policy = 'exact') = (pinned_version_id IS NOT NULL)", name="exact_policy_pins_a_version"
        ),
        sa.CheckConstraint("(readiness = 'available') = (min_fraction IS NOT NULL)", name="available_has_a_fraction"),
        sa.CheckConstraint("min_fraction >= 0 AND min_fraction <= 1", name="min_fraction_is_a_fraction"),
        sa.CheckConstraint("NOT archive OR is_final", name="only_final_is_archived"),
        sa.CheckConstraint("NOT (recompute AND is_final)", name="only_intermediate_is_recomputed"),
    )

    id: Mapped[Identity]
    pipeline_revision_id: Mapped[int] = mapped_column(
        sa.ForeignKey("pipeline_revision.id"), comment="Pipeline revision that it is part of."
    )
    reduction_step_id: Mapped[int] = mapped_column(
        sa.ForeignKey("reduction_step.id"), index=True, comment="Step that it details."
    )
    position: Mapped[int] = mapped_column(comment="Topological order within the pipeline, from zero.")
    name: Mapped[str] = mapped_column(comment="Label for people.")
    group_by: Mapped[list[str]] = mapped_column(comment="Dimensions whose values make the sub-groups.")
    cooldown_seconds: Mapped[int] = mapped_column(comment="Rest of a sub-group after a change before it runs again.")
    reduction_software_id: Mapped[int] = mapped_column(sa.ForeignKey("reduction_software.id"), comment="What it runs.")
    version_policy: Mapped[VersionPolicy] = mapped_column(comment="Which version, and when a newer one redoes.")
    pinned_version_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("reduction_software_version.id"), comment="The version of policy `exact`."
    )
    reduction_step_config_revision_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("reduction_step_config_revision.id"), comment="Its parameters, if it has any."
    )
    takes_raw: Mapped[bool] = mapped_column(comment="Whether raw packages are inputs.")
    listed_types: Mapped[list[str]] = mapped_column(
        server_default=sa.text("'[]'"), comment="Product types that are inputs of steps only that list them."
    )
    on_failed_input: Mapped[OnFailedInput] = mapped_column(
        server_default=OnFailedInput.BLOCK, comment="Whether packages that were given up upstream are waited for."
    )
    readiness: Mapped[InputReadiness] = mapped_column(
        server_default=InputReadiness.COMPLETE, comment="How much of what was there at its cut-off a run waits for."
    )
    min_fraction: Mapped[float | None] = mapped_column(
        comment="Fraction of the packages that must be ready, of readiness `available`; 0 is any one of them."
    )
    wait_for: Mapped[WaitFor | None] = mapped_column(comment="What else it waits for, if anything.")
    is_final: Mapped[bool] = mapped_column(comment="Whether its products are final: kept, typed by directory.")
    required_outputs: Mapped[list[str]] = mapped_column(comment="Glob patterns that must each match a product.")
    resources: Mapped[Json] = mapped_column(comment="cpu, memory_gb and time_hours that a run asks for.")
    max_retries: Mapped[int] = mapped_column(comment="Retries after failures of the software itself.")
    retention_days: Mapped[int | None] = mapped_column(
        comment="Days that products are kept; NULL: 30, those of a final step for ever."
    )
    archive: Mapped[bool] = mapped_column(
        server_default=sa.false(), comment="Whether its products, which are final, go to a long-term archive."
    )
    recompute: Mapped[bool] = mapped_column(
        server_default=sa.false(),
        comment="Whether its products, which are intermediate, may go while others take them, and are made again then.",
    )

    pipeline_revision: Mapped[PipelineRevision] = relationship(back_populates="steps")
    reduction_step: Mapped[ReductionStep] = relationship()
    reduction_software: Mapped[ReductionSoftware] = relationship()
    pinned_version: Mapped[ReductionSoftwareVersion | None] = relationship()
    config_revision: Mapped[ReductionStepConfigRevision | None] = relationship()
    upstream: Mapped[list[ReductionStep]] = relationship(
        secondary="reduction_step_dependency", order_by="ReductionStep.key"
    )
    auxiliary: Mapped[list["AuxiliaryRule"]] = relationship(order_by="AuxiliaryRule.name")


class ReductionStepDependency(Base):
    """An edge: products of one step are inputs of another."""

    __tablename__ = "reduction_step_dependency"

    step_revision_id: Mapped[int] = mapped_column(
        sa.ForeignKey("reduction_step_revision.id"), primary_key=True, comment="The step that takes."
    )
    upstream_step_id: Mapped[int] = mapped_column(
        sa.ForeignKey("reduction_step.id"), primary_key=True, comment="The step that gives."
    )


class AuxiliaryRule(Base):
    """A rule of a step: for each package of a sub-group, the products of the nearest run of another step."""

    __tablename__ = "auxiliary_rule"
    __table_args__ = (
        sa.UniqueConstraint("step_revision_id", "name"),
        sa.CheckConstraint("max_age > interval '0'", name="max_age_is_positive"),
    )

    id: Mapped[Identity]
    step_revision_id: Mapped[int] = mapped_column(
        sa.ForeignKey(ReductionStepRevision.id), comment="Revision of the step that takes."
    )
    name: Mapped[str] = mapped_column(comment="How the step calls what it takes.")
    from_step_id: Mapped[int] = mapped_column(
        sa.ForeignKey(ReductionStep.id), index=True, comment="Step that gives, of any pipeline."
    )
    same: Mapped[list[str]] = mapped_column(comment="Dimensions in which all packages of the run are as the package.")
    max_age: Mapped[timedelta] = mapped_column(
        sa.Interval, comment="How far apart scans of package and run may have started, either way."
    )
    on_missing: Mapped[OnMissing] = mapped_column(comment="What is done while there is none.")
    redo_on_better: Mapped[bool] = mapped_column(comment="Whether a nearer or newer one makes a run necessary.")

    from_step: Mapped[ReductionStep] = relationship()
