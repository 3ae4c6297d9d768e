"""What rules for auxiliary inputs choose: maintained from the raw tables, as the tables of `gaps` are."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from ccat_ops_db.models.base import Base


class AuxiliaryCandidate(Base):
    """What a rule may choose: a run all of whose products count, at each scan that it covers."""

    __tablename__ = "auxiliary_candidate"
    __table_args__ = (
        sa.Index("ix_auxiliary_candidate_time", "reduction_step_id", "name", "same_key", "observed_at", "run_id"),
        sa.Index("ix_auxiliary_candidate_run", "reduction_step_id", "name", "run_id"),
    )

    reduction_step_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="Step that takes.")
    name: Mapped[str] = mapped_column(primary_key=True, comment="Its rule.")
    raw_data_package_id: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False, comment="Raw package that the run covers."
    )
    run_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="The run.")
    observed_at: Mapped[datetime] = mapped_column(comment="Start of the scan of the package.")
    same_key: Mapped[str | None] = mapped_column(
        comment="`dim=value,…` of the dimensions that have to agree; NULL: the packages of the run differ in them."
    )


class AuxiliaryNearest(Base):
    """What a rule chooses for a package of a sub-group."""

    __tablename__ = "auxiliary_nearest"
    __table_args__ = (
        sa.Index("ix_auxiliary_nearest_missing", "sub_group_id", postgresql_where=sa.text("run_id IS NULL")),
    )

    reduction_step_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="Step that takes.")
    name: Mapped[str] = mapped_column(primary_key=True, comment="Its rule.")
    raw_data_package_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="The raw package.")
    sub_group_id: Mapped[int] = mapped_column(index=True, comment="Sub-group of the package.")
    run_id: Mapped[int | None] = mapped_column(index=True, comment="The nearest run; NULL: there is none.")


class AuxiliaryChoice(Base):
    """A product that a run of a sub-group would take now, by one of the rules of its step."""

    __tablename__ = "auxiliary_choice"
    __table_args__ = (sa.Index("ix_auxiliary_choice_step", "reduction_step_id"),)

    sub_group_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="The sub-group.")
    name: Mapped[str] = mapped_column(primary_key=True, comment="The rule.")
    data_product_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="The product.")
    reduction_step_id: Mapped[int] = mapped_column(comment="Step of the sub-group.")
