"""Raw packages by the million, as years of observing leave them: made by the database, and always alike."""

from math import ceil
from typing import Final

import sqlalchemy as sa

PACKAGES_OF_A_SOURCE: Final = 10
_PACKAGES_OF_A_SCAN: Final = 4
_SCANS_OF_A_NIGHT: Final = 250

_STATEMENTS: Final = (
    "SELECT setseed(0.18)",
    "INSERT INTO observing_program (short_name, name) SELECT 'P' || n, 'Program ' || n FROM generate_series(0, 19) n",
    """
    INSERT INTO source (type, name) SELECT 'fixed_source', 'S' || n FROM generate_series(1, :sources) n
    """,
    """
    INSERT INTO fixed_source (id, ra_deg, dec_deg)  -- evenly over the sphere
    SELECT id, 360 * random(), degrees(asin(2 * random() - 1)) FROM source WHERE type = 'fixed_source'
    """,
    """
    INSERT INTO obs_unit (name, observing_program_id, source_id, obs_mode_id, line_id)
    SELECT source.name || ' map', program.id, source.id, mode.id, (ARRAY['CO43', 'CO76', 'CI'])[1 + source.id % 4]
    FROM source
    JOIN observing_program program ON program.short_name = 'P' || source.id % 20
    CROSS JOIN (SELECT min(id) AS id FROM obs_mode) mode
    WHERE source.type = 'fixed_source'
    """,
    """
    CREATE TEMPORARY TABLE scan ON COMMIT DROP AS
    SELECT
        n, unit.id AS obs_unit_id, md5('scan ' || n)::uuid AS id,
        date '2023-04-01' + (n / :scans_of_a_night)::int AS night,
        timestamptz '2023-04-01 22:00Z' + (n / :scans_of_a_night) * interval '1 day'
            + (n % :scans_of_a_night) * interval '150 seconds' AS started_at
    FROM generate_series(0, :scans - 1) n
    JOIN (SELECT id, row_number() OVER (ORDER BY random()) - 1 AS position FROM obs_unit) unit
        ON unit.position = n % :sources
    """,
    """
    INSERT INTO executed_obs_unit (id, obs_unit_id, telescope_id, started_at, ended_at, observing_night, conditions)
    SELECT
        id, obs_unit_id, (SELECT min(id) FROM telescope), started_at, started_at + interval '2 minutes', night,
        jsonb_build_object('weather', jsonb_build_object('pwv_mm', 2 * random()))
    FROM scan ORDER BY n
    """,
    """
    INSERT INTO raw_data_package
        (executed_obs_unit_id, instrument_module_id, part, name, state, size_bytes, checksum, archived_at, metadata)
    SELECT
        scan.id, module.id, part, format('%s-%s-%s', scan.n, module.id, part), 'archived', 1000000000,
        'sha256:' || repeat(md5(scan.n::text), 2), scan.started_at + interval '1 hour',
        jsonb_build_object('band', 'B' || scan.n % 7)
    FROM scan
    JOIN instrument ON instrument.name = (ARRAY['CHAI', 'Prime-Cam'])[1 + scan.n % 2]
    JOIN instrument_module module ON module.instrument_id = instrument.id
    CROSS JOIN generate_series(1, 1 + (instrument.name = 'CHAI')::int) part  -- two modules of two parts, or four of one
    ORDER BY scan.n, module.id, part LIMIT :packages
    """,
)


def archive(engine: sa.Engine, size: int) -> None:
    """Put so many archived packages into an initialised database, ten of each source, and let it look at them."""
    figures = {
        "packages": size,
        "sources": max(1, size // PACKAGES_OF_A_SOURCE),
        "scans": ceil(size / _PACKAGES_OF_A_SCAN),
        "scans_of_a_night": _SCANS_OF_A_NIGHT,
    }
    with engine.begin() as connection:
        for statement in _STATEMENTS:
            connection.execute(sa.text(statement), figures)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))
