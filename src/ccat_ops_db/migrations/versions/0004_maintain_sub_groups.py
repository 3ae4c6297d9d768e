"""The gap is read from maintained tables; triggers write down what they depend on, whoever changed it.

What runs covered and made is worked out for those that there are.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_METADATA = (
    "executed_obs_unit",
    "obs_unit",
    "source",
    "fixed_source",
    "solar_system_object",
    "constant_elevation_source",
    "observing_program",
    "sub_observing_program",
    "obs_mode",
    "observation_configuration",
    "instrument",
    "instrument_module",
    "instrument_module_configuration",
    "telescope",
    "observatory",
    "data_transfer_package",
)
_PARTS = (
    ("fixed_source", "source", "id"),
    ("solar_system_object", "source", "id"),
    ("constant_elevation_source", "source", "id"),
    ("sub_observing_program", "observing_program", "observing_program_id"),
    ("obs_unit_module_configuration", "obs_unit", "obs_unit_id"),
    ("instrument_module_configuration", "instrument_module", "instrument_module_id"),
    ("instrument", "telescope", "telescope_id"),
)
"""Tables of which one row more or less says something about the row of another that they belong to."""
_ACTIVE = """({row}.status IN ('pending', 'staging_data', 'submitted', 'running', 'collecting_results')
    OR {row}.status = 'failed' AND {row}.retry_at IS NOT NULL)"""
_SOUND = "CASE WHEN {row}.status IN ('corrupt', 'missing') THEN false WHEN {row}.status <> 'deleted' THEN true END"
_FUNCTIONS = """
CREATE OR REPLACE FUNCTION note_change(of_pipeline bigint, of_noun text, of_object text, of_sub_group text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO pending_change (pipeline_id, noun, object_id, sub_group_key)
    VALUES (of_pipeline, of_noun, of_object, of_sub_group);
    PERFORM pg_notify('ccat_moves', 'pending_change:made');
END $$;

CREATE OR REPLACE FUNCTION note_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_change(NULL, TG_TABLE_NAME, coalesce(NEW.id, OLD.id)::text);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_packages_of_file() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_change(NULL, 'raw_data_package', p.id::text) FROM raw_data_package p
    WHERE p.state = 'archived' AND (
        p.id IN (OLD.raw_data_package_id, NEW.raw_data_package_id)
        OR p.executed_obs_unit_id IN (OLD.executed_obs_unit_id, NEW.executed_obs_unit_id));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_whole() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_change(NULL, TG_ARGV[0], whole.id)
    FROM (SELECT to_jsonb(OLD) ->> TG_ARGV[1] UNION SELECT to_jsonb(NEW) ->> TG_ARGV[1]) AS whole (id)
    WHERE whole.id IS NOT NULL;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_change(NEW.pipeline_id, 'reduction_step', NEW.reduction_step_id::text, NEW.sub_group_key);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_run_of(product bigint) RETURNS void LANGUAGE sql AS $$
    SELECT note_change(r.pipeline_id, 'reduction_step', r.reduction_step_id::text, r.sub_group_key)
    FROM data_product d JOIN executed_reduction_step r ON r.id = d.run_id WHERE d.id = product
$$;

CREATE OR REPLACE FUNCTION note_copy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_run_of(NEW.data_product_id);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_other_copy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM physical_copy c WHERE c.data_product_id = NEW.data_product_id
               AND c.status IN ('corrupt', 'missing')) THEN
        PERFORM note_run_of(NEW.data_product_id);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_product() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_run_of(NEW.id);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_pipeline() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_change(NEW.id, 'pipeline', NEW.id::text);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_change(NEW.pipeline_id, 'pipeline', NEW.pipeline_id::text);
    RETURN NULL;
END $$;
"""
_TRIGGERS = (
    ("raw_data_package", "INSERT", "NEW.state = 'archived'", "note_row"),
    (
        "raw_data_package",
        "UPDATE",
        "(OLD.state = 'archived' OR NEW.state = 'archived') AND OLD.* IS DISTINCT FROM NEW.*",
        "note_row",
    ),
    ("raw_data_package", "DELETE", "OLD.state = 'archived'", "note_row"),
    ("raw_data_file", "INSERT", "true", "note_packages_of_file"),
    ("raw_data_file", "UPDATE", "OLD.* IS DISTINCT FROM NEW.*", "note_packages_of_file"),
    ("raw_data_file", "DELETE", "true", "note_packages_of_file"),
    (
        "executed_reduction_step",
        "UPDATE OF status, retry_at",
        f"""OLD.status <> NEW.status AND NEW.status IN ('completed', 'failed', 'cancelled')
        OR {_ACTIVE.format(row="OLD")} <> {_ACTIVE.format(row="NEW")}""",
        "note_run",
    ),
    (
        "physical_copy",
        "UPDATE OF status",
        f"NEW.data_product_id IS NOT NULL AND {_SOUND.format(row='OLD')} IS DISTINCT FROM {_SOUND.format(row='NEW')}",
        "note_copy",
    ),
    ("physical_copy", "INSERT", "NEW.data_product_id IS NOT NULL", "note_other_copy"),
    (
        "data_product",
        "UPDATE OF state",
        "(OLD.state IN ('orphaned', 'withdrawn')) <> (NEW.state IN ('orphaned', 'withdrawn'))",
        "note_product",
    ),
    ("reduction_software_version", "INSERT", "true", "note_row"),
    ("reduction_software_version", "UPDATE OF state", "OLD.state <> NEW.state", "note_row"),
    ("pipeline", "UPDATE OF enabled", "OLD.enabled <> NEW.enabled", "note_pipeline"),
    ("pipeline_revision", "INSERT", "true", "note_revision"),
    *((table, "UPDATE", "OLD.* IS DISTINCT FROM NEW.*", "note_row") for table in _METADATA),
)
_COVERAGE = """
INSERT INTO run_coverage (run_id, raw_data_package_id)
WITH RECURSIVE ancestry (run_id, maker_id) AS (
    SELECT id, id FROM executed_reduction_step
    UNION
    SELECT a.run_id, d.run_id FROM ancestry a JOIN run_input i ON i.run_id = a.maker_id
    JOIN data_product d ON d.id = i.data_product_id
)
SELECT DISTINCT a.run_id, i.raw_data_package_id FROM ancestry a JOIN run_input i ON i.run_id = a.maker_id
WHERE i.role = 'raw'
"""
_MADE = """
UPDATE executed_reduction_step r SET made_digest = 'sha256:' || encode(sha256(convert_to(
    '[' || r.reduction_step_id || ',' || to_json(r.sub_group_key)::text || ',[' || made.products || ']]', 'UTF8')), 'hex')
FROM (
    SELECT d.run_id, string_agg('[' || to_json(d.relative_path)::text || ',"' || d.checksum || '"]', ','
        ORDER BY d.relative_path COLLATE "C", d.checksum) AS products
    FROM data_product d WHERE d.type NOT IN ('log', 'plot', 'statistics') GROUP BY d.run_id
) made WHERE made.run_id = r.id
"""


def _name(table: str, event: str) -> str:
    return f"note_{table}_{event.split(maxsplit=1)[0].lower()}"


def upgrade() -> None:
    op.create_table(
        "pending_change",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column(
            "pipeline_id",
            sa.BigInteger(),
            nullable=True,
            comment="Pipeline that it concerns; NULL: not yet handed out.",
        ),
        sa.Column("noun", sa.String(length=64), nullable=False, comment="Table of what changed."),
        sa.Column("object_id", sa.Text(), nullable=False, comment="Row of what changed."),
        sa.Column("sub_group_key", sa.Text(), nullable=True, comment="The sub-group, of noun reduction_step."),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the record was made.",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pending_change")),
    )
    op.create_index("ix_pending_change_pipeline_id", "pending_change", ["pipeline_id"], unique=False)
    op.create_table(
        "pipeline_evaluation",
        sa.Column("pipeline_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The pipeline."),
        sa.Column(
            "pipeline_revision_id", sa.BigInteger(), nullable=True, comment="Revision that the sub-groups are made by."
        ),
        sa.Column(
            "bases",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Step → digest of what all its verdicts depend on.",
        ),
        sa.Column(
            "rebuild_at",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When everything is looked at again; NULL: now.",
        ),
        sa.Column(
            "fading_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When relative times are looked at again."
        ),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When something changes by itself."),
        sa.PrimaryKeyConstraint("pipeline_id", name=op.f("pk_pipeline_evaluation")),
    )
    op.create_index(op.f("ix_pipeline_evaluation_due_at"), "pipeline_evaluation", ["due_at"])
    op.create_table(
        "sub_group",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column("reduction_step_id", sa.BigInteger(), nullable=False, comment="Step whose sub-group it is."),
        sa.Column("key", sa.Text(), nullable=False, comment="`dim=value,…`: its identity within the step."),
        sa.Column("path", sa.Text(), nullable=False, comment="Readable, path-safe form of the key."),
        sa.Column(
            "labels",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            nullable=False,
            comment="Dimension → value as people read it.",
        ),
        sa.Column("last_run_id", sa.BigInteger(), nullable=True, comment="Its newest completed run."),
        sa.Column("active_run_id", sa.BigInteger(), nullable=True, comment="Its active run."),
        sa.Column("input_digest", sa.Text(), nullable=True, comment="Digest of the inputs that a run would get now."),
        sa.Column(
            "readiness",
            sa.Enum("all", "covered", "none", name="readiness", native_enum=False, create_constraint=True, length=32),
            server_default="all",
            nullable=False,
            comment="Which of its packages the newest run covers as they are wanted now.",
        ),
        sa.Column(
            "verdict",
            sa.Enum(
                "up_to_date",
                "wanted",
                "cooling",
                "blocked",
                "failed",
                "cancelled",
                name="verdict",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="up_to_date",
            nullable=False,
            comment="What is to be done about it.",
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
                name="runreason",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
            comment="What makes a run necessary; NULL where none is.",
        ),
        sa.Column(
            "cut_off",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="A run waits for the packages archived until then.",
        ),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When the verdict changes by itself."),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sub_group")),
        sa.UniqueConstraint("reduction_step_id", "key", name=op.f("uq_sub_group_reduction_step_id_key")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index(
        "ix_sub_group_due", "sub_group", ["due_at"], unique=False, postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index(
        "ix_sub_group_open",
        "sub_group",
        ["reduction_step_id", "verdict", "id"],
        unique=False,
        postgresql_where=sa.text("verdict <> 'up_to_date'"),
    )
    op.create_index(
        "ix_sub_group_to_create",
        "sub_group",
        ["reduction_step_id", "id"],
        unique=False,
        postgresql_where=sa.text("verdict = 'wanted' AND active_run_id IS NULL"),
    )
    op.create_table(
        "sub_group_package",
        sa.Column("reduction_step_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The step."),
        sa.Column(
            "raw_data_package_id", sa.BigInteger(), autoincrement=False, nullable=False, comment="The raw package."
        ),
        sa.Column("sub_group_id", sa.BigInteger(), nullable=False, comment="The sub-group."),
        sa.Column(
            "archived_at", sa.TIMESTAMP(timezone=True), nullable=False, comment="When the package became ARCHIVED."
        ),
        sa.Column(
            "is_faded", sa.Boolean(), nullable=False, comment="Whether it left, only because of a relative time."
        ),
        sa.Column(
            "is_ready",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="Whether steps further down need not wait for it.",
        ),
        sa.PrimaryKeyConstraint("reduction_step_id", "raw_data_package_id", name=op.f("pk_sub_group_package")),
        postgresql_with={"fillfactor": 80},
    )
    op.create_index(op.f("ix_sub_group_package_sub_group_id"), "sub_group_package", ["sub_group_id"], unique=False)
    op.create_index(
        "ix_sub_group_package_unready",
        "sub_group_package",
        ["reduction_step_id", "raw_data_package_id"],
        unique=False,
        postgresql_where=sa.text("NOT is_ready AND NOT is_faded"),
    )
    op.create_table(
        "run_coverage",
        sa.Column("run_id", sa.BigInteger(), nullable=False, comment="The run, once its inputs are fixed."),
        sa.Column("raw_data_package_id", sa.BigInteger(), nullable=False, comment="The raw package."),
        sa.ForeignKeyConstraint(
            ["raw_data_package_id"], ["raw_data_package.id"], name=op.f("fk_run_coverage_raw_data_package_id")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["executed_reduction_step.id"], name=op.f("fk_run_coverage_run_id")),
        sa.PrimaryKeyConstraint("run_id", "raw_data_package_id", name=op.f("pk_run_coverage")),
    )
    op.create_index(
        "ix_data_product_invalid",
        "data_product",
        ["run_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('orphaned', 'withdrawn')"),
    )
    op.add_column(
        "executed_reduction_step",
        sa.Column(
            "made_digest",
            sa.Text(),
            nullable=True,
            comment="Digest of what it made for others; NULL: nothing, or not yet COMPLETED.",
        ),
    )
    op.create_index(
        "ix_physical_copy_bad_product",
        "physical_copy",
        ["data_product_id"],
        unique=False,
        postgresql_where=sa.text("data_product_id IS NOT NULL AND status IN ('corrupt', 'missing')"),
    )
    op.create_check_constraint(
        op.f("ck_executed_reduction_step_made_digest_is_sha256"),
        "executed_reduction_step",
        "made_digest ~ '^sha256:[0-9a-f]{64}$'",
    )
    op.execute(_COVERAGE)
    op.execute(_MADE)
    op.execute(_FUNCTIONS)
    for table, event, condition, function in _TRIGGERS:
        op.execute(
            f"CREATE TRIGGER {_name(table, event)} AFTER {event} ON {table} "
            f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {function}()"
        )
    for part, whole, key in _PARTS:
        op.execute(
            f"CREATE TRIGGER note_whole AFTER INSERT OR DELETE OR UPDATE OF {key} ON {part} "
            f"FOR EACH ROW EXECUTE FUNCTION note_whole('{whole}', '{key}')"
        )


def downgrade() -> None:
    for table, event, _, _ in _TRIGGERS:
        op.execute(f"DROP TRIGGER {_name(table, event)} ON {table}")
    for part, *_ in _PARTS:
        op.execute(f"DROP TRIGGER note_whole ON {part}")
    for function in (
        "row",
        "packages_of_file",
        "whole",
        "run",
        "copy",
        "other_copy",
        "product",
        "pipeline",
        "revision",
    ):
        op.execute(f"DROP FUNCTION note_{function}()")
    op.execute("DROP FUNCTION note_run_of(bigint)")
    op.execute("DROP FUNCTION note_change(bigint, text, text, text)")
    op.drop_index(
        "ix_physical_copy_bad_product",
        table_name="physical_copy",
        postgresql_where=sa.text("data_product_id IS NOT NULL AND status IN ('corrupt', 'missing')"),
    )
    op.drop_column("executed_reduction_step", "made_digest")
    op.drop_index(
        "ix_data_product_invalid",
        table_name="data_product",
        postgresql_where=sa.text("state IN ('orphaned', 'withdrawn')"),
    )
    op.drop_table("run_coverage")
    op.drop_index(
        "ix_sub_group_package_unready",
        table_name="sub_group_package",
        postgresql_where=sa.text("NOT is_ready AND NOT is_faded"),
    )
    op.drop_index(op.f("ix_sub_group_package_sub_group_id"), table_name="sub_group_package")
    op.drop_table("sub_group_package")
    op.drop_index(
        "ix_sub_group_to_create",
        table_name="sub_group",
        postgresql_where=sa.text("verdict = 'wanted' AND active_run_id IS NULL"),
    )
    op.drop_index("ix_sub_group_open", table_name="sub_group", postgresql_where=sa.text("verdict <> 'up_to_date'"))
    op.drop_index("ix_sub_group_due", table_name="sub_group", postgresql_where=sa.text("due_at IS NOT NULL"))
    op.drop_table("sub_group")
    op.drop_table("pipeline_evaluation")
    op.drop_index("ix_pending_change_pipeline_id", table_name="pending_change")
    op.drop_table("pending_change")
