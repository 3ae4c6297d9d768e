"""It is known when locations were added, and whether they bore their mark.

So one that nobody ever looked at is away after a while, as any other, and another disk in its place is noticed.
"""

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None

_LOCATION = "data_location"
_MARKED = "When a worker first saw its mark in its directory, since it lies there; NULL: none did."


def upgrade() -> None:
    moment, now = sa.TIMESTAMP(timezone=True), sa.text("clock_timestamp()")
    created = sa.Column("created_at", moment, nullable=False, server_default=now, comment="When the record was made.")
    op.add_column(_LOCATION, created)
    op.add_column(_LOCATION, sa.Column("marked_at", moment, nullable=True, comment=_MARKED))


def downgrade() -> None:
    for name in ("marked_at", "created_at"):
        op.drop_column(_LOCATION, name)
