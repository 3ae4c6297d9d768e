"""Databases that many tests share: whatever one of them changed is put back."""

from typing import Final

import sqlalchemy as sa

from ccat_ops_db.models import Base

REFERENCE: Final = "reference"
"""Schema of the rows that all tests of a database begin with."""
_TABLES: Final = [table.name for table in Base.metadata.sorted_tables]


def keep_rows(engine: sa.Engine, schema: str = REFERENCE) -> None:
    """Keep all rows that there are now in a schema of their own, in place of what was kept there before."""
    with engine.begin() as connection:
        connection.execute(sa.text(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'))
        connection.execute(sa.text(f'CREATE SCHEMA "{schema}"'))
        for name in _TABLES:
            if connection.scalar(sa.text(f'SELECT EXISTS (SELECT FROM "{name}")')):  # noqa: S608 - names of ours
                connection.execute(sa.text(f'CREATE TABLE "{schema}"."{name}" AS TABLE public."{name}"'))


def restore_rows(engine: sa.Engine, schema: str = REFERENCE) -> None:
    """Make every table what it was when its rows were kept there."""
    with engine.begin() as connection:
        kept = connection.scalars(
            sa.text("SELECT tablename FROM pg_tables WHERE schemaname = :schema"), {"schema": schema}
        )
        lines = [
            "SET LOCAL session_replication_role = replica",  # no foreign key and no trigger is in the way
            *(f'DELETE FROM "{name}"' for name in _TABLES),  # noqa: S608 - names of ours
            *(f'INSERT INTO "{name}" TABLE "{schema}"."{name}"' for name in kept),
            # else those that no test has a worker look at were away, where all tests take an hour
            "UPDATE data_location SET created_at = clock_timestamp()",
        ]
        connection.execute(sa.text("; ".join(lines)))
