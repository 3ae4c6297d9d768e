"""A step says how long it waits for its inputs, and what it goes without."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_STEP = "reduction_step_revision"
_NOTE_SCANS = """
-- Only what is in the archive is in a sub-group that could wait. Its packages are noted and not the scan itself, which
-- says something about other packages too.
CREATE OR REPLACE FUNCTION note_scan(scan uuid) RETURNS void LANGUAGE sql AS $$
    SELECT note_change(NULL, 'raw_data_package', p.id::text)
    FROM raw_data_package p
    WHERE p.executed_obs_unit_id = scan AND p.state = 'archived'
      AND EXISTS (SELECT FROM reduction_step_revision WHERE wait_for = 'scan_complete')
$$;

CREATE OR REPLACE FUNCTION note_scan_of_package() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_scan(coalesce(OLD.executed_obs_unit_id, NEW.executed_obs_unit_id));
    IF OLD.executed_obs_unit_id <> NEW.executed_obs_unit_id THEN
        PERFORM note_scan(NEW.executed_obs_unit_id);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION note_scans_of_files() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_scan(scan) FROM (SELECT DISTINCT executed_obs_unit_id AS scan FROM changed) AS changed_scan;
    RETURN NULL;
END $$;

CREATE TRIGGER note_scan_of_package_insert AFTER INSERT ON raw_data_package
FOR EACH ROW EXECUTE FUNCTION note_scan_of_package();
CREATE TRIGGER note_scan_of_package_update AFTER UPDATE ON raw_data_package
FOR EACH ROW WHEN (
    (OLD.state, OLD.excluded_at, OLD.withdrawn_at, OLD.executed_obs_unit_id)
    IS DISTINCT FROM (NEW.state, NEW.excluded_at, NEW.withdrawn_at, NEW.executed_obs_unit_id)
) EXECUTE FUNCTION note_scan_of_package();
CREATE TRIGGER note_scan_of_package_delete AFTER DELETE ON raw_data_package
FOR EACH ROW EXECUTE FUNCTION note_scan_of_package();

CREATE TRIGGER note_scans_of_files_insert AFTER INSERT ON raw_data_file
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_scans_of_files();
CREATE TRIGGER note_scans_of_files_update AFTER UPDATE ON raw_data_file
REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_scans_of_files();
CREATE TRIGGER note_scans_of_files_delete AFTER DELETE ON raw_data_file
REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_scans_of_files();
"""
_NOTE_ACCEPTED = """
CREATE OR REPLACE FUNCTION note_accepted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM note_change(s.pipeline_id, 'reduction_step', s.id::text, coalesce(NEW.sub_group_key, OLD.sub_group_key))
    FROM reduction_step s WHERE s.id = coalesce(NEW.reduction_step_id, OLD.reduction_step_id);
    RETURN NULL;
END $$;

CREATE TRIGGER note_accepted_coverage AFTER INSERT OR DELETE ON accepted_coverage
FOR EACH ROW EXECUTE FUNCTION note_accepted();
"""
_FORGET_SCANS = """
DROP TRIGGER note_scan_of_package_insert ON raw_data_package;
DROP TRIGGER note_scan_of_package_update ON raw_data_package;
DROP TRIGGER note_scan_of_package_delete ON raw_data_package;
DROP TRIGGER note_scans_of_files_insert ON raw_data_file;
DROP TRIGGER note_scans_of_files_update ON raw_data_file;
DROP TRIGGER note_scans_of_files_delete ON raw_data_file;
DROP FUNCTION note_scan_of_package();
DROP FUNCTION note_scans_of_files();
DROP FUNCTION note_scan(uuid);
"""


def _choice(name: str, *values: str) -> sa.Enum:
    return sa.Enum(*values, name=name, native_enum=False, create_constraint=True, length=32)


def _add_options_of_steps() -> None:
    op.add_column(
        _STEP,
        sa.Column(
            "on_failed_input",
            _choice("onfailedinput", "block", "omit"),
            server_default="block",
            nullable=False,
            comment="Whether packages that were given up upstream are waited for.",
        ),
    )
    op.add_column(
        _STEP,
        sa.Column(
            "readiness",
            _choice("inputreadiness", "complete", "available"),
            server_default="complete",
            nullable=False,
            comment="How much of what was there at its cut-off a run waits for.",
        ),
    )
    op.add_column(
        _STEP,
        sa.Column(
            "min_fraction",
            sa.Double(),
            nullable=True,
            comment="Fraction of the packages that must be ready, of readiness `available`; 0 is any one of them.",
        ),
    )
    op.add_column(
        _STEP,
        sa.Column(
            "wait_for",
            _choice("waitfor", "scan_complete"),
            nullable=True,
            comment="What else it waits for, if anything.",
        ),
    )
    op.create_check_constraint(
        op.f("ck_reduction_step_revision_available_has_a_fraction"),
        _STEP,
        "(readiness = 'available') = (min_fraction IS NOT NULL)",
    )
    op.create_check_constraint(
        op.f("ck_reduction_step_revision_min_fraction_is_a_fraction"),
        _STEP,
        "min_fraction >= 0 AND min_fraction <= 1",
    )


def _note_what_is_left_out() -> None:
    op.add_column(
        "sub_group_package",
        sa.Column(
            "is_given_up",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether it does not become ready by itself: a run of it was given up.",
        ),
    )
    op.add_column(
        "sub_group_package",
        sa.Column(
            "left_out",
            _choice("leftout", "omitted", "awaited"),
            nullable=True,
            comment="Why a run of now goes without it, as it is not ready upstream; NULL: it does not.",
        ),
    )
    op.create_index(
        "ix_sub_group_package_left_out",
        "sub_group_package",
        ["reduction_step_id"],
        unique=False,
        postgresql_where=sa.text("left_out IS NOT NULL"),
    )


def _record_what_people_accept() -> None:
    op.create_table(
        "accepted_coverage",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column("reduction_step_id", sa.BigInteger(), nullable=False, comment="Step that goes without them."),
        sa.Column("sub_group_key", sa.Text(), nullable=False, comment="Its sub-group."),
        sa.Column("because", sa.Text(), nullable=False, comment="Why it was accepted."),
        sa.Column("by", sa.Text(), nullable=False, comment="Who accepted it."),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the record was made.",
        ),
        sa.ForeignKeyConstraint(
            ["reduction_step_id"], ["reduction_step.id"], name=op.f("fk_accepted_coverage_reduction_step_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accepted_coverage")),
    )
    op.create_index(
        "ix_accepted_coverage_place", "accepted_coverage", ["reduction_step_id", "sub_group_key"], unique=False
    )
    op.create_table(
        "accepted_package",
        sa.Column("accepted_coverage_id", sa.BigInteger(), nullable=False, comment="What was accepted."),
        sa.Column("raw_data_package_id", sa.BigInteger(), nullable=False, comment="The raw package."),
        sa.ForeignKeyConstraint(
            ["accepted_coverage_id"], ["accepted_coverage.id"], name=op.f("fk_accepted_package_accepted_coverage_id")
        ),
        sa.ForeignKeyConstraint(
            ["raw_data_package_id"], ["raw_data_package.id"], name=op.f("fk_accepted_package_raw_data_package_id")
        ),
        sa.PrimaryKeyConstraint("accepted_coverage_id", "raw_data_package_id", name=op.f("pk_accepted_package")),
    )


def upgrade() -> None:
    _add_options_of_steps()
    _note_what_is_left_out()
    op.execute(_NOTE_SCANS)
    _record_what_people_accept()
    op.execute(_NOTE_ACCEPTED)


def downgrade() -> None:
    op.drop_table("accepted_package")
    op.drop_table("accepted_coverage")
    op.execute("DROP FUNCTION note_accepted()")
    op.execute(_FORGET_SCANS)
    op.drop_column("sub_group_package", "left_out")
    op.drop_column("sub_group_package", "is_given_up")
    for column in ("wait_for", "min_fraction", "readiness", "on_failed_input"):
        op.drop_column(_STEP, column)
