"""Pipelines, locations and users have limits on what is live, created and done again."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_JSON = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
_COLUMNS: tuple[tuple[str, sa.Column[Any]], ...] = (
    (
        "pipeline",
        sa.Column(
            "limits",
            _JSON,
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="How many of its runs may be live or created, and when it may redo.",
        ),
    ),
    (
        "data_location",
        sa.Column(
            "live_limit",
            sa.BigInteger(),
            nullable=True,
            comment="Most runs that are live there at a time; NULL: any number.",
        ),
    ),
    (
        "user",
        sa.Column(
            "live_limit",
            sa.BigInteger(),
            nullable=True,
            comment="Most runs of its pipelines that are live at a time; NULL: as many as for every user.",
        ),
    ),
    (
        "installation",
        sa.Column(
            "live_limit_per_user",
            sa.BigInteger(),
            nullable=True,
            comment="Most runs of the pipelines of one user that are live at a time, unless the user has another limit.",
        ),
    ),
    (
        "pipeline_evaluation",
        sa.Column(
            "created_lately",
            _JSON,
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Moment → runs created then, within the last minute; kept where their number is limited.",
        ),
    ),
    (
        "executed_reduction_step",
        sa.Column(
            "held_by_limit",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether it waits for a limit only, and so keeps its place in the order.",
        ),
    ),
)
_POSITIVE = (("data_location", "live_limit"), ("user", "live_limit"), ("installation", "live_limit_per_user"))


def upgrade() -> None:
    for table, column in _COLUMNS:
        op.add_column(table, column)
    for table, name in _POSITIVE:
        op.create_check_constraint(op.f(f"ck_{table}_{name}_is_positive"), table, f"{name} > 0")


def downgrade() -> None:
    for table, column in reversed(_COLUMNS):
        op.drop_column(table, str(column.name))
