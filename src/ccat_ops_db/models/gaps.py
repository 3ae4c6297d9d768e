"""What the gap is read from: maintained from the raw tables, and made anew from them at any time.

So these tables have no foreign keys: nothing in them is the only record of anything but a PendingChange.
"""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ccat_ops_db.models.base import Base, CreatedAt, Identity, Json
from ccat_ops_db.states import LeftOut, Readiness, RunReason, Verdict


class SubGroup(Base):
    """A sub-group of a step: what a run of it would get now, and what is to be done about it."""

    __tablename__ = "sub_group"
    __table_args__ = (
        sa.UniqueConstraint("reduction_step_id", "key"),
        sa.Index(
            "ix_sub_group_open",
            "reduction_step_id",
            "verdict",
            "id",
            postgresql_where=sa.text("verdict <> 'up_to_date'"),
        ),
        sa.Index("ix_sub_group_due", "due_at", postgresql_where=sa.text("due_at IS NOT NULL")),
        sa.Index(
            "ix_sub_group_to_create",
            "reduction_step_id",
            "id",
            postgresql_where=sa.text("verdict = 'wanted' AND active_run_id IS NULL"),
        ),
        {"postgresql_with": {"fillfactor": 50}},  # what changes stays on its page
    )

    id: Mapped[Identity]
    reduction_step_id: Mapped[int] = mapped_column(comment="Step whose sub-group it is.")
    key: Mapped[str] = mapped_column(comment="`dim=value,…`: its identity within the step.")
    path: Mapped[str] = mapped_column(comment="Readable, path-safe form of the key.")
    labels: Mapped[Json] = mapped_column(comment="Dimension → value as people read it.")
    last_run_id: Mapped[int | None] = mapped_column(comment="Its newest completed run.")
    active_run_id: Mapped[int | None] = mapped_column(comment="Its active run.")
    input_digest: Mapped[str | None] = mapped_column(comment="Digest of the inputs that a run would get now.")
    readiness: Mapped[Readiness] = mapped_column(
        server_default=Readiness.ALL, comment="Which of its packages the newest run covers as they are wanted now."
    )
    only_auxiliary: Mapped[bool] = mapped_column(
        server_default=sa.false(),
        comment="Whether inputs of now can differ from those of its newest run in auxiliary ones only.",
    )
    lost_auxiliary: Mapped[bool] = mapped_column(
        server_default=sa.false(), comment="Whether auxiliary inputs of its newest run do not count any more."
    )
    verdict: Mapped[Verdict] = mapped_column(server_default=Verdict.UP_TO_DATE, comment="What is to be done about it.")
    reason: Mapped[RunReason | None] = mapped_column(comment="What makes a run necessary; NULL where none is.")
    cut_off: Mapped[datetime | None] = mapped_column(comment="A run waits for the packages archived until then.")
    due_at: Mapped[datetime | None] = mapped_column(comment="When the verdict changes by itself.")


class SubGroupPackage(Base):
    """To which sub-group of a step a raw package belongs."""

    __tablename__ = "sub_group_package"
    __table_args__ = (
        sa.Index(
            "ix_sub_group_package_unready",
            "reduction_step_id",
            "raw_data_package_id",
            postgresql_where=sa.text("NOT is_ready AND NOT is_faded"),
        ),
        sa.Index(
            "ix_sub_group_package_left_out",
            "reduction_step_id",
            postgresql_where=sa.text("left_out IS NOT NULL"),
        ),
        {"postgresql_with": {"fillfactor": 80}},
    )

    reduction_step_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="The step.")
    raw_data_package_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="The raw package.")
    sub_group_id: Mapped[int] = mapped_column(index=True, comment="The sub-group.")
    archived_at: Mapped[datetime] = mapped_column(comment="When the package became ARCHIVED.")
    is_faded: Mapped[bool] = mapped_column(comment="Whether it left, only because of a relative time.")
    excluded_pixels: Mapped[list[str] | None] = mapped_column(
        sa.ARRAY(sa.Text), comment="Pixels of it that a run of now leaves out; NULL: none."
    )
    is_ready: Mapped[bool] = mapped_column(
        server_default=sa.true(), comment="Whether steps further down need not wait for it."
    )
    is_given_up: Mapped[bool] = mapped_column(
        server_default=sa.false(), comment="Whether it does not become ready by itself: a run of it was given up."
    )
    left_out: Mapped[LeftOut | None] = mapped_column(
        comment="Why a run of now goes without it, as it is not ready upstream; NULL: it does not."
    )


class PendingChange(Base):
    """Something changed that a verdict may depend on; deleted in the transaction that takes it into account.

    Triggers of the database write them in the transaction that changed it, so that no writer can forget to.
    """

    __tablename__ = "pending_change"
    __table_args__ = (sa.Index("ix_pending_change_pipeline_id", "pipeline_id"),)

    id: Mapped[Identity]
    pipeline_id: Mapped[int | None] = mapped_column(comment="Pipeline that it concerns; NULL: not yet handed out.")
    noun: Mapped[str] = mapped_column(sa.String(64), comment="Table of what changed.")
    object_id: Mapped[str] = mapped_column(comment="Row of what changed.")
    sub_group_key: Mapped[str | None] = mapped_column(comment="The sub-group, of noun reduction_step.")
    created_at: Mapped[CreatedAt]


class PipelineEvaluation(Base):
    """How far a pipeline is evaluated, and its moments to come; its row is locked meanwhile."""

    __tablename__ = "pipeline_evaluation"

    pipeline_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="The pipeline.")
    pipeline_revision_id: Mapped[int | None] = mapped_column(comment="Revision that the sub-groups are made by.")
    bases: Mapped[Json] = mapped_column(
        server_default=sa.text("'{}'"), comment="Step → digest of what all its verdicts depend on."
    )
    rebuild_at: Mapped[datetime | None] = mapped_column(comment="When everything is looked at again; NULL: now.")
    fading_at: Mapped[datetime | None] = mapped_column(comment="When relative times are looked at again.")
    last_tick_at: Mapped[datetime | None] = mapped_column(comment="Tick of its schedule up to which all are run.")
    created_lately: Mapped[Json] = mapped_column(
        server_default=sa.text("'{}'"),
        comment="Moment → runs created then, within the last minute; kept where their number is limited.",
    )
    due_at: Mapped[datetime | None] = mapped_column(index=True, comment="When something changes by itself.")
