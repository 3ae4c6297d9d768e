"""Since when a cluster cannot tell of a job; trouble that passes and lost workers are counted apart."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TRANSFERS = ("data_transfer", "long_term_archive_transfer", "staging_job")
_BEFORE = "Tries that ended in transient trouble."
_AFTER = "Workers in a row that were lost with it."


def upgrade() -> None:
    told = "Since when the cluster cannot tell what the job does; NULL: it can."
    op.add_column("run_attempt", sa.Column("unknown_since", sa.TIMESTAMP(timezone=True), comment=told))
    for table in _TRANSFERS:
        told = "Tries in a row that ended in trouble that passes; decides the pause."
        column = sa.Column("trouble_count", sa.BigInteger(), server_default="0", nullable=False, comment=told)
        op.add_column(table, column)
        op.alter_column(table, "retry_count", comment=_AFTER, existing_comment=_BEFORE)
        op.execute(f"UPDATE {table} SET trouble_count = retry_count, retry_count = 0")  # noqa: S608 - our own tables


def downgrade() -> None:
    for table in _TRANSFERS:
        op.alter_column(table, "retry_count", comment=_BEFORE, existing_comment=_AFTER)
        op.drop_column(table, "trouble_count")
    op.drop_column("run_attempt", "unknown_since")
