"""What was declared invalid, and what was made from it: rows that stay when it is reinstated."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ccat_ops_db.models.base import Base, CreatedAt, Identity

_OBJECTS: Final = (
    "raw_data_package_id",
    "data_product_id",
    "run_id",
    "software_version_id",
    "config_revision_id",
)


class Withdrawal(Base):
    """A person's word that an object is invalid, and with it all that was made from it, until it is reinstated."""

    __tablename__ = "withdrawal"
    __table_args__ = (
        sa.CheckConstraint(f"num_nonnulls({', '.join(_OBJECTS)}) = 1", name="is_of_exactly_one_object"),
        sa.CheckConstraint("(reinstated_at IS NULL) = (reinstated_by IS NULL)", name="reinstated_by_somebody"),
        *(
            sa.Index(
                f"uq_withdrawal_live_{column.removesuffix('_id')}",
                column,
                unique=True,
                postgresql_where=sa.text(f"{column} IS NOT NULL AND reinstated_at IS NULL"),
            )
            for column in _OBJECTS
        ),
    )

    id: Mapped[Identity]
    raw_data_package_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("raw_data_package.id"), comment="The raw package, of a withdrawal of one."
    )
    data_product_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("data_product.id"), comment="The product, of a withdrawal of one."
    )
    run_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("executed_reduction_step.id"), comment="The run, of a withdrawal of all its products."
    )
    software_version_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("reduction_software_version.id"), comment="The software version, of a withdrawal of one."
    )
    config_revision_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("reduction_step_config_revision.id"), comment="The config revision, of a withdrawal of one."
    )
    what: Mapped[str] = mapped_column(comment="The object, as people call it.")
    because: Mapped[str] = mapped_column(comment="Why it is invalid.")
    by: Mapped[str] = mapped_column(comment="Who withdrew it.")
    created_at: Mapped[CreatedAt]
    reinstated_at: Mapped[datetime | None] = mapped_column(comment="When that was undone; NULL: it holds.")
    reinstated_by: Mapped[str | None] = mapped_column(comment="Who undid it.")


class WithdrawnProduct(Base):
    """A product that a withdrawal marks invalid; it stays so until the last withdrawal that marks it is undone."""

    __tablename__ = "withdrawn_product"

    withdrawal_id: Mapped[int] = mapped_column(
        sa.ForeignKey(Withdrawal.id), primary_key=True, comment="The withdrawal."
    )
    data_product_id: Mapped[int] = mapped_column(
        sa.ForeignKey("data_product.id"), primary_key=True, index=True, comment="The product."
    )
