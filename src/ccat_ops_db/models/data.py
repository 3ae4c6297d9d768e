import uuid
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ccat_ops_db.models.base import (
    Base,
    ClientUuid,
    CreatedAt,
    Identity,
    Json,
    Leased,
    came_last,
    is_checksum,
    is_not_negative,
    is_path_inside,
)
from ccat_ops_db.models.locations import DataLocation
from ccat_ops_db.models.observations import ExecutedObsUnit
from ccat_ops_db.models.observatory import InstrumentModule
from ccat_ops_db.states import SOUND_COPY_STATUSES, PackageState, PhysicalCopyStatus

GOING = "status IN ('deletion_possible', 'deletion_scheduled', 'deletion_in_progress', 'deletion_failed')"
"""SQL predicate of a copy that is to be deleted."""
LOST = "status IN ('corrupt', 'missing')"
"""SQL predicate of a copy that was found damaged or gone."""
UNREADABLE_AFTER = 3
"""Readings of a copy in a row that fail, while others at its location do not, until it does not count any more."""
UNREADABLE = f"status = 'present' AND trouble_count >= {UNREADABLE_AFTER}"
"""SQL predicate of a copy that could not be read so often."""
DOUBTED = "raw_data_file_id IS NULL AND status = 'present' AND verified_at IS NULL AND failure IS NOT NULL"
"""SQL predicate of a copy that may be bad, and is to be read before it is sent."""
SOUND = f"status IN ({', '.join(repr(str(status)) for status in SOUND_COPY_STATUSES)})"
"""SQL predicate of a copy that a product can be had from."""
UNFINISHED = "status = 'writing'"
"""SQL predicate of a copy that is being written, or that nobody finished."""


class DataTransferPackage(Base):
    """Raw packages that cross a network together."""

    __tablename__ = "data_transfer_package"
    __table_args__ = (is_checksum("checksum"), is_not_negative("size_bytes"), is_path_inside("name"))

    id: Mapped[Identity]
    name: Mapped[str] = mapped_column(unique=True, comment="Path-safe name.")
    size_bytes: Mapped[int | None] = mapped_column(comment="Size in bytes, once written.")
    checksum: Mapped[str | None] = mapped_column(comment="Digest of its bytes, once written.")
    created_at: Mapped[CreatedAt]


class RawDataPackage(Base):
    """One tar of the raw files of a scan and module: the atomic unit of storage."""

    __tablename__ = "raw_data_package"
    __table_args__ = (
        sa.UniqueConstraint("executed_obs_unit_id", "instrument_module_id", "part"),
        sa.CheckConstraint("part >= 1", name="part_counts_from_one"),
        sa.CheckConstraint("(state = 'archived') <= (checksum IS NOT NULL)", name="archived_has_a_checksum"),
        sa.CheckConstraint("(state = 'archived') = (archived_at IS NOT NULL)", name="archived_at_goes_with_the_state"),
        sa.CheckConstraint("(excluded_at IS NULL) = (excluded_because IS NULL)", name="exclusion_has_a_reason"),
        sa.CheckConstraint("cardinality(excluded_pixels) > 0", name="excluded_pixels_are_named"),
        sa.CheckConstraint("(withdrawn_at IS NULL) = (withdrawn_because IS NULL)", name="withdrawal_has_a_reason"),
        sa.CheckConstraint("(given_up_at IS NULL) = (given_up_because IS NULL)", name="given_up_has_a_reason"),
        sa.CheckConstraint("given_up_at IS NULL OR state IN ('failed', 'archived')", name="what_is_gone_is_given_up"),
        is_checksum("checksum"),
        is_not_negative("size_bytes"),
        is_path_inside("name"),
        sa.Index("ix_raw_data_package_on_its_way", "id", postgresql_where=sa.text("state <> 'archived'")),
        sa.Index("ix_raw_data_package_given_up", "id", postgresql_where=sa.text("given_up_at IS NOT NULL")),
    )

    id: Mapped[Identity]
    executed_obs_unit_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("executed_obs_unit.id"), comment="Scan whose files it holds."
    )
    instrument_module_id: Mapped[int] = mapped_column(
        sa.ForeignKey("instrument_module.id"), index=True, comment="Module whose files it holds."
    )
    data_transfer_package_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_transfer_package.id"), index=True, comment="What it travelled in, if it did."
    )
    part: Mapped[int] = mapped_column(server_default="1", comment="Later files of a scan make the next part.")
    name: Mapped[str] = mapped_column(unique=True, comment="Path-safe name; the tar is `<name>.tar`.")
    state: Mapped[PackageState] = mapped_column(
        server_default=PackageState.WAITING, comment="How far it is; written by advance() only."
    )
    size_bytes: Mapped[int | None] = mapped_column(comment="Size of the tar in bytes, once packed.")
    checksum: Mapped[str | None] = mapped_column(comment="Digest of the tar, once packed.")
    failure: Mapped[str | None] = mapped_column(comment="Why it is FAILED, and what to do.")
    given_up_at: Mapped[datetime | None] = mapped_column(
        comment="When a person said that it is gone for good; NULL: it is there, or to be mended."
    )
    given_up_because: Mapped[str | None] = mapped_column(comment="Why it is gone, and who said so.")
    archived_at: Mapped[datetime | None] = mapped_column(index=True, comment="When it became ARCHIVED.")
    excluded_at: Mapped[datetime | None] = mapped_column(
        comment="When a person took it out of all groupings: what the first exclusion that holds says."
    )
    excluded_because: Mapped[str | None] = mapped_column(comment="Why it was taken out, by whom, by which exclusion.")
    excluded_pixels: Mapped[list[str] | None] = mapped_column(
        sa.ARRAY(sa.Text), comment="Its pixels that are left out, all exclusions together; NULL: none."
    )
    withdrawn_at: Mapped[datetime | None] = mapped_column(comment="When it was declared invalid.")
    withdrawn_because: Mapped[str | None] = mapped_column(comment="Why it is invalid.")
    metadata_: Mapped[Json] = mapped_column(
        "metadata", server_default=sa.text("'{}'"), comment="Free description, reachable by json_path in rules."
    )
    created_at: Mapped[CreatedAt]

    executed_obs_unit: Mapped[ExecutedObsUnit] = relationship()
    instrument_module: Mapped[InstrumentModule] = relationship()


class RawDataFile(Base):
    """One file written by an instrument module."""

    __tablename__ = "raw_data_file"
    __table_args__ = (
        sa.UniqueConstraint("executed_obs_unit_id", "instrument_module_id", "relative_path"),
        is_checksum("checksum"),
        is_not_negative("size_bytes"),
        is_path_inside("relative_path"),
        sa.CheckConstraint("num_nulls(lost_at, lost_because, lost_from_id) IN (0, 3)", name="loss_is_told_as_a_whole"),
        sa.CheckConstraint("lost_at IS NULL OR raw_data_package_id IS NULL", name="what_is_lost_is_in_no_package"),
        sa.Index("ix_raw_data_file_lost_from_id", "lost_from_id", postgresql_where=sa.text("lost_from_id IS NOT NULL")),
        sa.Index(
            "ix_raw_data_file_unpackaged",
            "executed_obs_unit_id",
            "instrument_module_id",
            postgresql_where=sa.text("raw_data_package_id IS NULL"),
        ),
        came_last("raw_data_file", "created_at"),
    )

    id: Mapped[ClientUuid]
    executed_obs_unit_id: Mapped[uuid.UUID] = mapped_column(
        sa.ForeignKey("executed_obs_unit.id"), comment="Scan that it belongs to."
    )
    instrument_module_id: Mapped[int] = mapped_column(
        sa.ForeignKey("instrument_module.id"), comment="Module that wrote it."
    )
    raw_data_package_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("raw_data_package.id"), index=True, comment="Package that holds it, once decided."
    )
    relative_path: Mapped[str] = mapped_column(comment="Path below the source location, and in the package.")
    size_bytes: Mapped[int] = mapped_column(comment="Size in bytes.")
    checksum: Mapped[str] = mapped_column(comment="Digest of its bytes as the instrument wrote them.")
    lost_at: Mapped[datetime | None] = mapped_column(comment="When a person said that it is lost; NULL: it is not.")
    lost_because: Mapped[str | None] = mapped_column(comment="How it was lost, and who said so.")
    lost_from_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("raw_data_package.id"), comment="Package that held it, and was built without it."
    )
    created_at: Mapped[CreatedAt]


class PhysicalCopy(Leased, Base):
    """One object at one location; one of the four kinds below."""

    __tablename__ = "physical_copy"
    __mapper_args__ = {"polymorphic_on": "type"}
    __table_args__ = (
        sa.CheckConstraint(
            "num_nonnulls(raw_data_file_id, raw_data_package_id, data_transfer_package_id, data_product_id) = 1",
            name="is_of_exactly_one_object",
        ),
        sa.CheckConstraint(
            "CASE type WHEN 'raw_data_file' THEN raw_data_file_id IS NOT NULL"
            " WHEN 'raw_data_package' THEN raw_data_package_id IS NOT NULL"
            " WHEN 'data_transfer_package' THEN data_transfer_package_id IS NOT NULL"
            " WHEN 'data_product' THEN data_product_id IS NOT NULL ELSE false END",
            name="type_goes_with_the_object",
        ),
        is_path_inside("path"),
        is_checksum("checksum"),
        is_not_negative("size_bytes"),
        *(
            sa.Index(
                f"uq_physical_copy_live_{noun}",
                f"{noun}_id",
                "data_location_id",
                unique=True,
                postgresql_where=sa.text(f"{noun}_id IS NOT NULL AND status <> 'deleted'"),
            )
            for noun in ("raw_data_file", "raw_data_package", "data_transfer_package", "data_product")
        ),
        *(
            sa.Index(  # also of those that are deleted: what came after one that was lost
                f"ix_physical_copy_{noun}", f"{noun}_id", postgresql_where=sa.text(f"{noun}_id IS NOT NULL")
            )
            for noun in ("raw_data_package", "data_product")
        ),
        sa.Index(
            "ix_physical_copy_bad_product",
            "data_product_id",
            postgresql_where=sa.text("data_product_id IS NOT NULL AND status IN ('corrupt', 'missing')"),
        ),
        sa.Index(
            "ix_physical_copy_verified",
            "data_location_id",
            "verified_at",
            sa.text("id DESC"),
            postgresql_where=sa.text("raw_data_file_id IS NULL AND status = 'present'"),
        ),
        sa.Index("ix_physical_copy_doubted", "data_location_id", postgresql_where=sa.text(DOUBTED)),
        sa.Index("ix_physical_copy_there", "data_location_id", postgresql_where=sa.text("status <> 'deleted'")),
        sa.Index("ix_physical_copy_going", "data_location_id", "status", postgresql_where=sa.text(GOING)),
        came_last("physical_copy", "created_at"),
        sa.Index("ix_physical_copy_lost", "data_location_id", postgresql_where=sa.text(LOST)),
        sa.Index("ix_physical_copy_unreadable", "data_location_id", postgresql_where=sa.text(UNREADABLE)),
        sa.Index("ix_physical_copy_unfinished", "data_location_id", postgresql_where=sa.text(UNFINISHED)),
        sa.Index("ix_physical_copy_leased", "lease_until", postgresql_where=sa.text("lease_until IS NOT NULL")),
        sa.Index(
            "ix_physical_copy_source_path",
            "data_location_id",
            "path",
            postgresql_where=sa.text("raw_data_file_id IS NOT NULL AND status <> 'deleted'"),
        ),
    )

    id: Mapped[Identity]
    type: Mapped[str] = mapped_column(sa.String(32), comment="Kind of the object.")
    data_location_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_location.id"), index=True, comment="Where the copy is."
    )
    raw_data_file_id: Mapped[uuid.UUID | None] = mapped_column(
        sa.ForeignKey("raw_data_file.id"), comment="The raw file, of a copy of one."
    )
    raw_data_package_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("raw_data_package.id"), comment="The raw package, of a copy of one."
    )
    data_transfer_package_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_transfer_package.id"), comment="The transfer package, of a copy of one."
    )
    data_product_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_product.id"), comment="The data product, of a copy of one."
    )
    status: Mapped[PhysicalCopyStatus] = mapped_column(
        server_default=PhysicalCopyStatus.WRITING, comment="How the copy is; written by advance() only."
    )
    path: Mapped[str] = mapped_column(comment="Path below the root of the location.")
    size_bytes: Mapped[int | None] = mapped_column(comment="Size in bytes as seen there.")
    checksum: Mapped[str | None] = mapped_column(comment="Digest of the bytes as read back there.")
    mtime_ns: Mapped[int | None] = mapped_column(comment="Modification time seen with the checksum, in ns since 1970.")
    inode: Mapped[int | None] = mapped_column(comment="Inode seen with the checksum.")
    verified_at: Mapped[datetime | None] = mapped_column(comment="When the bytes were last read and found right.")
    used_at: Mapped[datetime | None] = mapped_column(comment="When a run last began to use it, to the hour.")
    trouble_count: Mapped[int] = mapped_column(
        server_default="0", comment="Tries in a row to delete it, or to read it again, that failed; decides the pause."
    )
    not_before: Mapped[datetime | None] = mapped_column(comment="Earliest moment of the next try to do so.")
    failure: Mapped[str | None] = mapped_column(comment="Why that was not done, or why it is read again; what to do.")
    created_at: Mapped[CreatedAt]

    location: Mapped[DataLocation] = relationship()


class RawDataFilePhysicalCopy(PhysicalCopy):
    """A raw file on the disk of an instrument."""

    __mapper_args__ = {"polymorphic_identity": "raw_data_file"}


class RawDataPackagePhysicalCopy(PhysicalCopy):
    """A raw package: a tar in a buffer or archive, a directory where it is STAGED."""

    __mapper_args__ = {"polymorphic_identity": "raw_data_package"}


class DataTransferPackagePhysicalCopy(PhysicalCopy):
    """A transfer package in a buffer."""

    __mapper_args__ = {"polymorphic_identity": "data_transfer_package"}


class DataProductPhysicalCopy(PhysicalCopy):
    """A data product where it was made, or elsewhere."""

    __mapper_args__ = {"polymorphic_identity": "data_product"}
