from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ccat_ops_db.models.base import Base
from ccat_ops_db.models.pipelines import Pipeline
from ccat_ops_db.states import RunReason


class Plan(Base):
    """Runs that would have been created at some moment, kept for a while so that exactly they can be launched."""

    __tablename__ = "plan"
    id: Mapped[str] = mapped_column(
        primary_key=True, comment="First 16 hexadecimal digits of the SHA-256 over the rows that can be launched."
    )
    pipeline_id: Mapped[int] = mapped_column(sa.ForeignKey(Pipeline.id), index=True, comment="Whose runs they are.")
    created_at: Mapped[datetime] = mapped_column(comment="The moment that it is of.")
    expires_at: Mapped[datetime] = mapped_column(index=True, comment="It may be deleted from then on.")
    who: Mapped[str] = mapped_column(comment="Who made it.")


class PlanRow(Base):
    """A run that would be created, at once or, where it has no inputs yet, after others of the plan."""

    # Written by the hundred thousand from columns that were checked before: to check each digest again took longer
    # than all the rest.

    __tablename__ = "plan_row"
    __table_args__ = (sa.UniqueConstraint("plan_id", "reduction_step_id", "sub_group_key"),)

    plan_id: Mapped[str] = mapped_column(
        sa.ForeignKey(Plan.id, ondelete="CASCADE"), primary_key=True, comment="Plan that it is part of."
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="Its place, counted from one.")
    reduction_step_id: Mapped[int] = mapped_column(comment="Step that would be executed.")
    sub_group_key: Mapped[str] = mapped_column(comment="`dim=value,…`: identity of the sub-group within the step.")
    recipe_digest: Mapped[str | None] = mapped_column(comment="What it would be made with; NULL: it follows.")
    input_digest: Mapped[str | None] = mapped_column(comment="Digest of its inputs; NULL: they are to be made first.")
    reason: Mapped[RunReason | None] = mapped_column(comment="Why it is necessary; NULL: it follows.")
