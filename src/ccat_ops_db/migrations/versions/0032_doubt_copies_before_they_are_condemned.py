"""What could not be read is read again after a pause, and what arrived damaged is read where it lies."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

_COPY, _LOCATION = "physical_copy", "data_location"
_NUMBER, _MOMENT, _TEXT = sa.BigInteger(), sa.TIMESTAMP(timezone=True), sa.Text()
_COMMENTS = (
    (
        _COPY,
        "trouble_count",
        _NUMBER,
        "Tries to delete it in a row that failed; decides the pause.",
        "Tries in a row to delete it, or to read it again, that failed; decides the pause.",
    ),
    (
        _COPY,
        "not_before",
        _MOMENT,
        "Earliest moment of the next try to delete it.",
        "Earliest moment of the next try to do so.",
    ),
    (
        _COPY,
        "failure",
        _TEXT,
        "Why it could not be deleted, and what to do.",
        "Why that was not done, or why it is read again; what to do.",
    ),
    (
        _LOCATION,
        "scrub_days",
        _NUMBER,
        "Days after which an archive copy there is read again; 0: never, NULL: as usual.",
        "Days after which an archive copy there is read again; 0: never unless in doubt, NULL: as usual.",
    ),
    (
        _LOCATION,
        "archive_look_at",
        _MOMENT,
        "When it is looked at again what of an archive is to be read; NULL: now.",
        "When it is looked at again which of its copies are to be read; NULL: now.",
    ),
)


def upgrade() -> None:
    for table, column, kind, before, after in _COMMENTS:
        op.alter_column(table, column, existing_type=kind, comment=after, existing_comment=before)
    op.create_index(
        "ix_physical_copy_unreadable",
        _COPY,
        ["data_location_id"],
        postgresql_where=sa.text("status = 'present' AND trouble_count >= 3"),
    )


def downgrade() -> None:
    op.drop_index("ix_physical_copy_unreadable", _COPY)
    for table, column, kind, before, after in _COMMENTS:
        op.alter_column(table, column, existing_type=kind, comment=before, existing_comment=after)
