"""Who cannot have a copy that is sound does not doubt it time and again; archives are known to be read, or not."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

_TRANSFERS = ("long_term_archive_transfer", "data_transfer", "staging_job", "product_archive_transfer")
_DOUBTS = "When it first had a copy read again where that lies, as it could not have it; NULL: never."
_KEPT = "What trouble_count falls back to at the next place on the way: more than 0 once it was lost at one."
_READ = "When a copy there was last read again, or none was to be, or reading began anew; NULL: not yet."


def upgrade() -> None:
    for transfer in _TRANSFERS:
        op.add_column(transfer, _moment("doubts_since", _DOUBTS))
        op.add_column(
            transfer, sa.Column("trouble_kept", sa.BigInteger(), nullable=False, server_default="0", comment=_KEPT)
        )
    op.add_column("data_location", _moment("read_at", _READ))
    op.execute("UPDATE data_location SET read_at = now() WHERE location_type = 'long_term_archive'")


def _moment(name: str, comment: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=True, comment=comment)


def downgrade() -> None:
    op.drop_column("data_location", "read_at")
    for transfer in _TRANSFERS:
        op.drop_column(transfer, "trouble_kept")
        op.drop_column(transfer, "doubts_since")
