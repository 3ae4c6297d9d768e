"""What an attempt asks for and uses up, what failures have in common, and the wish to cancel a run until it is confirmed."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_RUN, _ATTEMPT = "executed_reduction_step", "run_attempt"
_MOMENT = sa.TIMESTAMP(timezone=True)
_RUN_COLUMNS: list[tuple[str, Any, str]] = [
    (
        "trouble_since",
        _MOMENT,
        "When the first failure in a row for trouble outside the software was; NULL: none since it last ran.",
    ),
    ("fingerprint", sa.Text(), "What is alike of all failures like its last one."),
    ("cancel_requested_at", _MOMENT, "When somebody wished it to be cancelled."),
    ("cancel_requested_by", sa.Text(), "Who wished that."),
    ("cancel_because", sa.Text(), "Why that was wished."),
    ("cancel_answer", sa.Text(), "What became of the wish; NULL: it is carried out."),
]
_ATTEMPT_COLUMNS: list[tuple[str, Any, str]] = [
    ("memory_gb", sa.Double(), "Memory that it asks the cluster for."),
    ("time_hours", sa.Double(), "Time limit that it asks the cluster for."),
    ("cancel_asked_at", _MOMENT, "When the cluster was last asked to end its job."),
    ("abandoned_at", _MOMENT, "When its run went on though its job might live; NULL: it is over, or still followed."),
    ("exhausted", sa.String(32), "Of what it needed more than it had, if that was it."),
    ("fingerprint", sa.Text(), "What is alike of all failures like this one."),
]
_INDEXES = {
    "to_be_cancelled": (["data_location_id", "id"], "is_to_be_cancelled"),
    "failed": (["fingerprint", "id"], "status = 'failed'"),
}
_ASKED_FOR = (
    "num_nulls(cancel_requested_at, cancel_requested_by, cancel_because) IN (0, 3)"
    " AND (cancel_answer IS NULL OR cancel_requested_at IS NOT NULL)"
)


def upgrade() -> None:
    for table, columns in ((_RUN, _RUN_COLUMNS), (_ATTEMPT, _ATTEMPT_COLUMNS)):
        for name, kind, comment in columns:
            op.add_column(table, sa.Column(name, kind, nullable=True, comment=comment))
    computed = sa.Computed("cancel_requested_at IS NOT NULL AND cancel_answer IS NULL", persisted=True)
    comment = "Whether a wish to cancel it stands."
    op.add_column(_RUN, sa.Column("is_to_be_cancelled", sa.Boolean(), computed, nullable=False, comment=comment))
    op.create_check_constraint(op.f(f"ck_{_RUN}_cancel_is_asked_for_by_somebody"), _RUN, _ASKED_FOR)
    for name, (indexed, where) in _INDEXES.items():
        op.create_index(f"ix_{_RUN}_{name}", _RUN, indexed, postgresql_where=sa.text(where))
    for name in ("memory_gb", "time_hours"):
        op.create_check_constraint(op.f(f"ck_{_ATTEMPT}_{name}_is_positive"), _ATTEMPT, f"{name} > 0")
    op.create_check_constraint(op.f(f"ck_{_ATTEMPT}_resource"), _ATTEMPT, "exhausted IN ('memory', 'time')")
    op.create_index("ix_run_attempt_abandoned", _ATTEMPT, ["id"], postgresql_where=sa.text("abandoned_at IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_run_attempt_abandoned", table_name=_ATTEMPT)
    for name in _INDEXES:
        op.drop_index(f"ix_{_RUN}_{name}", table_name=_RUN)
    op.drop_constraint(op.f(f"ck_{_RUN}_cancel_is_asked_for_by_somebody"), _RUN)
    op.drop_column(_RUN, "is_to_be_cancelled")
    for table, columns in ((_ATTEMPT, _ATTEMPT_COLUMNS), (_RUN, _RUN_COLUMNS)):
        for name, *_ in reversed(columns):
            op.drop_column(table, name)
