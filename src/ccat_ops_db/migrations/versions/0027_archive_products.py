"""Final products go into a long-term archive where their step says so."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_STEP = "reduction_step_revision"
_TRANSFER = "product_archive_transfer"
_STATUSES = ("pending", "scheduled", "in_progress", "completed", "failed", "cancelled")
_LIVE = sa.text("status IN ('pending', 'scheduled', 'in_progress')")


def upgrade() -> None:
    archive: sa.Column[bool] = sa.Column(
        "archive",
        sa.Boolean(),
        server_default=sa.false(),
        nullable=False,
        comment="Whether its products, which are final, go to a long-term archive.",
    )
    op.add_column(_STEP, archive)
    check = op.f(f"ck_{_STEP}_only_final_is_archived")
    op.create_check_constraint(check, _STEP, "NOT archive OR is_final")
    _create_transfers()
    op.create_index(f"uq_{_TRANSFER}_live", _TRANSFER, ["run_id"], unique=True, postgresql_where=_LIVE)
    op.create_index(f"ix_{_TRANSFER}_run", _TRANSFER, ["run_id", "id"])
    op.create_index(f"ix_{_TRANSFER}_failed", _TRANSFER, ["id"], postgresql_where=sa.text("status = 'failed'"))


def _create_transfers() -> None:
    status: sa.Column[str] = sa.Column(
        "status",
        sa.Enum(*_STATUSES, name="status", native_enum=False, create_constraint=True, length=32),
        server_default="pending",
        nullable=False,
        comment="How far it is; written by advance() only.",
    )
    op.create_table(
        _TRANSFER,
        sa.Column("run_id", sa.BigInteger(), nullable=False, comment="Run whose products are archived."),
        sa.Column("origin_id", sa.BigInteger(), nullable=False, comment="PROCESSING location where they were made."),
        sa.Column(
            "destination_id",
            sa.BigInteger(),
            nullable=True,
            comment="Archive that they go to; NULL: not chosen yet.",
        ),
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        status,
        sa.Column(
            "trouble_count",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="Tries in a row that ended in trouble that passes; decides the pause.",
        ),
        sa.Column(
            "retry_count",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="Workers in a row that were lost with it.",
        ),
        sa.Column(
            "not_before",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Earliest moment of the next try.",
        ),
        sa.Column("failure", sa.Text(), nullable=True, comment="What went wrong last, and what to do."),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the record was made.",
        ),
        sa.Column(
            "claimed_by", sa.Text(), nullable=True, comment="Process that works on it, while lease_until is ahead."
        ),
        sa.Column(
            "lease_until",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="End of the claim; anybody may claim it after.",
        ),
        sa.CheckConstraint(
            "destination_id IS NOT NULL OR status IN ('pending', 'cancelled')",
            name=op.f(f"ck_{_TRANSFER}_goes_somewhere"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["executed_reduction_step.id"], name=op.f(f"fk_{_TRANSFER}_run_id")),
        sa.ForeignKeyConstraint(["origin_id"], ["data_location.id"], name=op.f(f"fk_{_TRANSFER}_origin_id")),
        sa.ForeignKeyConstraint(["destination_id"], ["data_location.id"], name=op.f(f"fk_{_TRANSFER}_destination_id")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{_TRANSFER}")),
    )


def downgrade() -> None:
    op.drop_table(_TRANSFER)
    op.drop_constraint(op.f(f"ck_{_STEP}_only_final_is_archived"), _STEP)
    op.drop_column(_STEP, "archive")
