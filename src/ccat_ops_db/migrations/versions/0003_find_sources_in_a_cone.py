"""Sources within a circle on the sky are found by an index on their declination."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_fixed_source_dec_deg", "fixed_source", ["dec_deg"])


def downgrade() -> None:
    op.drop_index("ix_fixed_source_dec_deg", table_name="fixed_source")
