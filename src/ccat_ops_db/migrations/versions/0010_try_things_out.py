"""Trials are runs that nothing which decides what is necessary sees."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_RUN = "executed_reduction_step"
_ACTIVE_INDEX = "uq_executed_reduction_step_active"
_ACTIVE = """({row}status IN ('pending', 'staging_data', 'submitted', 'running', 'collecting_results')
    OR ({row}status = 'failed' AND {row}retry_at IS NOT NULL))"""
_ENDED = "OLD.status <> NEW.status AND NEW.status IN ('completed', 'failed', 'cancelled')"
_NOTED = f"({_ENDED} OR {_ACTIVE.format(row='OLD.')} <> {_ACTIVE.format(row='NEW.')})"
_CHECKS = {
    "trial_expires": "is_trial = (expires_at IS NOT NULL)",
    "trial_has_frozen_inputs": "NOT is_trial OR inputs_frozen_at IS NOT NULL",
    "only_trial_sets_parameters": "is_trial OR trial_parameters IS NULL",
}

_FORGET = """
UPDATE executed_reduction_step SET status = 'cancelled', retry_at = NULL, not_needed = true WHERE is_trial
"""


def _note_runs(condition: str) -> None:
    """Have runs noted as changes of their sub-groups where that holds."""
    op.execute(f"DROP TRIGGER IF EXISTS note_{_RUN}_update ON {_RUN}")
    op.execute(
        f"CREATE TRIGGER note_{_RUN}_update AFTER UPDATE OF status, retry_at ON {_RUN} "
        f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION note_run()"
    )


def _one_active(condition: str) -> None:
    """Let a sub-group have one active run of those for which that holds."""
    op.drop_index(_ACTIVE_INDEX, table_name=_RUN)
    columns = ["reduction_step_id", "sub_group_key"]
    op.create_index(_ACTIVE_INDEX, _RUN, columns, unique=True, postgresql_where=sa.text(condition))


def upgrade() -> None:
    op.add_column(
        _RUN,
        sa.Column(
            "is_trial",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether it tries something out: nothing that decides what is necessary sees it.",
        ),
    )
    op.add_column(
        _RUN,
        sa.Column(
            "trial_parameters",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=True,
            comment="All parameters of a trial that sets some; NULL: those of its config.",
        ),
    )
    op.add_column(
        _RUN,
        sa.Column(
            "expires_at",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Until when the products of a trial are kept.",
        ),
    )
    for name, condition in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_{_RUN}_{name}"), _RUN, condition)
    _one_active(f"{_ACTIVE.format(row='')} AND NOT is_trial")
    _note_runs(f"NOT NEW.is_trial AND {_NOTED}")


def downgrade() -> None:
    _note_runs(_NOTED)
    # Without the columns a trial would count as any other run; the others alone are kept.
    op.execute(_FORGET)
    _one_active(_ACTIVE.format(row=""))
    for name in reversed(_CHECKS):
        op.drop_constraint(op.f(f"ck_{_RUN}_{name}"), _RUN)
    for column in ("expires_at", "trial_parameters", "is_trial"):
        op.drop_column(_RUN, column)
