import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ccat_ops_db.models.base import Base, CreatedAt, Identity, came_last, is_positive


class Installation(Base):
    """The one row that tells this installation from every other, also from one restored from its backup."""

    __tablename__ = "installation"
    __table_args__ = (sa.CheckConstraint("id = 1", name="there_is_one"), is_positive("live_limit_per_user"))

    id: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True, autoincrement=False, comment="Always 1.")
    installation_id: Mapped[uuid.UUID] = mapped_column(comment="Made at initialisation; part of every job name.")
    live_limit_per_user: Mapped[int | None] = mapped_column(
        comment="Most runs of the pipelines of one user that are live at a time, unless the user has another limit."
    )
    created_at: Mapped[CreatedAt]


FOUND_BAD = "noun = 'physical_copy' AND to_status IN ('corrupt', 'missing') AND from_status <> 'writing'"
"""SQL predicate of a move: a copy was found damaged or gone, and not only not made anew."""


class StatusChange(Base):
    """One move of one noun: written in the transaction that moved it, never changed."""

    __tablename__ = "status_change"
    __table_args__ = (
        sa.Index("ix_status_change_object", "noun", "object_id", "id"),
        came_last("status_change", "at"),
        sa.Index("ix_status_change_found_bad", "at", postgresql_where=sa.text(FOUND_BAD)),
    )

    id: Mapped[Identity]
    noun: Mapped[str] = mapped_column(sa.String(64), comment="Table of the object.")
    object_id: Mapped[int] = mapped_column(comment="Row of the object.")
    from_status: Mapped[str] = mapped_column(sa.String(32), comment="Status before.")
    to_status: Mapped[str] = mapped_column(sa.String(32), comment="Status after.")
    at: Mapped[datetime] = mapped_column(server_default=sa.func.clock_timestamp(), comment="When it moved.")
    by: Mapped[str] = mapped_column(comment="Process or person that moved it.")
    because: Mapped[str] = mapped_column(comment="Why.")
