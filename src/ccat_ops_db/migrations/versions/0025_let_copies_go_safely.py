"""What may go is known of each location, and the last verified archive copy of raw data is kept by the database itself."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

_LOCATION, _COPY, _STEP = "data_location", "physical_copy", "reduction_step_revision"
_DAYS_BEFORE = "Days that products are kept; NULL is for ever."
_DAYS_AFTER = "Days that products are kept; NULL: 30, those of a final step for ever."
_MOMENT = sa.TIMESTAMP(timezone=True)
_OF_LOCATION: dict[str, tuple[sa.types.TypeEngine[Any], str]] = {
    "retention_days": (
        sa.BigInteger(),
        "Days that copies are kept there after they were needed last; NULL: as usual for its type.",
    ),
    "high_watermark": (
        sa.Double(),
        "Fraction of the disk above which copies go before their time; NULL: as usual for its type.",
    ),
    "low_watermark": (sa.Double(), "Fraction of the disk down to which they go then."),
    "retention_paused": (sa.Text(), "Why nothing goes there; NULL: what may go does."),
    "retention_look_at": (_MOMENT, "When it is looked at again what may go there; NULL: now."),
    "deleted_at": (_MOMENT, "When a copy there was deleted last."),
}
_OF_COPY: dict[str, tuple[sa.types.TypeEngine[Any], str]] = {
    "claimed_by": (sa.Text(), "Process that works on it, while lease_until is ahead."),
    "lease_until": (_MOMENT, "End of the claim; anybody may claim it after."),
    "used_at": (_MOMENT, "When a run last began to use it, to the hour."),
    "not_before": (_MOMENT, "Earliest moment of the next try to delete it."),
    "failure": (sa.Text(), "Why it could not be deleted, and what to do."),
}
_COUNT = "trouble_count"
_COUNTED = "Tries to delete it in a row that failed; decides the pause."
_CHECKS = {
    "retention_days_is_not_negative": "retention_days >= 0",
    "marks_are_fractions": "low_watermark > 0 AND high_watermark <= 1 AND low_watermark <= high_watermark",
    "marks_go_together": "(low_watermark IS NULL) = (high_watermark IS NULL)",
}
_GOING = "status IN ('deletion_possible', 'deletion_scheduled', 'deletion_in_progress', 'deletion_failed')"
_INDEXES = {
    "there": (["data_location_id"], "status <> 'deleted'"),
    "going": (["data_location_id", "status"], _GOING),
    "leased": (["lease_until"], "lease_until IS NOT NULL"),
    "source_path": (["data_location_id", "path"], "raw_data_file_id IS NOT NULL AND status <> 'deleted'"),
}
# What is WRITING was never there, what is CORRUPT or MISSING is no copy any more: of these only the row goes. What is
# DELETION_IN_PROGRESS was let go before. Whoever lets one go holds the package, so that of two that would each leave the
# other's copy only the first is let.
_KEEP = """
CREATE OR REPLACE FUNCTION keep_last_copies() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    of_package bigint := coalesce(
        NEW.raw_data_package_id, (SELECT f.raw_data_package_id FROM raw_data_file f WHERE f.id = NEW.raw_data_file_id));
    needed bigint := 1;
    remaining bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'Copies are deleted in transactions that are READ COMMITTED: nobody else would be seen here.'
            USING ERRCODE = 'feature_not_supported';
    END IF;
    IF of_package IS NULL THEN
        RAISE EXCEPTION 'Copy % is kept: its raw file is in no package yet, and so in no archive.', OLD.id
            USING ERRCODE = 'check_violation', CONSTRAINT = 'last_copies_are_kept', TABLE = 'physical_copy';
    END IF;
    PERFORM FROM raw_data_package p WHERE p.id = of_package FOR NO KEY UPDATE;
    IF NEW.raw_data_file_id IS NOT NULL THEN
        needed := coalesce((
            SELECT k.min_verified_archive_copies
            FROM raw_data_package p
            JOIN instrument_module m ON m.id = p.instrument_module_id
            JOIN instrument i ON i.id = m.instrument_id
            JOIN data_class k ON k.id = coalesce(i.data_class_id, (SELECT u.id FROM data_class u WHERE u.name = 'raw'))
            WHERE p.id = of_package), 1);
    END IF;
    SELECT count(*) INTO remaining
    FROM physical_copy a
    JOIN data_location l ON l.id = a.data_location_id
    JOIN raw_data_package p ON p.id = a.raw_data_package_id
    WHERE a.raw_data_package_id = of_package AND a.id <> OLD.id AND a.status = 'present'
      AND a.verified_at IS NOT NULL AND a.checksum = p.checksum AND l.location_type = 'long_term_archive';
    IF remaining < needed THEN
        RAISE EXCEPTION 'Copy % is kept: package % would have % verified archive copies then, and needs %.',
            OLD.id, of_package, remaining, needed
            USING ERRCODE = 'check_violation', CONSTRAINT = 'last_copies_are_kept', TABLE = 'physical_copy',
            HINT = '`ccat retention plan` shows what may go and what is kept.';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER keep_last_copies BEFORE UPDATE OF status ON physical_copy FOR EACH ROW WHEN (
    (NEW.raw_data_file_id IS NOT NULL OR NEW.raw_data_package_id IS NOT NULL) AND (
        NEW.status = 'deletion_in_progress' AND OLD.status <> 'deletion_in_progress'
        OR NEW.status = 'deleted' AND OLD.status NOT IN ('writing', 'corrupt', 'missing', 'deletion_in_progress', 'deleted')))
EXECUTE FUNCTION keep_last_copies();
"""


def upgrade() -> None:
    op.create_table(
        "data_class",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="Name, such as raw or calibration."),
        sa.Column(
            "min_verified_archive_copies",
            sa.BigInteger(),
            server_default="1",
            nullable=False,
            comment="Verified archive copies that a package needs before copies elsewhere may go.",
        ),
        sa.CheckConstraint(
            "min_verified_archive_copies > 0", name=op.f("ck_data_class_min_verified_archive_copies_is_positive")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_class")),
        sa.UniqueConstraint("name", name=op.f("uq_data_class_name")),
    )
    op.execute("INSERT INTO data_class (name) VALUES ('raw')")
    op.add_column(
        "instrument",
        sa.Column("data_class_id", sa.BigInteger(), comment="Class of its raw data; NULL: `raw`."),
    )
    op.create_foreign_key(op.f("fk_instrument_data_class_id"), "instrument", "data_class", ["data_class_id"], ["id"])
    for name, (kind, comment) in _OF_LOCATION.items():
        op.add_column(_LOCATION, sa.Column(name, kind, comment=comment))
    for name, condition in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_{_LOCATION}_{name}"), _LOCATION, condition)
    for name, (kind, comment) in _OF_COPY.items():
        op.add_column(_COPY, sa.Column(name, kind, comment=comment))
    op.add_column(_COPY, sa.Column(_COUNT, sa.BigInteger(), server_default="0", nullable=False, comment=_COUNTED))
    for name, (columns, where) in _INDEXES.items():
        op.create_index(f"ix_{_COPY}_{name}", _COPY, columns, postgresql_where=sa.text(where))
    op.alter_column(_STEP, "retention_days", comment=_DAYS_AFTER, existing_comment=_DAYS_BEFORE)
    op.execute(_KEEP)


def downgrade() -> None:
    op.execute("DROP TRIGGER keep_last_copies ON physical_copy")
    op.execute("DROP FUNCTION keep_last_copies()")
    op.alter_column(_STEP, "retention_days", comment=_DAYS_BEFORE, existing_comment=_DAYS_AFTER)
    for name in _INDEXES:
        op.drop_index(f"ix_{_COPY}_{name}", _COPY)
    for name in (_COUNT, *_OF_COPY):
        op.drop_column(_COPY, name)
    for name in _CHECKS:
        op.drop_constraint(op.f(f"ck_{_LOCATION}_{name}"), _LOCATION, type_="check")
    for name in _OF_LOCATION:
        op.drop_column(_LOCATION, name)
    op.drop_constraint(op.f("fk_instrument_data_class_id"), "instrument", type_="foreignkey")
    op.drop_column("instrument", "data_class_id")
    op.drop_table("data_class")
