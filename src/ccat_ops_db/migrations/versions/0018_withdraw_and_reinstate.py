"""What was declared invalid is kept as rows, with the products that were made from it; a config revision is withdrawn as versions are."""

import sqlalchemy as sa
from alembic import op

from ccat_ops_db.migrating import StillWithdrawn

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_CONFIG = "reduction_step_config_revision"
_RUN = "executed_reduction_step"
_CHECK = "withdrawal_has_a_reason"
_NOTE = f"""
CREATE TRIGGER note_{_CONFIG}_update AFTER UPDATE OF withdrawn_at ON {_CONFIG}
FOR EACH ROW WHEN ((OLD.withdrawn_at IS NULL) <> (NEW.withdrawn_at IS NULL)) EXECUTE FUNCTION note_row()
"""
_BEFORE = "Environment that it got."
_AFTER = "Environment that it got; what is secret in it by its digest."
_NEEDED_BEFORE = "CANCELLED because nothing needed it any more; blocks nothing."
_NEEDED_AFTER = "CANCELLED, or FAILED, and nothing needed it any more; blocks nothing."
_KNOWN = """
INSERT INTO withdrawal (software_version_id, what, because, by)
SELECT v.id, 'version ' || s.name || '/' || v.version, 'withdrawn before reasons were kept', 'migration'
FROM reduction_software_version v JOIN reduction_software s ON s.id = v.reduction_software_id
WHERE v.state = 'withdrawn'
"""
_HOLD = sa.text("SELECT what FROM withdrawal WHERE reinstated_at IS NULL AND by <> 'migration' ORDER BY id LIMIT 10")
"""Words of people; those of the migration itself come again with it."""


def upgrade() -> None:
    op.create_table(
        "withdrawal",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column(
            "raw_data_package_id", sa.BigInteger(), nullable=True, comment="The raw package, of a withdrawal of one."
        ),
        sa.Column("data_product_id", sa.BigInteger(), nullable=True, comment="The product, of a withdrawal of one."),
        sa.Column("run_id", sa.BigInteger(), nullable=True, comment="The run, of a withdrawal of all its products."),
        sa.Column(
            "software_version_id",
            sa.BigInteger(),
            nullable=True,
            comment="The software version, of a withdrawal of one.",
        ),
        sa.Column(
            "config_revision_id", sa.BigInteger(), nullable=True, comment="The config revision, of a withdrawal of one."
        ),
        sa.Column("what", sa.Text(), nullable=False, comment="The object, as people call it."),
        sa.Column("because", sa.Text(), nullable=False, comment="Why it is invalid."),
        sa.Column("by", sa.Text(), nullable=False, comment="Who withdrew it."),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the record was made.",
        ),
        sa.Column(
            "reinstated_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When that was undone; NULL: it holds."
        ),
        sa.Column("reinstated_by", sa.Text(), nullable=True, comment="Who undid it."),
        sa.CheckConstraint(
            "(reinstated_at IS NULL) = (reinstated_by IS NULL)", name=op.f("ck_withdrawal_reinstated_by_somebody")
        ),
        sa.CheckConstraint(
            "num_nonnulls(raw_data_package_id, data_product_id, run_id, software_version_id, config_revision_id) = 1",
            name=op.f("ck_withdrawal_is_of_exactly_one_object"),
        ),
        sa.ForeignKeyConstraint(
            ["config_revision_id"], ["reduction_step_config_revision.id"], name=op.f("fk_withdrawal_config_revision_id")
        ),
        sa.ForeignKeyConstraint(["data_product_id"], ["data_product.id"], name=op.f("fk_withdrawal_data_product_id")),
        sa.ForeignKeyConstraint(
            ["raw_data_package_id"], ["raw_data_package.id"], name=op.f("fk_withdrawal_raw_data_package_id")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["executed_reduction_step.id"], name=op.f("fk_withdrawal_run_id")),
        sa.ForeignKeyConstraint(
            ["software_version_id"], ["reduction_software_version.id"], name=op.f("fk_withdrawal_software_version_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_withdrawal")),
    )
    op.create_index(
        "uq_withdrawal_live_config_revision",
        "withdrawal",
        ["config_revision_id"],
        unique=True,
        postgresql_where=sa.text("config_revision_id IS NOT NULL AND reinstated_at IS NULL"),
    )
    op.create_index(
        "uq_withdrawal_live_data_product",
        "withdrawal",
        ["data_product_id"],
        unique=True,
        postgresql_where=sa.text("data_product_id IS NOT NULL AND reinstated_at IS NULL"),
    )
    op.create_index(
        "uq_withdrawal_live_raw_data_package",
        "withdrawal",
        ["raw_data_package_id"],
        unique=True,
        postgresql_where=sa.text("raw_data_package_id IS NOT NULL AND reinstated_at IS NULL"),
    )
    op.create_index(
        "uq_withdrawal_live_run",
        "withdrawal",
        ["run_id"],
        unique=True,
        postgresql_where=sa.text("run_id IS NOT NULL AND reinstated_at IS NULL"),
    )
    op.create_index(
        "uq_withdrawal_live_software_version",
        "withdrawal",
        ["software_version_id"],
        unique=True,
        postgresql_where=sa.text("software_version_id IS NOT NULL AND reinstated_at IS NULL"),
    )
    op.create_table(
        "withdrawn_product",
        sa.Column("withdrawal_id", sa.BigInteger(), nullable=False, comment="The withdrawal."),
        sa.Column("data_product_id", sa.BigInteger(), nullable=False, comment="The product."),
        sa.ForeignKeyConstraint(
            ["data_product_id"], ["data_product.id"], name=op.f("fk_withdrawn_product_data_product_id")
        ),
        sa.ForeignKeyConstraint(["withdrawal_id"], ["withdrawal.id"], name=op.f("fk_withdrawn_product_withdrawal_id")),
        sa.PrimaryKeyConstraint("withdrawal_id", "data_product_id", name=op.f("pk_withdrawn_product")),
    )
    op.create_index(
        op.f("ix_withdrawn_product_data_product_id"), "withdrawn_product", ["data_product_id"], unique=False
    )
    op.create_index(
        op.f("ix_executed_reduction_step_config_revision_id"),
        "executed_reduction_step",
        ["config_revision_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_executed_reduction_step_software_version_id"),
        "executed_reduction_step",
        ["software_version_id"],
        unique=False,
    )
    op.add_column(
        "reduction_step_config_revision",
        sa.Column(
            "withdrawn_at",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When it was declared invalid; it starts nothing.",
        ),
    )
    op.add_column(
        "reduction_step_config_revision",
        sa.Column("withdrawn_because", sa.Text(), nullable=True, comment="Why it is invalid."),
    )
    op.create_check_constraint(
        op.f(f"ck_{_CONFIG}_{_CHECK}"), _CONFIG, "(withdrawn_at IS NULL) = (withdrawn_because IS NULL)"
    )
    op.alter_column("run_attempt", "environment", comment=_AFTER, existing_comment=_BEFORE)
    op.alter_column(_RUN, "not_needed", comment=_NEEDED_AFTER, existing_comment=_NEEDED_BEFORE)
    op.execute(_NOTE)
    op.execute(_KNOWN)


def downgrade() -> None:
    if withdrawn := op.get_bind().scalars(_HOLD).all():
        raise StillWithdrawn(withdrawn, revision)
    op.alter_column("run_attempt", "environment", comment=_BEFORE, existing_comment=_AFTER)
    op.alter_column(_RUN, "not_needed", comment=_NEEDED_BEFORE, existing_comment=_NEEDED_AFTER)
    op.execute(f"DROP TRIGGER note_{_CONFIG}_update ON {_CONFIG}")
    op.drop_constraint(op.f(f"ck_{_CONFIG}_{_CHECK}"), _CONFIG, type_="check")
    op.drop_column("reduction_step_config_revision", "withdrawn_because")
    op.drop_column("reduction_step_config_revision", "withdrawn_at")
    op.drop_index(op.f("ix_executed_reduction_step_software_version_id"), table_name="executed_reduction_step")
    op.drop_index(op.f("ix_executed_reduction_step_config_revision_id"), table_name="executed_reduction_step")
    op.drop_index(op.f("ix_withdrawn_product_data_product_id"), table_name="withdrawn_product")
    op.drop_table("withdrawn_product")
    op.drop_index(
        "uq_withdrawal_live_software_version",
        table_name="withdrawal",
        postgresql_where=sa.text("software_version_id IS NOT NULL AND reinstated_at IS NULL"),
    )
    op.drop_index(
        "uq_withdrawal_live_run",
        table_name="withdrawal",
        postgresql_where=sa.text("run_id IS NOT NULL AND reinstated_at IS NULL"),
    )
    op.drop_index(
        "uq_withdrawal_live_raw_data_package",
        table_name="withdrawal",
        postgresql_where=sa.text("raw_data_package_id IS NOT NULL AND reinstated_at IS NULL"),
    )
    op.drop_index(
        "uq_withdrawal_live_data_product",
        table_name="withdrawal",
        postgresql_where=sa.text("data_product_id IS NOT NULL AND reinstated_at IS NULL"),
    )
    op.drop_index(
        "uq_withdrawal_live_config_revision",
        table_name="withdrawal",
        postgresql_where=sa.text("config_revision_id IS NOT NULL AND reinstated_at IS NULL"),
    )
    op.drop_table("withdrawal")
