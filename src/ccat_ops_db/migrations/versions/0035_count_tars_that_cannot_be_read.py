"""Tars that cannot be read where they are count as those that arrive damaged: after some tries they are made anew."""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

_OLD = "Times in a row that its tar, as it is where it comes from, arrived damaged."
_NEW = "Times in a row that its tar, as it is where it comes from, arrived damaged or could not be read."


def upgrade() -> None:
    op.alter_column("long_term_archive_transfer", "bad_arrivals", comment=_NEW, existing_comment=_OLD)


def downgrade() -> None:
    op.alter_column("long_term_archive_transfer", "bad_arrivals", comment=_OLD, existing_comment=_NEW)
