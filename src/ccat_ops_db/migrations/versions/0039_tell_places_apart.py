"""Locations have an identity, which their directories and buckets bear: no two of them are one place."""

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

_LOCATION, _IDENTITY = "data_location", "identity"
_COMMENT = "What its directory or bucket names it by, so that no two locations are one place."
_AS_EVER = """
    UPDATE data_location l SET identity = md5(extract(epoch FROM i.created_at) || '/' || l.id)::uuid FROM installation i
"""
"""The same each time, also of an older backup: places that bear a mark already are their own still."""


def upgrade() -> None:
    made = sa.Column(_IDENTITY, sa.Uuid(), nullable=False, server_default=sa.func.gen_random_uuid(), comment=_COMMENT)
    op.add_column(_LOCATION, made)
    op.execute(_AS_EVER)
    op.create_unique_constraint("uq_data_location_identity", _LOCATION, [_IDENTITY])


def downgrade() -> None:
    op.drop_column(_LOCATION, _IDENTITY)
