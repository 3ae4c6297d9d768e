"""A step may list product types that are no inputs otherwise."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_COMMENT = "Product types that are inputs of steps only that list them."


def upgrade() -> None:
    op.add_column(
        "reduction_step_revision",
        sa.Column("listed_types", JSONB(), server_default=sa.text("'[]'"), nullable=False, comment=_COMMENT),
    )


def downgrade() -> None:
    op.drop_column("reduction_step_revision", "listed_types")
