"""Archives, also those in object stores, are known to be read now, or not: nobody relies on one that cannot be."""

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None

_LOCATION = "data_location"
_UNREADABLE = "Why nothing can be read at that archive, as a worker saw last; NULL: something can, or nobody looked."
_SINCE = "Since when."
_PROBED = "When a transfer-worker last read there, to see whether it can; NULL: none did."


def upgrade() -> None:
    op.add_column(_LOCATION, sa.Column("unreadable", sa.Text(), nullable=True, comment=_UNREADABLE))
    for name, comment in (("unreadable_since", _SINCE), ("probed_at", _PROBED)):
        op.add_column(_LOCATION, sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=True, comment=comment))
    op.create_check_constraint(
        "unreadable_has_a_moment", _LOCATION, "(unreadable IS NULL) = (unreadable_since IS NULL)"
    )


def downgrade() -> None:
    for name in ("unreadable", "unreadable_since", "probed_at"):
        op.drop_column(_LOCATION, name)
