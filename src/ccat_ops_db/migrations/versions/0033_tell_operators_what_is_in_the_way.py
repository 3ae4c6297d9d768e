"""Those who operate data transfer see how far it is, and what is in its way."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

_TRANSFERS = ("long_term_archive_transfer", "data_transfer", "staging_job", "product_archive_transfer")


def upgrade() -> None:
    for transfer in _TRANSFERS:
        said = "When it was noticed that no worker serves where it waits; NULL: one does, as far as is known."
        op.add_column(transfer, _moment("unserved_since", said))
    op.add_column("data_location", _moment("served_at", "When a transfer-worker that serves it last said so."))
    missing: sa.Column[int] = sa.Column(
        "missing_bytes",
        sa.BigInteger(),
        nullable=True,
        comment="Bytes of it that were not there yet when its worker looked last; NULL: none has looked.",
    )
    op.add_column("data_transfer", missing)
    op.create_table(
        "planning_trouble",
        sa.Column("executed_obs_unit_id", sa.Uuid(), nullable=False, comment="The scan."),
        sa.Column("instrument_module_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The module."),
        sa.Column("failure", sa.Text(), nullable=False, comment="What is wrong, and what to do."),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the record was made.",
        ),
        sa.PrimaryKeyConstraint("executed_obs_unit_id", "instrument_module_id", name=op.f("pk_planning_trouble")),
    )


def _moment(name: str, comment: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=True, comment=comment)


def downgrade() -> None:
    op.drop_table("planning_trouble")
    op.drop_column("data_location", "served_at")
    for transfer in _TRANSFERS:
        op.drop_column(transfer, "unserved_since")
    op.drop_column("data_transfer", "missing_bytes")
