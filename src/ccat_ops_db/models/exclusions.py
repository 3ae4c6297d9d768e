"""Raw data that people know to be bad: rows that stay when they are lifted."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ccat_ops_db.models.base import Base, CreatedAt, Identity

_OBJECTS: Final = ("raw_data_package_id", "instrument_id", "instrument_module_id")
_HOLDS: Final = "lifted_at IS NULL"


class Exclusion(Base):
    """A person's word that raw data are bad, which keeps them, or some pixels of them, out of what is made.

    What it says of packages is written down there by triggers of the database, also of those that come later.
    """

    __tablename__ = "exclusion"
    __table_args__ = (
        sa.CheckConstraint(f"num_nonnulls({', '.join(_OBJECTS)}) = 1", name="is_of_exactly_one_object"),
        sa.CheckConstraint(
            "(raw_data_package_id IS NULL) = (num_nonnulls(begins_at, ends_at) > 0)", name="is_of_a_package_or_a_time"
        ),
        sa.CheckConstraint("begins_at < ends_at", name="ends_after_it_begins"),
        sa.CheckConstraint("cardinality(pixels) > 0", name="pixels_are_named"),
        sa.CheckConstraint("because <> ''", name="has_a_reason"),
        sa.CheckConstraint(
            "num_nonnulls(lifted_at, lifted_by, lifted_because) IN (0, 3)", name="lifted_by_somebody_who_says_why"
        ),
        sa.Index(
            "uq_exclusion_live_raw_data_package",
            "raw_data_package_id",
            unique=True,
            postgresql_where=sa.text(f"raw_data_package_id IS NOT NULL AND pixels IS NULL AND {_HOLDS}"),
        ),
        sa.Index(
            "ix_exclusion_live_raw_data_package",
            "raw_data_package_id",
            postgresql_where=sa.text(f"raw_data_package_id IS NOT NULL AND {_HOLDS}"),
        ),
        sa.Index(
            "ix_exclusion_live_time",
            sa.text("tstzrange(begins_at, ends_at)"),
            postgresql_using="gist",
            postgresql_where=sa.text(f"raw_data_package_id IS NULL AND {_HOLDS}"),
        ),
    )

    id: Mapped[Identity]
    raw_data_package_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("raw_data_package.id"), comment="The raw package, of an exclusion of one."
    )
    instrument_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("instrument.id"), comment="The instrument, of an exclusion of all its modules."
    )
    instrument_module_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("instrument_module.id"), comment="The module, of an exclusion of one."
    )
    what: Mapped[str] = mapped_column(comment="The object, as people call it.")
    begins_at: Mapped[datetime | None] = mapped_column(comment="From when on scans are bad; NULL: ever before.")
    ends_at: Mapped[datetime | None] = mapped_column(comment="From when on they are good again; NULL: ever after.")
    pixels: Mapped[list[str] | None] = mapped_column(
        sa.ARRAY(sa.Text), comment="Pixels that are bad, as the instrument calls them; NULL: all."
    )
    because: Mapped[str] = mapped_column(comment="Why it is bad.")
    by: Mapped[str] = mapped_column(comment="Who said so.")
    created_at: Mapped[CreatedAt]
    lifted_at: Mapped[datetime | None] = mapped_column(comment="When that was taken back; NULL: it holds.")
    lifted_by: Mapped[str | None] = mapped_column(comment="Who took it back.")
    lifted_because: Mapped[str | None] = mapped_column(comment="Why it was taken back.")
