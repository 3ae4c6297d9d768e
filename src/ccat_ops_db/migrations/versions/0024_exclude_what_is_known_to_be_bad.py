"""What people know to be bad is kept as rows; triggers write down on packages, also on later ones, what these say."""

import sqlalchemy as sa
from alembic import op

from ccat_ops_db.migrating import StillExcluded

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_TIME = """(CASE WHEN {0}ended_at > {0}started_at THEN tstzrange({0}started_at, {0}ended_at)
    ELSE tstzrange({0}started_at, {0}started_at, '[]') END)"""
_NEW_SCANS = 0x6578636C  # "excl"
"""Key of the lock that keeps packages and scans from coming, or from being corrected, while a time is excluded."""
_FUNCTIONS = f"""
-- Packages that an exclusion with these columns is of, whether it holds or not.
CREATE OR REPLACE FUNCTION packages_excluded(
    package bigint, instrument bigint, module bigint, begins_at timestamptz, ends_at timestamptz
) RETURNS SETOF bigint LANGUAGE sql STABLE AS $$
    SELECT package WHERE package IS NOT NULL
    UNION ALL
    SELECT p.id
    FROM executed_obs_unit s
    JOIN raw_data_package p ON p.executed_obs_unit_id = s.id
    JOIN instrument_module m ON m.id = p.instrument_module_id
    WHERE package IS NULL AND tstzrange($4, $5) && {_TIME.format("s.")} AND (m.id = module OR m.instrument_id = instrument)
$$;

-- What the exclusions that hold say of packages: of the whole the first word that was given, of pixels all of them.
CREATE OR REPLACE FUNCTION exclusions_of(packages bigint[])
RETURNS TABLE (id bigint, excluded_at timestamptz, excluded_because text, excluded_pixels text[])
LANGUAGE sql STABLE AS $$
    SELECT p.id, (array_agg(e.created_at ORDER BY e.id) FILTER (WHERE e.is_whole))[1],
        (array_agg(format('%s (%s; exclusion %s)', e.because, e.by, e.id) ORDER BY e.id) FILTER (WHERE e.is_whole))[1],
        array_agg(DISTINCT pixel.name COLLATE "C" ORDER BY pixel.name COLLATE "C") FILTER (WHERE pixel.name <> '')
    FROM unnest(packages) named (id)
    JOIN raw_data_package p ON p.id = named.id
    JOIN executed_obs_unit s ON s.id = p.executed_obs_unit_id
    JOIN instrument_module m ON m.id = p.instrument_module_id
    LEFT JOIN LATERAL (
        SELECT x.*, x.pixels IS NULL AS is_whole FROM exclusion x
        WHERE x.lifted_at IS NULL AND x.raw_data_package_id = p.id
        UNION ALL
        SELECT x.*, x.pixels IS NULL FROM exclusion x
        WHERE x.lifted_at IS NULL AND x.raw_data_package_id IS NULL
          AND tstzrange(x.begins_at, x.ends_at) && {_TIME.format("s.")}
          AND (x.instrument_module_id = m.id OR x.instrument_id = m.instrument_id)
    ) e ON true
    LEFT JOIN LATERAL unnest(e.pixels) pixel (name) ON true
    GROUP BY p.id
$$;

CREATE OR REPLACE FUNCTION settle_packages(packages bigint[]) RETURNS void LANGUAGE sql AS $$
    UPDATE raw_data_package p
    SET excluded_at = said.excluded_at, excluded_because = said.excluded_because,
        excluded_pixels = said.excluded_pixels
    FROM exclusions_of(packages) said
    WHERE p.id = said.id AND (p.excluded_at, p.excluded_because, p.excluded_pixels)
        IS DISTINCT FROM (said.excluded_at, said.excluded_because, said.excluded_pixels)
$$;

-- Packages that others see are locked before it is worked out what is written there, also those that stay as they are:
-- who locks one later sees what the other committed.
CREATE OR REPLACE FUNCTION settle_known_packages(packages bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM raw_data_package p WHERE p.id = ANY(packages) ORDER BY p.id FOR NO KEY UPDATE;
    PERFORM settle_packages(packages);
END $$;

-- Nobody else sees these. Their scans are kept from being corrected until whoever does sees them.
CREATE OR REPLACE FUNCTION settle_own_packages(packages bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({_NEW_SCANS});
    PERFORM FROM executed_obs_unit s
    WHERE s.id IN (SELECT p.executed_obs_unit_id FROM raw_data_package p WHERE p.id = ANY(packages))
    ORDER BY s.id FOR SHARE;
    PERFORM settle_packages(packages);
END $$;

CREATE OR REPLACE FUNCTION settle_exclusion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(NEW.raw_data_package_id, OLD.raw_data_package_id) IS NULL THEN
        PERFORM pg_advisory_xact_lock({_NEW_SCANS});
    END IF;
    PERFORM settle_known_packages(ARRAY(
        SELECT packages_excluded(
            OLD.raw_data_package_id, OLD.instrument_id, OLD.instrument_module_id, OLD.begins_at, OLD.ends_at)
        UNION
        SELECT packages_excluded(
            NEW.raw_data_package_id, NEW.instrument_id, NEW.instrument_module_id, NEW.begins_at, NEW.ends_at)));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION settle_new_packages() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM settle_own_packages(ARRAY(SELECT id FROM added));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION settle_package() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM settle_own_packages(ARRAY[NEW.id]);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION settle_scan() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared({_NEW_SCANS});
    PERFORM settle_known_packages(ARRAY(SELECT p.id FROM raw_data_package p WHERE p.executed_obs_unit_id = NEW.id));
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION settle_module() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock({_NEW_SCANS});
    PERFORM settle_known_packages(ARRAY(SELECT p.id FROM raw_data_package p WHERE p.instrument_module_id = NEW.id));
    RETURN NULL;
END $$;
"""  # noqa: S608 - our own text
_TRIGGERS = """
CREATE TRIGGER settle_exclusion AFTER INSERT OR UPDATE OR DELETE ON exclusion
FOR EACH ROW EXECUTE FUNCTION settle_exclusion();
CREATE TRIGGER settle_package_insert AFTER INSERT ON raw_data_package
REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION settle_new_packages();
CREATE TRIGGER settle_package_update AFTER UPDATE OF executed_obs_unit_id, instrument_module_id ON raw_data_package
FOR EACH ROW WHEN (
    (OLD.executed_obs_unit_id, OLD.instrument_module_id)
    IS DISTINCT FROM (NEW.executed_obs_unit_id, NEW.instrument_module_id)
) EXECUTE FUNCTION settle_package();
CREATE TRIGGER settle_scan AFTER UPDATE OF started_at, ended_at ON executed_obs_unit
FOR EACH ROW WHEN ((OLD.started_at, OLD.ended_at) IS DISTINCT FROM (NEW.started_at, NEW.ended_at))
EXECUTE FUNCTION settle_scan();
CREATE TRIGGER settle_module AFTER UPDATE OF instrument_id ON instrument_module
FOR EACH ROW WHEN (OLD.instrument_id <> NEW.instrument_id) EXECUTE FUNCTION settle_module();
"""
_TAKEN_OUT_BEFORE = """
INSERT INTO exclusion (raw_data_package_id, what, because, by, created_at)
SELECT p.id, 'raw package ' || p.name, coalesce(said.word[1], nullif(p.excluded_because, ''), 'no reason was given'),
    coalesce(said.word[2], 'somebody'), p.excluded_at
FROM raw_data_package p
LEFT JOIN LATERAL regexp_match(p.excluded_because, '^(.+) \\(([^()]+)\\)$') said (word) ON true
WHERE p.excluded_at IS NOT NULL
ORDER BY p.excluded_at, p.id
"""
_FORGET = """
DROP TRIGGER settle_package_insert ON raw_data_package;
DROP TRIGGER settle_package_update ON raw_data_package;
DROP TRIGGER settle_scan ON executed_obs_unit;
DROP TRIGGER settle_module ON instrument_module;
DROP TABLE exclusion;
DROP FUNCTION packages_excluded(bigint, bigint, bigint, timestamptz, timestamptz);
DROP FUNCTION settle_exclusion();
DROP FUNCTION settle_new_packages();
DROP FUNCTION settle_package();
DROP FUNCTION settle_scan();
DROP FUNCTION settle_module();
DROP FUNCTION settle_known_packages(bigint[]);
DROP FUNCTION settle_own_packages(bigint[]);
DROP FUNCTION settle_packages(bigint[]);
DROP FUNCTION exclusions_of(bigint[]);
"""
_NOTES = {
    "excluded_at": (
        "When a person took it out of all groupings.",
        "When a person took it out of all groupings: what the first exclusion that holds says.",
    ),
    "excluded_because": ("Why it was taken out.", "Why it was taken out, by whom, by which exclusion."),
}
_PIXELS = {
    "raw_data_package": "Its pixels that are left out, all exclusions together; NULL: none.",
    "sub_group_package": "Pixels of it that a run of now leaves out; NULL: none.",
    "run_input": "Pixels of the raw package that the run leaves out; NULL: none.",
}
_HOLD = sa.text("""
    SELECT format('exclusion %s of %s', id, what) FROM exclusion
    WHERE lifted_at IS NULL AND (raw_data_package_id IS NULL OR pixels IS NOT NULL) ORDER BY id LIMIT 10
""")
"""Words of people that the columns of a package have no room for."""


def _make_the_table() -> None:
    op.create_table(
        "exclusion",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=False), nullable=False, comment="Number made by the database."
        ),
        sa.Column(
            "raw_data_package_id", sa.BigInteger(), nullable=True, comment="The raw package, of an exclusion of one."
        ),
        sa.Column(
            "instrument_id",
            sa.BigInteger(),
            nullable=True,
            comment="The instrument, of an exclusion of all its modules.",
        ),
        sa.Column(
            "instrument_module_id", sa.BigInteger(), nullable=True, comment="The module, of an exclusion of one."
        ),
        sa.Column("what", sa.Text(), nullable=False, comment="The object, as people call it."),
        sa.Column(
            "begins_at",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="From when on scans are bad; NULL: ever before.",
        ),
        sa.Column(
            "ends_at",
            sa.TIMESTAMP(timezone=True),
            nullable=True,
            comment="From when on they are good again; NULL: ever after.",
        ),
        sa.Column(
            "pixels",
            sa.ARRAY(sa.Text()),
            nullable=True,
            comment="Pixels that are bad, as the instrument calls them; NULL: all.",
        ),
        sa.Column("because", sa.Text(), nullable=False, comment="Why it is bad."),
        sa.Column("by", sa.Text(), nullable=False, comment="Who said so."),
        sa.Column(
            "created_at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
            comment="When the record was made.",
        ),
        sa.Column(
            "lifted_at", sa.TIMESTAMP(timezone=True), nullable=True, comment="When that was taken back; NULL: it holds."
        ),
        sa.Column("lifted_by", sa.Text(), nullable=True, comment="Who took it back."),
        sa.Column("lifted_because", sa.Text(), nullable=True, comment="Why it was taken back."),
        sa.CheckConstraint("because <> ''", name=op.f("ck_exclusion_has_a_reason")),
        sa.CheckConstraint("begins_at < ends_at", name=op.f("ck_exclusion_ends_after_it_begins")),
        sa.CheckConstraint("cardinality(pixels) > 0", name=op.f("ck_exclusion_pixels_are_named")),
        sa.CheckConstraint(
            "num_nonnulls(lifted_at, lifted_by, lifted_because) IN (0, 3)",
            name=op.f("ck_exclusion_lifted_by_somebody_who_says_why"),
        ),
        sa.CheckConstraint(
            "(raw_data_package_id IS NULL) = (num_nonnulls(begins_at, ends_at) > 0)",
            name=op.f("ck_exclusion_is_of_a_package_or_a_time"),
        ),
        sa.CheckConstraint(
            "num_nonnulls(raw_data_package_id, instrument_id, instrument_module_id) = 1",
            name=op.f("ck_exclusion_is_of_exactly_one_object"),
        ),
        sa.ForeignKeyConstraint(["instrument_id"], ["instrument.id"], name=op.f("fk_exclusion_instrument_id")),
        sa.ForeignKeyConstraint(
            ["instrument_module_id"], ["instrument_module.id"], name=op.f("fk_exclusion_instrument_module_id")
        ),
        sa.ForeignKeyConstraint(
            ["raw_data_package_id"], ["raw_data_package.id"], name=op.f("fk_exclusion_raw_data_package_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_exclusion")),
    )
    package = "raw_data_package_id IS NOT NULL"
    op.create_index(
        "uq_exclusion_live_raw_data_package",
        "exclusion",
        ["raw_data_package_id"],
        unique=True,
        postgresql_where=sa.text(f"{package} AND pixels IS NULL AND lifted_at IS NULL"),
    )
    op.create_index(
        "ix_exclusion_live_raw_data_package",
        "exclusion",
        ["raw_data_package_id"],
        postgresql_where=sa.text(f"{package} AND lifted_at IS NULL"),
    )
    op.create_index(
        "ix_exclusion_live_time",
        "exclusion",
        [sa.text("tstzrange(begins_at, ends_at)")],
        postgresql_using="gist",
        postgresql_where=sa.text("raw_data_package_id IS NULL AND lifted_at IS NULL"),
    )


def upgrade() -> None:
    _make_the_table()
    op.create_index(
        "ix_executed_obs_unit_time", "executed_obs_unit", [sa.text(_TIME.format(""))], postgresql_using="gist"
    )
    for table, comment in _PIXELS.items():
        op.add_column(table, sa.Column("excluded_pixels", sa.ARRAY(sa.Text()), nullable=True, comment=comment))
    for column, (before, after) in _NOTES.items():
        op.alter_column("raw_data_package", column, comment=after, existing_comment=before)
    op.create_check_constraint(
        op.f("ck_raw_data_package_excluded_pixels_are_named"), "raw_data_package", "cardinality(excluded_pixels) > 0"
    )
    op.execute(_FUNCTIONS)
    op.execute(_TAKEN_OUT_BEFORE)
    op.execute("SELECT settle_packages(ARRAY(SELECT raw_data_package_id FROM exclusion))")
    op.execute(_TRIGGERS)


def downgrade() -> None:
    if excluded := op.get_bind().scalars(_HOLD).all():
        raise StillExcluded(excluded, revision)
    op.execute(_FORGET)
    op.drop_constraint(op.f("ck_raw_data_package_excluded_pixels_are_named"), "raw_data_package", type_="check")
    for column, (before, after) in _NOTES.items():
        op.alter_column("raw_data_package", column, comment=before, existing_comment=after)
    for table in _PIXELS:
        op.drop_column(table, "excluded_pixels")
    op.drop_index("ix_executed_obs_unit_time", table_name="executed_obs_unit")
