from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ccat_ops_db.models.base import Base, CreatedAt, Identity
from ccat_ops_db.states import TriggerType


class Trigger(Base):
    """A tick of a schedule, or somebody's wish: carries a chain of runs to its end."""

    __tablename__ = "trigger"
    __table_args__ = (
        sa.UniqueConstraint("pipeline_id", "tick_at"),
        sa.CheckConstraint("(type = 'cron') = (tick_at IS NOT NULL)", name="cron_has_a_tick"),
        sa.Index("ix_trigger_open", "pipeline_id", postgresql_where=sa.text("closed_at IS NULL")),
    )

    id: Mapped[Identity]
    pipeline_id: Mapped[int] = mapped_column(sa.ForeignKey("pipeline.id"), comment="Pipeline that it sets off.")
    type: Mapped[TriggerType] = mapped_column(comment="What opened it.")
    tick_at: Mapped[datetime | None] = mapped_column(comment="The tick, of a schedule.")
    is_forced: Mapped[bool] = mapped_column(server_default=sa.false(), comment="Whether what is up to date runs too.")
    because: Mapped[str] = mapped_column(comment="Why, in words.")
    by: Mapped[str] = mapped_column(comment="Process or person that opened it.")
    created_at: Mapped[CreatedAt]
    closed_at: Mapped[datetime | None] = mapped_column(comment="When nothing followed any more.")


class RunRequest(Base):
    """A sub-group that a trigger wants to have run, until the run that does it is over; it does not rest before.

    Besides what runs are carrying out, at most one is still to be carried out for a sub-group: inputs of a run are
    fixed when it starts, and where others are wanted after that, another one has them.
    """

    __tablename__ = "run_request"
    __table_args__ = (
        sa.UniqueConstraint("run_id"),
        sa.Index("ix_run_request_place", "reduction_step_id", "sub_group_key"),
        sa.Index(
            "ix_run_request_open",
            "reduction_step_id",
            "sub_group_key",
            unique=True,
            postgresql_where=sa.text("run_id IS NULL"),
        ),
    )

    id: Mapped[Identity]
    reduction_step_id: Mapped[int] = mapped_column(sa.ForeignKey("reduction_step.id"), comment="The step.")
    sub_group_key: Mapped[str] = mapped_column(comment="The sub-group of the step.")
    trigger_id: Mapped[int] = mapped_column(sa.ForeignKey("trigger.id"), index=True, comment="The trigger.")
    is_forced: Mapped[bool] = mapped_column(comment="Whether it is run though it is up to date.")
    run_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("executed_reduction_step.id"), comment="The run that carries it out, once there is one."
    )
    created_at: Mapped[CreatedAt]


class Pause(Base):
    """Nothing is created or started: of a pipeline, at a location, or at all where neither is named."""

    __tablename__ = "pause"
    __table_args__ = (
        sa.UniqueConstraint("pipeline_id", "data_location_id", postgresql_nulls_not_distinct=True),
        sa.CheckConstraint("num_nonnulls(pipeline_id, data_location_id) <= 1", name="is_of_one_thing"),
    )

    id: Mapped[Identity]
    pipeline_id: Mapped[int | None] = mapped_column(sa.ForeignKey("pipeline.id"), comment="The pipeline, if it is one.")
    data_location_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_location.id"), comment="The processing location, if it is one."
    )
    because: Mapped[str] = mapped_column(comment="Why, in words.")
    by: Mapped[str] = mapped_column(comment="Process or person that paused it.")
    created_at: Mapped[CreatedAt]
