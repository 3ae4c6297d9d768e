"""It is known when locations were added: one that nobody ever looked at is away after a while, as any other."""

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0045"
branch_labels = None
depends_on = None

_LOCATION = "data_location"


def upgrade() -> None:
    moment, now = sa.TIMESTAMP(timezone=True), sa.text("clock_timestamp()")
    created = sa.Column("created_at", moment, nullable=False, server_default=now, comment="When the record was made.")
    op.add_column(_LOCATION, created)


def downgrade() -> None:
    op.drop_column(_LOCATION, "created_at")
