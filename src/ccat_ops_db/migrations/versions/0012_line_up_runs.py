"""Runs that wait stand in the order in which they start, however many they are."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_RUN = "executed_reduction_step"
_RANK = "floor(extract(epoch FROM created_at - timestamptz '2000-01-01 00:00:00+00') / 3600)::bigint - priority"
_IN_LINE = "status = 'pending' AND (waiting_for IS NULL OR held_by_limit)"
_WAITS = "status = 'pending' AND NOT (waiting_for IS NULL OR held_by_limit)"


def upgrade() -> None:
    op.add_column(
        _RUN,
        sa.Column(
            "is_redo",
            sa.Boolean(),
            sa.Computed("reason NOT IN ('missing', 'inputs_changed') AND NOT is_trial", persisted=True),
            nullable=False,
            comment="Whether it does again what was done before.",
        ),
    )
    op.add_column(
        _RUN,
        sa.Column(
            "queue_rank",
            sa.BigInteger(),
            sa.Computed(_RANK, persisted=True),
            nullable=False,
            comment="Of those that wait the lowest starts first: an hour of waiting counts as one priority.",
        ),
    )
    for name, columns, where in (
        ("in_line", ("pipeline_id", "is_redo", "queue_rank", "id"), _IN_LINE),
        ("waits", ("lease_until ASC NULLS FIRST", "id"), _WAITS),
    ):
        op.create_index(f"ix_{_RUN}_{name}", _RUN, list(map(sa.text, columns)), postgresql_where=sa.text(where))


def downgrade() -> None:
    op.drop_index(f"ix_{_RUN}_waits", table_name=_RUN)
    op.drop_index(f"ix_{_RUN}_in_line", table_name=_RUN)
    op.drop_column(_RUN, "queue_rank")
    op.drop_column(_RUN, "is_redo")
