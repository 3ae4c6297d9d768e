"""Workers write down how full their disks are, and people are told what is the matter."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alert",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column(
            "kind",
            sa.Enum(
                "failed_for_good",
                "dead_service",
                "full_disk",
                "backlog",
                name="alertkind",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
            comment="What sort of thing.",
        ),
        sa.Column("key", sa.Text(), nullable=False, comment="Which of that kind; there is one open alert of it."),
        sa.Column("sentence", sa.Text(), nullable=False, comment="What is the matter, and what to do."),
        sa.Column("number", sa.BigInteger(), server_default="1", nullable=False, comment="How many it is about."),
        sa.Column(
            "since",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When it was noticed.",
        ),
        sa.Column(
            "told_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When the hook took it last; NULL: not yet."
        ),
        sa.Column(
            "told_number",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="How many it was about then; 0: not told.",
        ),
        sa.Column(
            "cleared_at",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="When it was found to be over; NULL: it is not.",
        ),
        sa.Column(
            "end_told_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When the hook took that it is over."
        ),
        sa.CheckConstraint("number > 0", name=op.f("ck_alert_number_is_positive")),
        sa.CheckConstraint("told_number >= 0", name=op.f("ck_alert_told_number_is_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert")),
    )
    op.create_index(
        "ix_alert_open", "alert", ["kind", "key"], unique=True, postgresql_where=sa.text("cleared_at IS NULL")
    )
    op.create_table(
        "alert_watch",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False, comment="Always 1."),
        sa.Column("looked_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When somebody looked last."),
        sa.Column(
            "sees_since",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="Since when services were seen at every look; NULL: they are not.",
        ),
        sa.Column("told_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When the hook took something last."),
        sa.Column(
            "tries", sa.BigInteger(), server_default="0", nullable=False, comment="How often the hook failed in a row."
        ),
        sa.Column("next_try_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When it is tried again."),
        sa.Column("failure", sa.Text(), nullable=True, comment="Why the hook failed last; NULL: it did not."),
        sa.Column(
            "claimed_by", sa.Text(), nullable=True, comment="Process that works on it, while lease_until is ahead."
        ),
        sa.Column(
            "lease_until",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="End of the claim; anybody may claim it after.",
        ),
        sa.CheckConstraint("id = 1", name=op.f("ck_alert_watch_there_is_one")),
        sa.CheckConstraint("tries >= 0", name=op.f("ck_alert_watch_tries_is_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_watch")),
    )
    op.create_table(
        "seen_service",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column("key", sa.Text(), nullable=False, comment="Redis key of its heartbeat."),
        sa.Column("name", sa.Text(), nullable=False, comment="Name of the service, such as celery-worker."),
        sa.Column("host", sa.Text(), nullable=False, comment="Host that it runs on."),
        sa.Column(
            "beat_at",
            sa.TIMESTAMP(timezone=True),
            nullable=False,
            comment="When it last did something, as it said itself.",
        ),
        sa.Column(
            "seen_at", sa.TIMESTAMP(timezone=True), nullable=False, comment="When its last sign of life was seen."
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_seen_service")),
        sa.UniqueConstraint("key", name=op.f("uq_seen_service_key")),
    )
    op.add_column(
        "data_location",
        sa.Column(
            "free_bytes",
            sa.BigInteger(),
            nullable=True,
            comment="Free space as a worker there saw it last; NULL: none did.",
        ),
    )
    op.add_column(
        "data_location",
        sa.Column("total_bytes", sa.BigInteger(), nullable=True, comment="Size of the whole file system."),
    )
    op.add_column(
        "data_location",
        sa.Column(
            "space_checked_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When a worker there saw it."
        ),
    )
    op.create_check_constraint(op.f("ck_data_location_free_bytes_is_not_negative"), "data_location", "free_bytes >= 0")
    op.create_check_constraint(
        op.f("ck_data_location_space_has_a_moment"),
        "data_location",
        "(free_bytes IS NULL) = (space_checked_at IS NULL)",
    )


def downgrade() -> None:
    op.drop_column("data_location", "space_checked_at")
    op.drop_column("data_location", "total_bytes")
    op.drop_column("data_location", "free_bytes")
    op.drop_table("seen_service")
    op.drop_table("alert_watch")
    op.drop_index("ix_alert_open", table_name="alert", postgresql_where=sa.text("cleared_at IS NULL"))
    op.drop_table("alert")
