"""Archived products are read again over time, as raw packages are: both are found by when they were read last."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

_NAME, _COPY, _COLUMNS = "ix_physical_copy_verified", "physical_copy", ["data_location_id", "verified_at"]


def upgrade() -> None:
    _index("raw_data_file_id IS NULL AND status = 'present'")


def downgrade() -> None:
    _index("raw_data_package_id IS NOT NULL AND status = 'present'")


def _index(which: str) -> None:
    op.drop_index(_NAME, _COPY)
    op.create_index(_NAME, _COPY, _COLUMNS, postgresql_where=sa.text(which))
