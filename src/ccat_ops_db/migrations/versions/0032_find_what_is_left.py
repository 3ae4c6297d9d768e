"""What was given up, what was lost, and what came damaged is found without a look at all that is well."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0027"
branch_labels = None
depends_on = None

_COPY = "physical_copy"


def upgrade() -> None:
    op.create_index(
        "ix_physical_copy_unfinished", _COPY, ["data_location_id"], postgresql_where=sa.text("status = 'writing'")
    )


def downgrade() -> None:
    op.drop_index("ix_physical_copy_unfinished", _COPY)
