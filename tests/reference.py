"""Databases that many tests share: whatever one of them changed is put back."""

import sqlalchemy as sa

from ccat_ops_db.models import Base

_TABLES = [table.name for table in Base.metadata.sorted_tables]


def keep_reference(engine: sa.Engine) -> None:
    """Keep all rows that there are now in a schema of their own."""
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE SCHEMA reference"))
        for name in _TABLES:
            if connection.scalar(sa.text(f'SELECT EXISTS (SELECT FROM "{name}")')):  # noqa: S608 - a name of ours
                connection.execute(sa.text(f'CREATE TABLE reference."{name}" AS TABLE public."{name}"'))


def restore_reference(engine: sa.Engine) -> None:
    """Make every table what it was."""
    with engine.begin() as connection:
        kept = connection.scalars(sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'reference'")).all()
        lines = [
            "SET LOCAL session_replication_role = replica",  # no foreign key and no trigger is in the way
            *(f'DELETE FROM "{name}"' for name in _TABLES),  # noqa: S608 - names of ours
            *(f'INSERT INTO "{name}" TABLE reference."{name}"' for name in kept),
        ]
        connection.execute(sa.text("; ".join(lines)))
