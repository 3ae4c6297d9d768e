"""How long it takes to tell what may go, of a million copies, and to mark some of it."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from math import ceil
from typing import Annotated, Final

import sqlalchemy as sa
import typer

from bench.database import ops_db
from bench.figures import Figure, memory_mb, seconds
from bench.packages import archive
from bench.pipelines import define
from ccat_data_transfer.verbs.retaining import mark
from ccat_ops_db import models
from ccat_ops_db.queries.retention import Forecast, forecast, places
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType

_COPIES_OF_A_PACKAGE: Final = 16
"""Ten raw files, a tar in the buffer, two in archives, one unpacked, two products."""
_MADE: Final = (
    "SET LOCAL session_replication_role = replica",  # nothing evaluates them
    """
    WITH made AS (
        INSERT INTO data_location (site_id, name, location_type, storage_type, retention_days)
        SELECT site_id, 'lta2', location_type, storage_type, 365 FROM data_location
        WHERE location_type = 'long_term_archive' LIMIT 1 RETURNING id
    ) INSERT INTO disk_data_location (id, path) SELECT id, '/lta2' FROM made
    """,
    """
    UPDATE data_location SET retention_days = 30, high_watermark = 0.9, low_watermark = 0.8
    WHERE location_type = 'source'
    """,
    """
    UPDATE data_location SET free_bytes = 1e13, total_bytes = 2e14, space_checked_at = clock_timestamp()
    WHERE location_type <> 'long_term_archive'
    """,
    """
    INSERT INTO raw_data_file
        (id, executed_obs_unit_id, instrument_module_id, raw_data_package_id, relative_path, size_bytes, checksum)
    SELECT md5(format('%s %s', p.id, n))::uuid, p.executed_obs_unit_id, p.instrument_module_id, p.id,
        format('%s/%s.fits', p.name, n), 100000000, p.checksum
    FROM raw_data_package p CROSS JOIN generate_series(1, 10) n
    """,
    """
    INSERT INTO physical_copy (type, raw_data_file_id, data_location_id, status, path, size_bytes)
    SELECT 'raw_data_file', f.id, l.id, 'present', f.relative_path, f.size_bytes
    FROM raw_data_file f
    CROSS JOIN (SELECT min(id) AS id FROM data_location WHERE location_type = 'source') l
    """,
    """
    INSERT INTO physical_copy
        (type, raw_data_package_id, data_location_id, status, path, size_bytes, checksum, mtime_ns, inode, verified_at)
    SELECT 'raw_data_package', p.id, l.id, CASE l.location_type WHEN 'processing' THEN 'staged' ELSE 'present' END,
        'raw/' || p.name, p.size_bytes, CASE WHEN l.location_type <> 'processing' THEN p.checksum END, 1, 1,
        clock_timestamp() - (p.id % 20) * interval '1 day'
    FROM raw_data_package p JOIN data_location l ON l.location_type <> 'source'
    WHERE l.name = 'lta2' OR l.id IN (SELECT min(id) FROM data_location GROUP BY location_type)
    """,
    # Two runs for each package: one of an intermediate step, and one of the step that takes what it made.
    """
    INSERT INTO executed_reduction_step (
        reduction_step_id, step_revision_id, pipeline_id, data_location_id, software_version_id, sub_group_key,
        sub_group_path, sub_group_labels, status, reason, because, recipe_digest, series_digest, input_digest,
        inputs_frozen_at, finished_at)
    SELECT s.reduction_step_id, s.id, n.pipeline_id, n.processing_location_id, v.id, 'package=' || p.id, 'p-' || p.id,
        '{}', CASE WHEN p.id % 50 = 0 THEN 'running' ELSE 'completed' END, 'missing', 'made by the database',
        p.checksum, p.checksum, p.checksum, now(), now()
    FROM reduction_step_revision s
    JOIN pipeline_revision n ON n.id = s.pipeline_revision_id
    JOIN reduction_software_version v ON v.reduction_software_id = s.reduction_software_id
    CROSS JOIN raw_data_package p
    """,
    """
    INSERT INTO run_input (run_id, role, raw_data_package_id)
    SELECT r.id, 'raw', split_part(r.sub_group_key, '=', 2)::bigint FROM executed_reduction_step r
    JOIN reduction_step_revision s ON s.id = r.step_revision_id AND s.takes_raw
    """,
    """
    INSERT INTO data_product (run_id, run_attempt_id, type, relative_path, size_bytes, checksum, created_at)
    SELECT r.id, 1, 'intermediate', 'part.fits', 1000000, r.recipe_digest,
        clock_timestamp() - (r.id % 60) * interval '1 day'
    FROM executed_reduction_step r
    """,
    """
    INSERT INTO physical_copy (type, data_product_id, data_location_id, status, path, size_bytes)
    SELECT 'data_product', d.id, r.data_location_id, 'present', format('pipelines/%s/part.fits', d.id), d.size_bytes
    FROM data_product d JOIN executed_reduction_step r ON r.id = d.run_id
    """,
    """
    UPDATE physical_copy SET status = CASE id % 2 WHEN 0 THEN 'corrupt' ELSE 'missing' END, verified_at = NULL
    WHERE raw_data_file_id IS NULL AND id % 500 = 0
    """,
    """
    INSERT INTO sub_group (reduction_step_id, key, path, labels, last_run_id, verdict)
    SELECT r.reduction_step_id, r.sub_group_key, r.sub_group_path, '{}', r.id,
        CASE WHEN r.id % 100 = 0 THEN 'wanted' ELSE 'up_to_date' END
    FROM executed_reduction_step r
    """,
    """
    INSERT INTO sub_group_package (reduction_step_id, raw_data_package_id, sub_group_id, archived_at, is_faded)
    SELECT g.reduction_step_id, split_part(g.key, '=', 2)::bigint, g.id, now(), false FROM sub_group g
    """,
)


def measure(*, size: Annotated[int, typer.Option(min=1_600, help="So many copies.")] = 1_000_000) -> Iterator[Figure]:
    """How long it takes to tell of a million copies which may go and why the others stay, and to mark some."""
    with ops_db() as engine:
        print(f"making {size} copies", flush=True)
        steps = [{"key": "part", "group_by": []}, {"key": "whole", "group_by": [], "depends_on": ["part"]}]
        define(engine, "retention", steps)
        _make(engine, ceil(size / _COPIES_OF_A_PACKAGE))
        _tell(_plan(engine))
        yield Figure("retention_1m_s", seconds(lambda: _plan(engine)), at_most=3)
        yield Figure("mark_s", max(_mark(engine)))
    yield Figure("rss_mb", memory_mb(), at_most=300)


def _make(engine: sa.Engine, packages: int) -> None:
    archive(engine, packages)
    with engine.begin() as connection:
        for statement in _MADE:
            connection.execute(sa.text(statement))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))


def _plan(engine: sa.Engine) -> list[Forecast]:
    with transaction(engine) as session:
        return list(forecast(session, places(session), now=datetime.now(UTC)))


def _tell(found: list[Forecast]) -> None:
    for one in found:
        copies: Counter[str] = Counter()
        for group in one.groups:
            copies[f"{group.kind} {group.obstacle or group.term}"] += group.copies
        print(f"{one.place.name}: {dict(copies)}", flush=True)


def _mark(engine: sa.Engine) -> Iterator[float]:
    """Duration of one round at each location, in seconds; it marks at most two thousand copies."""
    location = models.DataLocation
    with transaction(engine) as session:
        ids = session.scalars(
            sa.select(location.id).where(location.location_type != LocationType.LONG_TERM_ARCHIVE)
        ).all()
    for location_id in ids:
        yield seconds(lambda: _mark_at(engine, location_id), warm_up=0)  # noqa: B023 - called at once


def _mark_at(engine: sa.Engine, location_id: int) -> None:
    with transaction(engine) as session:
        mark(session, location_id, by="bench")
