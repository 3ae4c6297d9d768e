"""Archive copies that were found damaged or gone of late are found by an index, however many moves there are."""

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None

_TABLE, _INDEX = "status_change", "ix_status_change_found_bad"
_FOUND_BAD = "noun = 'physical_copy' AND to_status IN ('corrupt', 'missing') AND from_status <> 'writing'"


def upgrade() -> None:
    op.create_index(_INDEX, _TABLE, ["at"], postgresql_where=sa.text(_FOUND_BAD))


def downgrade() -> None:
    op.drop_index(_INDEX, _TABLE)
