import enum
import uuid
from datetime import date, datetime
from typing import Annotated, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Identity = Annotated[
    int,
    mapped_column(sa.BigInteger, sa.Identity(always=False), primary_key=True, comment="Number made by the database."),
]
ClientUuid = Annotated[
    uuid.UUID, mapped_column(primary_key=True, comment="Made by whoever created the record, possibly while offline.")
]
CreatedAt = Annotated[
    datetime, mapped_column(server_default=sa.func.clock_timestamp(), comment="When the record was made.")
]
Json = dict[str, Any]


class Base(DeclarativeBase):
    """Base of all tables: one naming convention, aware times, text enums with a CHECK, JSONB."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: sa.BigInteger,
        str: sa.Text,
        float: sa.Double,
        datetime: sa.TIMESTAMP(timezone=True),
        date: sa.Date,
        uuid.UUID: sa.Uuid,
        dict[str, Any]: JSONB(none_as_null=True),
        list[str]: JSONB(none_as_null=True),
        list[dict[str, Any]]: JSONB(none_as_null=True),
        enum.Enum: sa.Enum(
            enum.Enum,
            native_enum=False,
            create_constraint=True,
            length=32,
            values_callable=lambda members: [member.value for member in members],
        ),
    }


def is_checksum(column: str) -> sa.CheckConstraint:
    """CHECK that `column` is NULL or `sha256:` and 64 lower-case hexadecimal digits."""
    # Repeating a class 64 times takes the database's regular expressions six times as long.
    is_so = f"length({column}) = 71 AND {column} ~ '^sha256:[0-9a-f]+$'"
    return sa.CheckConstraint(is_so, name=f"{column}_is_sha256")


def is_not_negative(column: str) -> sa.CheckConstraint:
    """CHECK that `column` is NULL, zero or more."""
    return sa.CheckConstraint(f"{column} >= 0", name=f"{column}_is_not_negative")


def is_positive(column: str) -> sa.CheckConstraint:
    """CHECK that `column` is NULL or more than zero."""
    return sa.CheckConstraint(f"{column} > 0", name=f"{column}_is_positive")


def is_path_inside(column: str) -> sa.CheckConstraint:
    """CHECK that `column` is a relative path that stays inside its root."""
    return sa.CheckConstraint(rf"{column} <> '' AND {column} !~ '(^/|(^|/)\.\.(/|$))'", name=f"{column}_stays_inside")


def came_last(table: str, column: str) -> sa.Index:
    """Index by which the rows of the last hours are found in a table that grows; it is a few pages for millions."""
    return sa.Index(f"ix_{table}_{column}", column, postgresql_using="brin")


class Leased:
    """Columns of a noun that processes claim for a while; `claims` is their only writer."""

    claimed_by: Mapped[str | None] = mapped_column(comment="Process that works on it, while lease_until is ahead.")
    lease_until: Mapped[datetime | None] = mapped_column(comment="End of the claim; anybody may claim it after.")
