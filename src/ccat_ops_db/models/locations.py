import uuid
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ccat_ops_db.models.base import Base, CreatedAt, Identity, Json, Leased, is_not_negative, is_positive
from ccat_ops_db.states import BackendName, LocationType, Mover, RouteType, StorageType


class Site(Base):
    """A place with storage or computers."""

    __tablename__ = "site"
    __table_args__ = (sa.CheckConstraint("short_name ~ '^[a-z0-9-]+$'", name="short_name_fits_in_a_queue_name"),)

    id: Mapped[Identity]
    short_name: Mapped[str] = mapped_column(unique=True, comment="Name in queue names, such as ccat or cologne.")
    name: Mapped[str] = mapped_column(comment="Full name.")


class DataLocation(Leased, Base):
    """A storage of a site; one of the three kinds below."""

    __tablename__ = "data_location"
    __mapper_args__ = {"polymorphic_on": "storage_type"}
    __table_args__: Any = (
        sa.UniqueConstraint("site_id", "name"),
        sa.CheckConstraint("(location_type = 'processing') = (backend IS NOT NULL)", name="processing_has_a_backend"),
        sa.CheckConstraint("name ~ '^[a-z0-9_-]+$'", name="name_fits_in_a_queue_name"),
        is_not_negative("free_space_reserve_bytes"),
        is_positive("live_limit"),
        is_not_negative("free_bytes"),
        is_not_negative("retention_days"),
        is_not_negative("scrub_days"),
        is_positive("scrub_mb_per_s"),
        sa.CheckConstraint(
            "low_watermark > 0 AND high_watermark <= 1 AND low_watermark <= high_watermark", name="marks_are_fractions"
        ),
        sa.CheckConstraint("(low_watermark IS NULL) = (high_watermark IS NULL)", name="marks_go_together"),
        sa.CheckConstraint(
            "(free_bytes IS NULL AND trouble IS NULL) = (space_checked_at IS NULL)", name="space_has_a_moment"
        ),
        sa.CheckConstraint("(unreadable IS NULL) = (unreadable_since IS NULL)", name="unreadable_has_a_moment"),
        sa.CheckConstraint("lost_at IS NULL OR NOT active", name="what_is_lost_takes_nothing"),
        sa.CheckConstraint("(lost_at IS NULL) = (lost_because IS NULL)", name="loss_is_told_as_a_whole"),
    )

    id: Mapped[Identity]
    site_id: Mapped[int] = mapped_column(sa.ForeignKey("site.id"), comment="Site that it belongs to.")
    name: Mapped[str] = mapped_column(comment="Name within the site; part of queue names.")
    location_type: Mapped[LocationType] = mapped_column(comment="What it is for.")
    storage_type: Mapped[StorageType] = mapped_column(comment="Which of the kinds it is.")
    priority: Mapped[int] = mapped_column(server_default="0", comment="Higher is used first among equals.")
    active: Mapped[bool] = mapped_column(server_default=sa.true(), comment="Whether anything new is put there.")
    free_space_reserve_bytes: Mapped[int] = mapped_column(
        server_default="0", comment="Nothing is staged or submitted while less than this is free."
    )
    backend: Mapped[BackendName | None] = mapped_column(comment="Kind of cluster; PROCESSING locations only.")
    backend_settings: Mapped[Json] = mapped_column(server_default=sa.text("'{}'"), comment="Settings of the cluster.")
    live_limit: Mapped[int | None] = mapped_column(comment="Most runs that are live there at a time; NULL: any number.")
    free_bytes: Mapped[int | None] = mapped_column(comment="Free space as a worker there saw it last; NULL: none did.")
    total_bytes: Mapped[int | None] = mapped_column(comment="Size of the whole file system.")
    space_checked_at: Mapped[datetime | None] = mapped_column(comment="When a worker there saw it.")
    trouble: Mapped[str | None] = mapped_column(comment="Why a worker there could not write; NULL: it could.")
    trouble_since: Mapped[datetime | None] = mapped_column(comment="When a worker last saw it without, before that.")
    served_at: Mapped[datetime | None] = mapped_column(comment="When a transfer-worker that serves it last said so.")
    retention_days: Mapped[int | None] = mapped_column(
        comment="Days that copies are kept there after they were needed last; NULL: as usual for its type."
    )
    high_watermark: Mapped[float | None] = mapped_column(
        comment="Fraction of the disk above which copies go before their time; NULL: as usual for its type."
    )
    low_watermark: Mapped[float | None] = mapped_column(comment="Fraction of the disk down to which they go then.")
    retention_paused: Mapped[str | None] = mapped_column(comment="Why nothing goes there; NULL: what may go does.")
    retention_look_at: Mapped[datetime | None] = mapped_column(
        comment="When it is looked at again what may go there; NULL: now."
    )
    deleted_at: Mapped[datetime | None] = mapped_column(comment="When a copy there was deleted last.")
    scrub_days: Mapped[int | None] = mapped_column(
        comment="Days after which an archive copy there is read again; 0: never unless in doubt, NULL: as usual."
    )
    scrub_mb_per_s: Mapped[float | None] = mapped_column(
        comment="Megabytes a second at which they are at most; NULL: as usual."
    )
    archive_look_at: Mapped[datetime | None] = mapped_column(
        comment="When it is looked at again which of its copies are to be read; NULL: now."
    )
    read_at: Mapped[datetime | None] = mapped_column(
        comment="When a copy there was last read again, or none was to be, or reading began anew; NULL: not yet."
    )

    identity: Mapped[uuid.UUID] = mapped_column(
        unique=True,
        server_default=sa.func.gen_random_uuid(),
        comment="What its directory or bucket names it by, so that no two locations are one place.",
    )
    marked_at: Mapped[datetime | None] = mapped_column(
        comment="When a worker first saw its mark in its directory, since it lies there; NULL: none did."
    )

    unreadable: Mapped[str | None] = mapped_column(
        comment="Why nothing can be read at that archive, as a worker saw last; NULL: something can, or nobody looked."
    )
    unreadable_since: Mapped[datetime | None] = mapped_column(comment="Since when.")
    probed_at: Mapped[datetime | None] = mapped_column(
        comment="When a transfer-worker last read there, to see whether it can; NULL: none did."
    )
    lost_at: Mapped[datetime | None] = mapped_column(
        comment="When a person said that it is lost with all that it had; NULL: it is not, or is used anew."
    )
    lost_because: Mapped[str | None] = mapped_column(comment="What happened, and who said so.")

    created_at: Mapped[CreatedAt]

    site: Mapped[Site] = relationship()


class DiskDataLocation(DataLocation):
    """A directory of a file system."""

    __tablename__ = "disk_data_location"
    __mapper_args__ = {"polymorphic_identity": StorageType.DISK, "polymorphic_load": "inline"}
    __table_args__ = (sa.CheckConstraint("path ~ '^/'", name="path_is_absolute"),)

    id: Mapped[int] = mapped_column(sa.ForeignKey("data_location.id"), primary_key=True, comment="What it details.")
    path: Mapped[str] = mapped_column(comment="Absolute path of its root directory.")
    host: Mapped[str | None] = mapped_column(
        comment="Host that has the disk; NULL where every worker of the site has it."
    )


class S3DataLocation(DataLocation):
    """A bucket of an object store; credentials come from the environment."""

    __tablename__ = "s3_data_location"
    __mapper_args__ = {"polymorphic_identity": StorageType.S3, "polymorphic_load": "inline"}

    id: Mapped[int] = mapped_column(sa.ForeignKey("data_location.id"), primary_key=True, comment="What it details.")
    bucket: Mapped[str] = mapped_column(comment="Name of the bucket.")
    prefix: Mapped[str] = mapped_column(server_default="", comment="Prefix of every key.")
    endpoint_url: Mapped[str | None] = mapped_column(comment="Address of the store; NULL is the provider's default.")
    region: Mapped[str | None] = mapped_column(comment="Region, where the store has any.")


class TapeDataLocation(DataLocation):
    """A pool of a tape library."""

    __tablename__ = "tape_data_location"
    __mapper_args__ = {"polymorphic_identity": StorageType.TAPE, "polymorphic_load": "inline"}

    id: Mapped[int] = mapped_column(sa.ForeignKey("data_location.id"), primary_key=True, comment="What it details.")
    library: Mapped[str] = mapped_column(comment="Name of the library.")
    pool: Mapped[str] = mapped_column(server_default="", comment="Pool of tapes.")


class ServedOperation(Base):
    """When transfer-workers last said that they take an operation at a location."""

    __tablename__ = "served_operation"

    data_location_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_location.id"), primary_key=True, autoincrement=False, comment="The location."
    )
    operation: Mapped[str] = mapped_column(primary_key=True, comment="The operation, as queues are named by it.")
    served_at: Mapped[datetime] = mapped_column(comment="When a transfer-worker that takes it there last said so.")


class ArchiveReader(Base):
    """Whether transfer-workers can read at an archive, as each of them saw last."""

    __tablename__ = "archive_reader"
    __table_args__ = (
        sa.UniqueConstraint("data_location_id", "worker"),
        sa.CheckConstraint("(unreadable IS NULL) = (unreadable_since IS NULL)", name="unreadable_has_a_moment"),
    )

    id: Mapped[Identity]
    data_location_id: Mapped[int] = mapped_column(sa.ForeignKey("data_location.id"), comment="The archive.")
    worker: Mapped[str] = mapped_column(comment="Name of the transfer-worker.")
    looked_at: Mapped[datetime] = mapped_column(comment="When it last read there, or could not.")
    unreadable: Mapped[str | None] = mapped_column(comment="Why it could read nothing there; NULL: it could.")
    unreadable_since: Mapped[datetime | None] = mapped_column(comment="Since when.")


class DataTransferRoute(Base):
    """How data get from one site towards another."""

    __tablename__ = "data_transfer_route"
    __table_args__ = (
        sa.UniqueConstraint("origin_site_id", "destination_site_id", "name"),
        sa.CheckConstraint("origin_site_id <> destination_site_id", name="leads_somewhere_else"),
        sa.CheckConstraint("(route_type = 'relay') = (via_site_id IS NOT NULL)", name="relay_has_a_site"),
        sa.CheckConstraint("via_site_id NOT IN (origin_site_id, destination_site_id)", name="relay_is_another_site"),
        sa.CheckConstraint(
            "(route_type = 'custom') = (origin_id IS NOT NULL) AND (origin_id IS NULL) = (destination_id IS NULL)",
            name="custom_has_locations",
        ),
        is_positive("package_bytes"),
        is_not_negative("package_wait_seconds"),
    )

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(comment="Name, such as ccat_to_cologne.")
    origin_site_id: Mapped[int] = mapped_column(sa.ForeignKey("site.id"), comment="Where it starts.")
    destination_site_id: Mapped[int] = mapped_column(sa.ForeignKey("site.id"), comment="Where it ends.")
    route_type: Mapped[RouteType] = mapped_column(comment="How it leads there.")
    method: Mapped[Mover] = mapped_column(comment="What moves the bytes.")
    via_site_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("site.id"), comment="Site that they go to first; RELAY only."
    )
    origin_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_location.id"), comment="Location whose data alone take it; CUSTOM only."
    )
    destination_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_location.id"), comment="Location that they go to; CUSTOM only."
    )
    package_bytes: Mapped[int] = mapped_column(
        server_default=str(10**12), comment="A transfer package is sent once it holds as much."
    )
    package_wait_seconds: Mapped[int] = mapped_column(
        server_default="600", comment="It is sent with less once its oldest data have waited as long."
    )
    active: Mapped[bool] = mapped_column(server_default=sa.true(), comment="Whether anything new is sent along it.")
