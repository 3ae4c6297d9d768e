"""Intermediate products may be deleted though a step takes them, where their step makes them again when it does."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_STEP = "reduction_step_revision"
_WITH_REASONS = ("executed_reduction_step", "sub_group", "plan_row")
_REASONS = (
    "missing",
    "inputs_changed",
    "recipe_changed",
    "upstream_changed",
    "auxiliary_changed",
    "invalidated",
    "requested",
)


def _allow(*reasons: str) -> None:
    for table in _WITH_REASONS:
        name = op.f(f"ck_{table}_runreason")
        op.drop_constraint(name, table)
        op.create_check_constraint(name, table, sa.column("reason").in_(reasons))


def upgrade() -> None:
    recompute: sa.Column[bool] = sa.Column(
        "recompute",
        sa.Boolean(),
        server_default=sa.false(),
        nullable=False,
        comment="Whether its products, which are intermediate, may go while others take them, and are made again then.",
    )
    op.add_column(_STEP, recompute)
    check = op.f(f"ck_{_STEP}_only_intermediate_is_recomputed")
    op.create_check_constraint(check, _STEP, "NOT (recompute AND is_final)")
    _allow(*_REASONS, "recompute")


def downgrade() -> None:
    op.execute("DELETE FROM plan WHERE id IN (SELECT plan_id FROM plan_row WHERE reason = 'recompute')")
    op.execute("UPDATE executed_reduction_step SET reason = 'requested' WHERE reason = 'recompute'")
    _allow(*_REASONS)
    op.drop_constraint(op.f(f"ck_{_STEP}_only_intermediate_is_recomputed"), _STEP)
    op.drop_column(_STEP, "recompute")
