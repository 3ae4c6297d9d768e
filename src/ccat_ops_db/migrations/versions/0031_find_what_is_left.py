"""What was given up, what was lost, and what came damaged is found without a look at all that is well."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

_COPY, _ARCHIVING, _ROUND = "physical_copy", "long_term_archive_transfer", "replication_round"
_INDEXES = {"lost": "status IN ('corrupt', 'missing')", "unfinished": "status = 'writing'"}
_MOMENTS = {"raw_data_file": "created_at", _COPY: "created_at", "status_change": "at"}


def upgrade() -> None:
    for name, which in _INDEXES.items():
        op.create_index(f"ix_{_COPY}_{name}", _COPY, ["data_location_id"], postgresql_where=sa.text(which))
    for table, column in _MOMENTS.items():
        op.create_index(f"ix_{table}_{column}", table, [column], postgresql_using="brin")
    is_failed = sa.text("status = 'failed'")
    op.create_index(f"ix_{_ARCHIVING}_failed", _ARCHIVING, ["id"], postgresql_where=is_failed)
    bad_arrivals: sa.Column[int] = sa.Column(
        "bad_arrivals",
        sa.BigInteger(),
        server_default="0",
        nullable=False,
        comment="Times in a row that its tar, as it is where it comes from, arrived damaged.",
    )
    op.add_column(_ARCHIVING, bad_arrivals)
    op.create_table(
        _ROUND,
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False, comment="Always 1."),
        sa.Column(
            "looked_up_to",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="Number of the raw package that was looked at last; 0: the next round begins.",
        ),
        sa.Column("look_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When it goes on; NULL: now."),
        sa.CheckConstraint("id = 1", name=op.f(f"ck_{_ROUND}_there_is_one")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{_ROUND}")),
    )


def downgrade() -> None:
    op.drop_table(_ROUND)
    op.drop_column(_ARCHIVING, "bad_arrivals")
    op.drop_index(f"ix_{_ARCHIVING}_failed", _ARCHIVING)
    for table, column in _MOMENTS.items():
        op.drop_index(f"ix_{table}_{column}", table)
    for name in _INDEXES:
        op.drop_index(f"ix_{_COPY}_{name}", _COPY)
