"""Steps take calibrations by rules: the nearest in time, of whichever pipeline."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_NOTE = """
-- What runs made may be chosen in other pipelines too: which, is known when changes are handed out.
CREATE OR REPLACE FUNCTION note_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_change(NEW.pipeline_id, 'reduction_step', NEW.reduction_step_id::text, NEW.sub_group_key);
    IF NEW.status = 'completed' THEN
        PERFORM note_change(NULL, 'reduction_step', NEW.reduction_step_id::text, NEW.sub_group_key);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_run_of(product bigint) RETURNS void LANGUAGE sql AS $$
    SELECT note_change(concerned.pipeline_id, 'reduction_step', r.reduction_step_id::text, r.sub_group_key)
    FROM data_product d JOIN executed_reduction_step r ON r.id = d.run_id,
        LATERAL (VALUES (r.pipeline_id), (NULL)) AS concerned (pipeline_id)
    WHERE d.id = product
$$;
"""
_NOTE_AS_BEFORE = """
CREATE OR REPLACE FUNCTION note_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_change(NEW.pipeline_id, 'reduction_step', NEW.reduction_step_id::text, NEW.sub_group_key);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_run_of(product bigint) RETURNS void LANGUAGE sql AS $$
    SELECT note_change(r.pipeline_id, 'reduction_step', r.reduction_step_id::text, r.sub_group_key)
    FROM data_product d JOIN executed_reduction_step r ON r.id = d.run_id WHERE d.id = product
$$;
"""


def upgrade() -> None:
    op.create_table(
        "auxiliary_candidate",
        sa.Column(
            "reduction_step_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="Step that takes."
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="Its rule."),
        sa.Column(
            "raw_data_package_id",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="Raw package that the run covers.",
        ),
        sa.Column("run_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The run."),
        sa.Column(
            "observed_at", sa.TIMESTAMP(timezone=True), nullable=False, comment="Start of the scan of the package."
        ),
        sa.Column(
            "same_key",
            sa.Text(),
            nullable=True,
            comment="`dim=value,…` of the dimensions that have to agree; NULL: the packages of the run differ in them.",
        ),
        sa.PrimaryKeyConstraint(
            "reduction_step_id", "name", "raw_data_package_id", "run_id", name=op.f("pk_auxiliary_candidate")
        ),
    )
    op.create_index(
        "ix_auxiliary_candidate_time",
        "auxiliary_candidate",
        ["reduction_step_id", "name", "same_key", "observed_at", "run_id"],
        unique=False,
    )
    op.create_index(
        "ix_auxiliary_candidate_run", "auxiliary_candidate", ["reduction_step_id", "name", "run_id"], unique=False
    )
    op.create_table(
        "auxiliary_choice",
        sa.Column("sub_group_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The sub-group."),
        sa.Column("name", sa.Text(), nullable=False, comment="The rule."),
        sa.Column("data_product_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The product."),
        sa.Column("reduction_step_id", sa.BigInteger(), nullable=False, comment="Step of the sub-group."),
        sa.PrimaryKeyConstraint("sub_group_id", "name", "data_product_id", name=op.f("pk_auxiliary_choice")),
    )
    op.create_index("ix_auxiliary_choice_step", "auxiliary_choice", ["reduction_step_id"], unique=False)
    op.create_table(
        "auxiliary_nearest",
        sa.Column(
            "reduction_step_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="Step that takes."
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="Its rule."),
        sa.Column(
            "raw_data_package_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The raw package."
        ),
        sa.Column("sub_group_id", sa.BigInteger(), nullable=False, comment="Sub-group of the package."),
        sa.Column("run_id", sa.BigInteger(), nullable=True, comment="The nearest run; NULL: there is none."),
        sa.PrimaryKeyConstraint("reduction_step_id", "name", "raw_data_package_id", name=op.f("pk_auxiliary_nearest")),
    )
    op.create_index(
        "ix_auxiliary_nearest_missing",
        "auxiliary_nearest",
        ["sub_group_id"],
        unique=False,
        postgresql_where=sa.text("run_id IS NULL"),
    )
    op.create_index(op.f("ix_auxiliary_nearest_sub_group_id"), "auxiliary_nearest", ["sub_group_id"], unique=False)
    op.create_table(
        "auxiliary_rule",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column("step_revision_id", sa.BigInteger(), nullable=False, comment="Revision of the step that takes."),
        sa.Column("name", sa.Text(), nullable=False, comment="How the step calls what it takes."),
        sa.Column("from_step_id", sa.BigInteger(), nullable=False, comment="Step that gives, of any pipeline."),
        sa.Column(
            "same",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=False,
            comment="Dimensions in which all packages of the run are as the package.",
        ),
        sa.Column(
            "max_age",
            sa.Interval(),
            nullable=False,
            comment="How far apart scans of package and run may have started, either way.",
        ),
        sa.Column(
            "on_missing",
            sa.Enum("wait", "fail", name="onmissing", native_enum=False, create_constraint=True, length=32),
            nullable=False,
            comment="What is done while there is none.",
        ),
        sa.Column(
            "redo_on_better",
            sa.Boolean(),
            nullable=False,
            comment="Whether a nearer or newer one makes a run necessary.",
        ),
        sa.CheckConstraint("max_age > interval '0'", name=op.f("ck_auxiliary_rule_max_age_is_positive")),
        sa.ForeignKeyConstraint(["from_step_id"], ["reduction_step.id"], name=op.f("fk_auxiliary_rule_from_step_id")),
        sa.ForeignKeyConstraint(
            ["step_revision_id"], ["reduction_step_revision.id"], name=op.f("fk_auxiliary_rule_step_revision_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_auxiliary_rule")),
        sa.UniqueConstraint("step_revision_id", "name", name=op.f("uq_auxiliary_rule_step_revision_id_name")),
    )
    op.create_index(op.f("ix_auxiliary_rule_from_step_id"), "auxiliary_rule", ["from_step_id"], unique=False)
    op.create_index("ix_executed_obs_unit_started_at", "executed_obs_unit", ["started_at"], unique=False)
    op.add_column(
        "run_input", sa.Column("name", sa.Text(), nullable=True, comment="How the step calls it, for role auxiliary.")
    )
    op.drop_index(
        op.f("uq_run_input_product"), table_name="run_input", postgresql_where="(data_product_id IS NOT NULL)"
    )
    op.create_index(
        "uq_run_input_product",
        "run_input",
        ["run_id", "data_product_id", "name"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("data_product_id IS NOT NULL"),
    )
    op.add_column(
        "sub_group",
        sa.Column(
            "only_auxiliary",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether inputs of now can differ from those of its newest run in auxiliary ones only.",
        ),
    )
    op.add_column(
        "sub_group",
        sa.Column(
            "lost_auxiliary",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether auxiliary inputs of its newest run do not count any more.",
        ),
    )
    op.create_check_constraint(
        op.f("ck_run_input_auxiliary_has_a_name"), "run_input", "(role = 'auxiliary') = (name IS NOT NULL)"
    )
    op.execute(_NOTE)


def downgrade() -> None:
    op.execute(_NOTE_AS_BEFORE)
    op.execute("DELETE FROM pending_change WHERE pipeline_id IS NULL AND noun = 'reduction_step'")
    op.execute("DELETE FROM run_input WHERE role = 'auxiliary'")
    op.drop_column("sub_group", "lost_auxiliary")
    op.drop_column("sub_group", "only_auxiliary")
    op.drop_index(
        "uq_run_input_product",
        table_name="run_input",
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("data_product_id IS NOT NULL"),
    )
    op.create_index(
        op.f("uq_run_input_product"),
        "run_input",
        ["run_id", "data_product_id"],
        unique=True,
        postgresql_where="(data_product_id IS NOT NULL)",
    )
    op.drop_column("run_input", "name")
    op.drop_index("ix_executed_obs_unit_started_at", table_name="executed_obs_unit")
    op.drop_index(op.f("ix_auxiliary_rule_from_step_id"), table_name="auxiliary_rule")
    op.drop_table("auxiliary_rule")
    op.drop_index(op.f("ix_auxiliary_nearest_sub_group_id"), table_name="auxiliary_nearest")
    op.drop_index(
        "ix_auxiliary_nearest_missing", table_name="auxiliary_nearest", postgresql_where=sa.text("run_id IS NULL")
    )
    op.drop_table("auxiliary_nearest")
    op.drop_index("ix_auxiliary_choice_step", table_name="auxiliary_choice")
    op.drop_table("auxiliary_choice")
    op.drop_index("ix_auxiliary_candidate_run", table_name="auxiliary_candidate")
    op.drop_index("ix_auxiliary_candidate_time", table_name="auxiliary_candidate")
    op.drop_table("auxiliary_candidate")
