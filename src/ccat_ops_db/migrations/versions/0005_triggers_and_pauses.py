"""Triggers carry chains of runs to their end; pauses hold pipelines and locations."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_REASONS = ("missing", "inputs_changed", "recipe_changed", "upstream_changed", "auxiliary_changed", "invalidated")
_REQUESTED = """
CREATE OR REPLACE FUNCTION note_request() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_change(s.pipeline_id, 'reduction_step', s.id::text, coalesce(NEW.sub_group_key, OLD.sub_group_key))
    FROM reduction_step s WHERE s.id = coalesce(NEW.reduction_step_id, OLD.reduction_step_id);
    RETURN NULL;
END $$;
"""


def _allow(table: str, *reasons: str) -> None:
    name = op.f(f"ck_{table}_runreason")
    op.drop_constraint(name, table)
    op.create_check_constraint(name, table, sa.column("reason").in_(reasons))


def upgrade() -> None:
    op.create_table(
        "pause",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=True, comment="The pipeline, if it is one."),
        sa.Column("data_location_id", sa.BigInteger(), nullable=True, comment="The processing location, if it is one."),
        sa.Column("because", sa.Text(), nullable=False, comment="Why, in words."),
        sa.Column("by", sa.Text(), nullable=False, comment="Process or person that paused it."),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the record was made.",
        ),
        sa.CheckConstraint("num_nonnulls(pipeline_id, data_location_id) <= 1", name=op.f("ck_pause_is_of_one_thing")),
        sa.ForeignKeyConstraint(["data_location_id"], ["data_location.id"], name=op.f("fk_pause_data_location_id")),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"], name=op.f("fk_pause_pipeline_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pause")),
        sa.UniqueConstraint(
            "pipeline_id",
            "data_location_id",
            name=op.f("uq_pause_pipeline_id_data_location_id"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_table(
        "trigger",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column("pipeline_id", sa.BigInteger(), nullable=False, comment="Pipeline that it sets off."),
        sa.Column(
            "type",
            sa.Enum(
                "continuous", "cron", "manual", name="triggertype", native_enum=False, create_constraint=True, length=32
            ),
            nullable=False,
            comment="What opened it.",
        ),
        sa.Column("tick_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="The tick, of a schedule."),
        sa.Column(
            "is_forced",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether what is up to date runs too.",
        ),
        sa.Column("because", sa.Text(), nullable=False, comment="Why, in words."),
        sa.Column("by", sa.Text(), nullable=False, comment="Process or person that opened it."),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the record was made.",
        ),
        sa.Column("closed_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When nothing followed any more."),
        sa.CheckConstraint("(type = 'cron') = (tick_at IS NOT NULL)", name=op.f("ck_trigger_cron_has_a_tick")),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipeline.id"], name=op.f("fk_trigger_pipeline_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_trigger")),
        sa.UniqueConstraint("pipeline_id", "tick_at", name=op.f("uq_trigger_pipeline_id_tick_at")),
    )
    op.create_index(
        "ix_trigger_open", "trigger", ["pipeline_id"], unique=False, postgresql_where=sa.text("closed_at IS NULL")
    )
    op.create_table(
        "run_request",
        sa.Column("reduction_step_id", sa.BigInteger(), nullable=False, comment="The step."),
        sa.Column("sub_group_key", sa.Text(), nullable=False, comment="The sub-group of the step."),
        sa.Column("trigger_id", sa.BigInteger(), nullable=False, comment="The trigger."),
        sa.Column("is_forced", sa.Boolean(), nullable=False, comment="Whether it is run though it is up to date."),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the record was made.",
        ),
        sa.ForeignKeyConstraint(
            ["reduction_step_id"], ["reduction_step.id"], name=op.f("fk_run_request_reduction_step_id")
        ),
        sa.ForeignKeyConstraint(["trigger_id"], ["trigger.id"], name=op.f("fk_run_request_trigger_id")),
        sa.PrimaryKeyConstraint("reduction_step_id", "sub_group_key", name=op.f("pk_run_request")),
    )
    op.create_index(op.f("ix_run_request_trigger_id"), "run_request", ["trigger_id"], unique=False)
    op.add_column(
        "executed_reduction_step",
        sa.Column(
            "trigger_id", sa.BigInteger(), nullable=True, comment="Trigger that it belongs to, if it does to one."
        ),
    )
    op.create_index(
        "ix_executed_reduction_step_trigger",
        "executed_reduction_step",
        ["trigger_id"],
        postgresql_where=sa.text("trigger_id IS NOT NULL"),
    )
    op.create_foreign_key(
        op.f("fk_executed_reduction_step_trigger_id"), "executed_reduction_step", "trigger", ["trigger_id"], ["id"]
    )
    op.add_column(
        "pipeline_evaluation",
        sa.Column(
            "last_tick_at",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Tick of its schedule up to which all are run.",
        ),
    )
    for table in ("executed_reduction_step", "sub_group"):
        _allow(table, *_REASONS, "requested")
    op.execute(_REQUESTED)
    op.execute(
        "CREATE TRIGGER note_run_request AFTER INSERT OR UPDATE OR DELETE ON run_request "
        "FOR EACH ROW EXECUTE FUNCTION note_request()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER note_run_request ON run_request")
    op.execute("DROP FUNCTION note_request()")
    op.execute("UPDATE executed_reduction_step SET reason = 'recipe_changed' WHERE reason = 'requested'")
    op.execute("UPDATE sub_group SET reason = 'recipe_changed' WHERE reason = 'requested'")
    for table in ("executed_reduction_step", "sub_group"):
        _allow(table, *_REASONS)
    op.drop_column("pipeline_evaluation", "last_tick_at")
    op.drop_constraint(op.f("fk_executed_reduction_step_trigger_id"), "executed_reduction_step", type_="foreignkey")
    op.drop_index("ix_executed_reduction_step_trigger", table_name="executed_reduction_step")
    op.drop_column("executed_reduction_step", "trigger_id")
    op.drop_index(op.f("ix_run_request_trigger_id"), table_name="run_request")
    op.drop_table("run_request")
    op.drop_index("ix_trigger_open", table_name="trigger", postgresql_where=sa.text("closed_at IS NULL"))
    op.drop_table("trigger")
    op.drop_table("pause")
