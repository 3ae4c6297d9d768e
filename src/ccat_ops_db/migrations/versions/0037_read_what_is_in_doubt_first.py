"""What is in doubt is read first, and then what was never read, the newest first: both are found by an index."""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

_COPY, _VERIFIED, _DOUBTED = "physical_copy", "ix_physical_copy_verified", "ix_physical_copy_doubted"
_READ = "raw_data_file_id IS NULL AND status = 'present'"


def upgrade() -> None:
    op.drop_index(_VERIFIED, _COPY)
    columns: list[str | sa.TextClause] = ["data_location_id", "verified_at", sa.text("id DESC")]
    op.create_index(_VERIFIED, _COPY, columns, postgresql_where=sa.text(_READ))
    in_doubt = sa.text(f"{_READ} AND verified_at IS NULL AND failure IS NOT NULL")
    op.create_index(_DOUBTED, _COPY, ["data_location_id"], postgresql_where=in_doubt)


def downgrade() -> None:
    op.drop_index(_DOUBTED, _COPY)
    op.drop_index(_VERIFIED, _COPY)
    op.create_index(_VERIFIED, _COPY, ["data_location_id", "verified_at"], postgresql_where=sa.text(_READ))
