"""What people are told without asking, and what has to be remembered for that."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ccat_ops_db.models.base import Base, Identity, Leased, is_not_negative, is_positive
from ccat_ops_db.states import AlertKind


class Alert(Base):
    """Something that a person should know of, from when it was noticed until it is over."""

    __tablename__ = "alert"
    __table_args__ = (
        is_positive("number"),
        is_not_negative("told_number"),
        sa.Index("ix_alert_open", "kind", "key", unique=True, postgresql_where=sa.text("cleared_at IS NULL")),
    )

    id: Mapped[Identity]
    kind: Mapped[AlertKind] = mapped_column(comment="What sort of thing.")
    key: Mapped[str] = mapped_column(comment="Which of that kind; there is one open alert of it.")
    sentence: Mapped[str] = mapped_column(comment="What is the matter, and what to do.")
    number: Mapped[int] = mapped_column(server_default="1", comment="How many it is about.")
    since: Mapped[datetime] = mapped_column(server_default=sa.func.clock_timestamp(), comment="When it was noticed.")
    told_at: Mapped[datetime | None] = mapped_column(comment="When the hook took it last; NULL: not yet.")
    told_number: Mapped[int] = mapped_column(server_default="0", comment="How many it was about then; 0: not told.")
    cleared_at: Mapped[datetime | None] = mapped_column(comment="When it was found to be over; NULL: it is not.")
    end_told_at: Mapped[datetime | None] = mapped_column(comment="When the hook took that it is over.")


class AlertWatch(Leased, Base):
    """The one row that lets one process at a time look for what is to be told, and tell it."""

    __tablename__ = "alert_watch"
    __table_args__ = (sa.CheckConstraint("id = 1", name="there_is_one"), is_not_negative("tries"))

    id: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True, autoincrement=False, comment="Always 1.")
    looked_at: Mapped[datetime | None] = mapped_column(comment="When somebody looked last.")
    sees_since: Mapped[datetime | None] = mapped_column(
        comment="Since when services were seen at every look; NULL: they are not."
    )
    told_at: Mapped[datetime | None] = mapped_column(comment="When the hook took something last.")
    tries: Mapped[int] = mapped_column(server_default="0", comment="How often the hook failed in a row.")
    next_try_at: Mapped[datetime | None] = mapped_column(comment="When it is tried again.")
    failure: Mapped[str | None] = mapped_column(comment="Why the hook failed last; NULL: it did not.")


class SeenService(Base):
    """A process that showed a sign of life and did not end on purpose, as far as is known."""

    __tablename__ = "seen_service"

    id: Mapped[Identity]
    key: Mapped[str] = mapped_column(unique=True, comment="Redis key of its heartbeat.")
    name: Mapped[str] = mapped_column(comment="Name of the service, such as celery-worker.")
    host: Mapped[str] = mapped_column(comment="Host that it runs on.")
    beat_at: Mapped[datetime] = mapped_column(comment="When it last did something, as it said itself.")
    seen_at: Mapped[datetime] = mapped_column(comment="When its last sign of life was seen.")
