"""Transfer-workers say which operations they take at a location: those of another version may lack one."""

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

_TABLE = "served_operation"


def upgrade() -> None:
    place: sa.Column[int] = sa.Column(
        "data_location_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The location."
    )
    op.create_table(
        _TABLE,
        place,
        sa.Column("operation", sa.Text(), nullable=False, comment="The operation, as queues are named by it."),
        sa.Column(
            "served_at",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            comment="When a transfer-worker that takes it there last said so.",
        ),
        sa.PrimaryKeyConstraint("data_location_id", "operation", name=op.f(f"pk_{_TABLE}")),
        sa.ForeignKeyConstraint(["data_location_id"], ["data_location.id"], name=op.f(f"fk_{_TABLE}_data_location_id")),
        comment="When transfer-workers last said that they take an operation at a location.",
    )


def downgrade() -> None:
    op.drop_table(_TABLE)
