"""Plans are kept for a while, so that exactly their runs can be launched."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "plan",
        sa.Column(
            "id",
            sa.Text(),
            nullable=False,
            comment="First 16 hexadecimal digits of the SHA-256 over the rows that can be launched.",
        ),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Whose runs they are."),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, comment="The moment that it is of."),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False, comment="It may be deleted from then on."),
        sa.Column("who", sa.Text(), nullable=False, comment="Who made it."),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"], name=op.f("fk_plan_pipeline_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plan")),
    )
    op.create_index(op.f("ix_plan_expires_at"), "plan", ["expires_at"], unique=False)
    op.create_index(op.f("ix_plan_pipeline_id"), "plan", ["pipeline_id"], unique=False)
    op.create_table(
        "plan_row",
        sa.Column("plan_id", sa.Text(), nullable=False, comment="Plan that it is part of."),
        sa.Column(
            "number", sa.BigInteger(), autoincrement=False, nullable=False, comment="Its place, counted from one."
        ),
        sa.Column("reduction_step_id", sa.BigInteger(), nullable=False, comment="Step that would be executed."),
        sa.Column(
            "sub_group_key",
            sa.Text(),
            nullable=False,
            comment="`dim=value,…`: identity of the sub-group within the step.",
        ),
        sa.Column("recipe_digest", sa.Text(), nullable=True, comment="What it would be made with; NULL: it follows."),
        sa.Column(
            "input_digest", sa.Text(), nullable=True, comment="Digest of its inputs; NULL: they are to be made first."
        ),
        sa.Column(
            "reason",
            sa.Enum(
                "missing",
                "inputs_changed",
                "recipe_changed",
                "upstream_changed",
                "auxiliary_changed",
                "invalidated",
                "requested",
                name="runreason",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
            comment="Why it is necessary; NULL: it follows.",
        ),
        sa.ForeignKeyConstraint(["plan_id"], ["plan.id"], name=op.f("fk_plan_row_plan_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("plan_id", "number", name=op.f("pk_plan_row")),
        sa.UniqueConstraint(
            "plan_id",
            "reduction_step_id",
            "sub_group_key",
            name=op.f("uq_plan_row_plan_id_reduction_step_id_sub_group_key"),
        ),
    )


def downgrade() -> None:
    op.drop_table("plan_row")
    op.drop_index(op.f("ix_plan_pipeline_id"), table_name="plan")
    op.drop_index(op.f("ix_plan_expires_at"), table_name="plan")
    op.drop_table("plan")
