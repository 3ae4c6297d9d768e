import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ccat_ops_db.models.base import Base, CreatedAt, Identity, Leased
from ccat_ops_db.states import Status

LIVE = "status IN ('pending', 'scheduled', 'in_progress')"
"""SQL predicate of a transfer that is not over."""


class _Transfer(Leased):
    """What the four kinds of movement share."""

    id: Mapped[Identity]
    status: Mapped[Status] = mapped_column(
        server_default=Status.PENDING, comment="How far it is; written by advance() only."
    )
    trouble_count: Mapped[int] = mapped_column(
        server_default="0", comment="Tries in a row that ended in trouble that passes; decides the pause."
    )
    trouble_kept: Mapped[int] = mapped_column(
        server_default="0",
        comment="What trouble_count falls back to at the next place on the way: more than 0 once it was lost at one.",
    )
    retry_count: Mapped[int] = mapped_column(server_default="0", comment="Workers in a row that were lost with it.")
    not_before: Mapped[datetime | None] = mapped_column(comment="Earliest moment of the next try.")
    failure: Mapped[str | None] = mapped_column(comment="What went wrong last, and what to do.")
    unserved_since: Mapped[datetime | None] = mapped_column(
        comment="When it was noticed that no worker serves where it waits; NULL: one does, as far as is known."
    )
    doubts_since: Mapped[datetime | None] = mapped_column(
        comment="When it first had a copy read again where that lies, as it could not have it; NULL: never."
    )
    created_at: Mapped[CreatedAt]


class PlanningTrouble(Base):
    """Why raw files of a scan and module could not be put into packages when a manager tried last."""

    __tablename__ = "planning_trouble"

    executed_obs_unit_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, comment="The scan.")
    instrument_module_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="The module.")
    failure: Mapped[str] = mapped_column(comment="What is wrong, and what to do.")
    created_at: Mapped[CreatedAt]


class LongTermArchiveTransfer(_Transfer, Base):
    """The way of a raw package into a long-term archive: packed, moved from site to site, and copied.

    What carries it from site to site are data transfers, one after the other.
    """

    __tablename__ = "long_term_archive_transfer"
    __table_args__ = (
        sa.Index(
            "uq_long_term_archive_transfer_live",
            "raw_data_package_id",
            "destination_id",
            unique=True,
            postgresql_where=sa.text(LIVE),
        ),
        sa.Index("ix_long_term_archive_transfer_package", "raw_data_package_id", "destination_id"),
        sa.Index("ix_long_term_archive_transfer_destination", "destination_id", "id"),
        sa.Index("ix_long_term_archive_transfer_failed", "id", postgresql_where=sa.text("status = 'failed'")),
        sa.Index(
            "ix_long_term_archive_transfer_data_transfer",
            "data_transfer_id",
            postgresql_where=sa.text("data_transfer_id IS NOT NULL"),
        ),
    )

    raw_data_package_id: Mapped[int] = mapped_column(sa.ForeignKey("raw_data_package.id"), comment="What is archived.")
    origin_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_location.id"), comment="Where its tar is, or is to be next; it moves on with the package."
    )
    destination_id: Mapped[int] = mapped_column(sa.ForeignKey("data_location.id"), comment="Archive that it goes to.")
    data_transfer_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_transfer.id"), comment="What carried it from one site to another last."
    )
    bad_arrivals: Mapped[int] = mapped_column(
        server_default="0",
        comment="Times in a row that its tar, as it is where it comes from, arrived damaged or could not be read.",
    )


class ReplicationRound(Base):
    """The one row that tells how far it was looked, at one package after the other, whether they have enough copies."""

    __tablename__ = "replication_round"
    __table_args__ = (sa.CheckConstraint("id = 1", name="there_is_one"),)

    id: Mapped[int] = mapped_column(sa.SmallInteger, primary_key=True, autoincrement=False, comment="Always 1.")
    looked_up_to: Mapped[int] = mapped_column(
        server_default="0", comment="Number of the raw package that was looked at last; 0: the next round begins."
    )
    look_at: Mapped[datetime | None] = mapped_column(comment="When it goes on; NULL: now.")


class ProductArchiveTransfer(_Transfer, Base):
    """The way of the products of a run into a long-term archive: all of them that count, and are not there."""

    __tablename__ = "product_archive_transfer"
    __table_args__ = (
        sa.CheckConstraint("destination_id IS NOT NULL OR status IN ('pending', 'cancelled')", name="goes_somewhere"),
        sa.CheckConstraint("(next_id IS NULL) = (data_transfer_route_id IS NULL)", name="moves_along_a_route"),
        sa.Index("uq_product_archive_transfer_live", "run_id", unique=True, postgresql_where=sa.text(LIVE)),
        sa.Index("ix_product_archive_transfer_run", "run_id", "id"),
        sa.Index("ix_product_archive_transfer_failed", "id", postgresql_where=sa.text("status = 'failed'")),
    )

    run_id: Mapped[int] = mapped_column(
        sa.ForeignKey("executed_reduction_step.id"), comment="Run whose products are archived."
    )
    origin_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_location.id"),
        comment="Where they are: the PROCESSING location where they were made, and the buffers that they come to.",
    )
    destination_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_location.id"), comment="Archive that they go to; NULL: not chosen yet."
    )
    next_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_location.id"),
        comment="Buffer that they are moved to first; NULL: they are archived from where they are.",
    )
    data_transfer_route_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_transfer_route.id"), comment="Route that leads to that buffer."
    )


class StagingJob(_Transfer, Base):
    """The wish to have a raw package or a product at a processing location; shared by all runs that need it.

    A raw package is unpacked from an archive, a product is copied from wherever there is a sound copy of it.
    """

    __tablename__ = "staging_job"
    __table_args__ = (
        sa.CheckConstraint("num_nonnulls(raw_data_package_id, data_product_id) = 1", name="is_of_exactly_one_object"),
        sa.Index(
            "uq_staging_job_live",
            "raw_data_package_id",
            "data_location_id",
            unique=True,
            postgresql_where=sa.text(LIVE),
        ),
        sa.Index(
            "uq_staging_job_live_product",
            "data_product_id",
            "data_location_id",
            unique=True,
            postgresql_where=sa.text(LIVE),
        ),
        sa.Index("ix_staging_job_failed_repair", "id", postgresql_where=sa.text("is_repair AND status = 'failed'")),
        sa.Index("ix_staging_job_package_location", "raw_data_package_id", "data_location_id"),
        sa.Index("ix_staging_job_product_location", "data_product_id", "data_location_id"),
    )

    raw_data_package_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("raw_data_package.id"), comment="The raw package, of a job for one."
    )
    data_product_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_product.id"), comment="The product, of a job for one."
    )
    data_location_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_location.id"), comment="PROCESSING location that it goes to."
    )
    is_repair: Mapped[bool] = mapped_column(
        server_default=sa.false(), comment="Whether it mends a damaged or lost copy, and is wanted without any run."
    )


class DataTransfer(_Transfer, Base):
    """The movement of a transfer package from one buffer to another, where it is unpacked."""

    __tablename__ = "data_transfer"
    __table_args__ = (
        sa.Index(
            "uq_data_transfer_live",
            "data_transfer_package_id",
            "destination_id",
            unique=True,
            postgresql_where=sa.text(LIVE),
        ),
    )

    data_transfer_package_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_transfer_package.id"), comment="What is moved."
    )
    data_transfer_route_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_transfer_route.id"), comment="Route that it takes between sites."
    )
    origin_id: Mapped[int] = mapped_column(sa.ForeignKey("data_location.id"), comment="Location that it is read from.")
    destination_id: Mapped[int] = mapped_column(sa.ForeignKey("data_location.id"), comment="Location that it goes to.")
    missing_bytes: Mapped[int | None] = mapped_column(
        comment="Bytes of it that were not there yet when its worker looked last; NULL: none has looked."
    )
