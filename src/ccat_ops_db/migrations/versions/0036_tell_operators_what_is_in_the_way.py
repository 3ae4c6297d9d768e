"""Those who operate data transfer see how far it is, and what is in its way."""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    missing: sa.Column[int] = sa.Column(
        "missing_bytes",
        sa.BigInteger(),
        nullable=True,
        comment="Bytes of it that were not there yet when its worker looked last; NULL: none has looked.",
    )
    op.add_column("data_transfer", missing)


def downgrade() -> None:
    op.drop_column("data_transfer", "missing_bytes")
