"""That a location is lost is remembered; what it had counts for nothing, also for what keeps the last copies."""

import sqlalchemy as sa
from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None

_LOCATION = "data_location"
_CHECKS = {
    "what_is_lost_takes_nothing": "lost_at IS NULL OR NOT active",
    "loss_is_told_as_a_whole": "(lost_at IS NULL) = (lost_because IS NULL)",
}
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
      AND a.verified_at IS NOT NULL AND a.checksum = p.checksum AND l.location_type = 'long_term_archive'
      AND IS_THERE;
    IF remaining < needed THEN
        RAISE EXCEPTION 'Copy % is kept: package % would have % verified archive copies then, and needs %.',
            OLD.id, of_package, remaining, needed
            USING ERRCODE = 'check_violation', CONSTRAINT = 'last_copies_are_kept', TABLE = 'physical_copy',
            HINT = '`ccat retention plan` shows what may go and what is kept.';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION keep_last_products() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_archived boolean := (
        SELECT l.location_type = 'long_term_archive' FROM data_location l WHERE l.id = OLD.data_location_id);
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'Copies are deleted in transactions that are READ COMMITTED: nobody else would be seen here.'
            USING ERRCODE = 'feature_not_supported';
    END IF;
    PERFORM FROM data_product d WHERE d.id = NEW.data_product_id FOR NO KEY UPDATE;
    IF EXISTS (
        SELECT FROM data_product d
        JOIN executed_reduction_step r ON r.id = d.run_id
        JOIN reduction_step_revision s ON s.id = r.step_revision_id
        WHERE d.id = NEW.data_product_id AND d.state = 'current' AND s.archive
    ) AND NOT EXISTS (
        SELECT FROM physical_copy a
        JOIN data_location l ON l.id = a.data_location_id
        WHERE a.data_product_id = NEW.data_product_id AND a.id <> OLD.id AND a.status = 'present'
          AND a.verified_at IS NOT NULL AND (l.location_type = 'long_term_archive' OR NOT is_archived)
          AND IS_THERE
    ) THEN
        RAISE EXCEPTION 'Copy % is kept: product % would have no verified copy% then.',
            OLD.id, NEW.data_product_id, CASE WHEN is_archived THEN ' in an archive' ELSE '' END
            USING ERRCODE = 'check_violation', CONSTRAINT = 'last_products_are_kept', TABLE = 'physical_copy',
            HINT = '`ccat retention plan` shows what may go and what is kept.';
    END IF;
    RETURN NEW;
END $$;
"""
"""As before, but for the condition on the location of what counts."""
# Nobody kept which those were that have nothing any more and take nothing.
_REMEMBER = """
UPDATE data_location l SET lost_at = now(), lost_because = 'said to be lost before that was remembered'
WHERE NOT l.active AND l.location_type IN ('buffer', 'long_term_archive')
  AND EXISTS (SELECT FROM physical_copy c WHERE c.data_location_id = l.id AND c.status = 'missing')
  AND NOT EXISTS (
    SELECT FROM physical_copy c
    WHERE c.data_location_id = l.id AND c.status NOT IN ('missing', 'corrupt', 'writing', 'deleted'))
"""


def upgrade() -> None:
    when = "When a person said that it is lost with all that it had; NULL: it is not, or is used anew."
    moment = sa.TIMESTAMP(timezone=True)
    op.add_column(_LOCATION, sa.Column("lost_at", moment, nullable=True, comment=when))
    op.add_column(
        _LOCATION, sa.Column("lost_because", sa.Text(), nullable=True, comment="What happened, and who said so.")
    )
    for name, rule in _CHECKS.items():
        op.create_check_constraint(op.f(f"ck_{_LOCATION}_{name}"), _LOCATION, rule)
    op.execute(_REMEMBER)
    op.execute(_KEEP.replace("IS_THERE", "l.lost_at IS NULL"))


def downgrade() -> None:
    op.execute(_KEEP.replace("IS_THERE", "true"))
    for name in reversed(_CHECKS):
        op.drop_constraint(op.f(f"ck_{_LOCATION}_{name}"), _LOCATION)
    for column in ("lost_because", "lost_at"):
        op.drop_column(_LOCATION, column)
