"""It is known when locations were added and marked, since when they are in trouble, and who can read archives.

So one that nobody ever looked at is away after a while, as any other; another disk in its place is noticed; one that
comes and goes hurries nobody; and a worker that alone cannot read an archive says nothing for the others.
"""

import sqlalchemy as sa
from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None

_LOCATION, _READER = "data_location", "archive_reader"
_MOMENT = sa.TIMESTAMP(timezone=True)
_WELL = "When a worker last saw it without, before that."
_MARKED = "When a worker first saw its mark in its directory, since it lies there; NULL: none did."


def upgrade() -> None:
    now = sa.text("clock_timestamp()")
    created = sa.Column("created_at", _MOMENT, nullable=False, server_default=now, comment="When the record was made.")
    op.add_column(_LOCATION, created)
    for name, comment in (("marked_at", _MARKED), ("trouble_since", _WELL)):
        op.add_column(_LOCATION, sa.Column(name, _MOMENT, nullable=True, comment=comment))
    number = sa.Column(
        "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
    )
    op.create_table(
        _READER,
        number,
        sa.Column("data_location_id", sa.BigInteger(), nullable=False, comment="The archive."),
        sa.Column("worker", sa.Text(), nullable=False, comment="Name of the transfer-worker."),
        sa.Column("looked_at", _MOMENT, nullable=False, comment="When it last read there, or could not."),
        sa.Column("unreadable", sa.Text(), nullable=True, comment="Why it could read nothing there; NULL: it could."),
        sa.Column("unreadable_since", _MOMENT, nullable=True, comment="Since when."),
        sa.CheckConstraint(
            "(unreadable IS NULL) = (unreadable_since IS NULL)", name=op.f(f"ck_{_READER}_unreadable_has_a_moment")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{_READER}")),
        sa.UniqueConstraint("data_location_id", "worker", name=op.f(f"uq_{_READER}_data_location_id_worker")),
        sa.ForeignKeyConstraint(
            ["data_location_id"], ["data_location.id"], name=op.f(f"fk_{_READER}_data_location_id")
        ),
        comment="Whether transfer-workers can read at an archive, as each of them saw last.",
    )


def downgrade() -> None:
    op.drop_table(_READER)
    for name in ("trouble_since", "marked_at", "created_at"):
        op.drop_column(_LOCATION, name)
