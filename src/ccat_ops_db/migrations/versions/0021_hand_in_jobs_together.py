"""Attempts that are handed in to their cluster together have a row in common."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_BUNDLE = "job_bundle"


def upgrade() -> None:
    op.create_table(
        _BUNDLE,
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column(
            "data_location_id",
            sa.BigInteger(),
            nullable=False,
            comment="PROCESSING location whose cluster it is given to.",
        ),
        sa.Column("size", sa.BigInteger(), nullable=False, comment="How many attempts it was made for."),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the record was made.",
        ),
        sa.Column("submitted_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When the cluster took it."),
        sa.CheckConstraint("size > 0", name=op.f("ck_job_bundle_size_is_positive")),
        sa.ForeignKeyConstraint(
            ["data_location_id"], ["data_location.id"], name=op.f("fk_job_bundle_data_location_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_bundle")),
    )
    op.create_index(op.f("ix_job_bundle_data_location_id"), _BUNDLE, ["data_location_id"])
    op.add_column(
        "run_attempt",
        sa.Column(
            "job_bundle_id",
            sa.BigInteger(),
            nullable=True,
            comment="Bundle with which it was last to be handed in; NULL: by itself.",
        ),
    )
    op.create_foreign_key(op.f("fk_run_attempt_job_bundle_id"), "run_attempt", _BUNDLE, ["job_bundle_id"], ["id"])
    op.create_index(
        "ix_run_attempt_bundle",
        "run_attempt",
        ["job_bundle_id"],
        postgresql_where=sa.text("job_bundle_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_run_attempt_bundle", "run_attempt")
    op.drop_constraint(op.f("fk_run_attempt_job_bundle_id"), "run_attempt")
    op.drop_column("run_attempt", "job_bundle_id")
    op.drop_table(_BUNDLE)
