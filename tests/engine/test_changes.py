"""Whoever changes what a verdict can depend on: the pipelines are told of it, each of what concerns it and no more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.grouping.paths import paths
from tests.engine.history import History

SCENE = """
INSERT INTO data_transfer_package (name) VALUES ('parcel');
UPDATE raw_data_package SET data_transfer_package_id = (SELECT id FROM data_transfer_package) WHERE name = 'p1';
INSERT INTO raw_data_file
    (id, executed_obs_unit_id, instrument_module_id, raw_data_package_id, relative_path, size_bytes, checksum)
SELECT gen_random_uuid(), executed_obs_unit_id, instrument_module_id, id, name, 1, checksum FROM raw_data_package;
INSERT INTO sub_observing_program (observing_program_id, short_name) SELECT id, 'first' FROM observing_program;
INSERT INTO observation_configuration (name) VALUES ('slow');
UPDATE obs_unit SET observation_configuration_id = (SELECT id FROM observation_configuration) WHERE name = 'M17';
INSERT INTO instrument_module_configuration (instrument_module_id, name) VALUES (1, 'wide'), (1, 'narrow');
INSERT INTO obs_unit_module_configuration SELECT u.id, c.id FROM obs_unit u, instrument_module_configuration c
WHERE u.name = 'M17' AND c.name = 'wide';
INSERT INTO raw_data_package (executed_obs_unit_id, instrument_module_id, part, name)
SELECT executed_obs_unit_id, instrument_module_id, 2, 'waiting' FROM raw_data_package WHERE name = 'p3';
INSERT INTO executed_obs_unit (id, obs_unit_id, telescope_id, started_at, observing_night)
SELECT gen_random_uuid(), id, 1, now(), '2026-04-05' FROM obs_unit WHERE name = 'M17';
INSERT INTO raw_data_file (id, executed_obs_unit_id, instrument_module_id, relative_path, size_bytes, checksum)
SELECT gen_random_uuid(), s.id, 1, 'early', 1, p.checksum FROM executed_obs_unit s, raw_data_package p
WHERE s.ended_at IS NULL AND p.name = 'p1';
"""
"""Two archived packages of M17 and one of Orion A, each of one file; what describes them; and what is on its way."""


@dataclass(frozen=True)
class Case:
    """A statement as a person could write it, and what a pipeline is told of it."""

    statement: str
    told: frozenset[str]
    before: str = ""
    """What was done, and taken into account, before."""


def case(statement: str, *told: str, before: str = "") -> Case:
    return Case(statement, frozenset(told), before)


M17, ALL = ("p1", "p2"), ("p1", "p2", "p3")
CORRUPT = "UPDATE physical_copy SET status = 'corrupt' WHERE data_product_id IS NOT NULL"
SOUND_COPY = (
    "INSERT INTO physical_copy (type, data_product_id, data_location_id, path, status) "
    "SELECT 'data_product', id, 1, 'x', 'present' FROM data_product"
)
LET_GO = "UPDATE physical_copy SET status = 'deletion_in_progress' WHERE status = 'present'"
NEW_PACKAGE = (
    "INSERT INTO raw_data_package "
    "(executed_obs_unit_id, instrument_module_id, part, name, state, archived_at, checksum) "
    "SELECT executed_obs_unit_id, 1, 3, 'new', state, archived_at, checksum FROM raw_data_package WHERE name = 'p1'"
)
FAIL = "UPDATE executed_reduction_step SET status = 'failed', retry_at = now() WHERE status = 'staging_data'"
ACCEPT = (
    "INSERT INTO accepted_coverage (reduction_step_id, sub_group_key, because, by) "
    "SELECT id, 'all', 'clouds', 'me' FROM reduction_step WHERE key = 'grid'"
)
GIVE_UP = "UPDATE executed_reduction_step SET retry_at = NULL"

DATA = {
    "a package is archived": case(
        "UPDATE raw_data_package SET state = 'archived', archived_at = p.archived_at, checksum = p.checksum "
        "FROM raw_data_package p WHERE p.name = 'p1' AND raw_data_package.name = 'waiting'",
        "waiting",
    ),
    "a package that is archived already is written down": case(
        NEW_PACKAGE,
        "new",
    ),
    "a package is excluded": case(
        "UPDATE raw_data_package SET excluded_at = now(), excluded_because = 'clouds' WHERE name = 'p1'", "p1"
    ),
    "a package is withdrawn": case(
        "UPDATE raw_data_package SET withdrawn_at = now(), withdrawn_because = 'test' WHERE name = 'p1'", "p1"
    ),
    "a package is archived no more": case(
        "UPDATE raw_data_package SET state = 'failed', archived_at = NULL WHERE name = 'p1'", "p1"
    ),
    "a package is packed anew": case(
        "UPDATE raw_data_package SET checksum = p.checksum FROM raw_data_package p "
        "WHERE p.name = 'p2' AND raw_data_package.name = 'p1'",
        "p1",
    ),
    "a package is described": case("""UPDATE raw_data_package SET metadata = '{"a": 1}' WHERE name = 'p1'""", "p1"),
    "a package is of another scan": case(
        "UPDATE raw_data_package SET part = 2, executed_obs_unit_id = "
        "(SELECT executed_obs_unit_id FROM raw_data_package WHERE name = 'p2') WHERE name = 'p1'",
        "p1",
    ),
    "a package is deleted": case(
        "DELETE FROM raw_data_package WHERE name = 'new'",
        "a package that is gone",
        before=NEW_PACKAGE,
    ),
    "a file is renamed": case("UPDATE raw_data_file SET relative_path = 'a' WHERE relative_path = 'p1'", "p1"),
    "a file is put into a package of another scan": case(
        "UPDATE raw_data_file SET raw_data_package_id = (SELECT id FROM raw_data_package WHERE name = 'p3') "
        "WHERE relative_path = 'p1'",
        "p1",
        "p3",
    ),
    "a file comes late": case(
        "INSERT INTO raw_data_file "
        "(id, executed_obs_unit_id, instrument_module_id, relative_path, size_bytes, checksum) "
        "SELECT gen_random_uuid(), executed_obs_unit_id, 1, 'late', 1, checksum "
        "FROM raw_data_package WHERE name = 'p1'",
        "p1",
    ),
    "a file is deleted": case("DELETE FROM raw_data_file WHERE relative_path = 'p1'", "p1"),
    "a transfer package is renamed": case("UPDATE data_transfer_package SET name = 'box'", "p1"),
}
METADATA = {
    "a scan is corrected to another night": case(
        "UPDATE executed_obs_unit SET observing_night = observing_night - 1 "
        "FROM raw_data_package p WHERE p.name = 'p1' AND p.executed_obs_unit_id = executed_obs_unit.id",
        "p1",
    ),
    "a scan is re-identified": case(
        "UPDATE executed_obs_unit SET obs_unit_id = u.id FROM raw_data_package p, obs_unit u "
        "WHERE p.name = 'p1' AND p.executed_obs_unit_id = executed_obs_unit.id AND u.name = 'Orion A'",
        "p1",
    ),
    "an observation is re-identified": case(
        "UPDATE obs_unit SET source_id = (SELECT id FROM source WHERE name = 'Orion A') WHERE name = 'M17'", *M17
    ),
    "a source is renamed": case("UPDATE source SET name = 'Omega' WHERE name = 'M17'", *M17),
    "a source lies elsewhere": case(
        "UPDATE fixed_source SET ra_deg = 11 WHERE id = (SELECT id FROM source WHERE name = 'M17')", *M17
    ),
    "a source is of another kind": case(
        "DELETE FROM fixed_source WHERE id = (SELECT id FROM source WHERE name = 'M17'); "
        "INSERT INTO solar_system_object (id) SELECT id FROM source WHERE name = 'M17'",
        *M17,
    ),
    "a body has another number": case(
        "UPDATE solar_system_object SET naif_id = 4",
        *M17,
        before="INSERT INTO solar_system_object (id) SELECT id FROM source WHERE name = 'M17'",
    ),
    "a constant elevation is another": case(
        "UPDATE constant_elevation_source SET elevation_deg = 60",
        *M17,
        before="INSERT INTO constant_elevation_source (id, elevation_deg) SELECT id, 50 FROM source WHERE name = 'M17'",
    ),
    "a program is renamed": case("UPDATE observing_program SET name = 'Other'", *ALL),
    "a part of a program is renamed": case("UPDATE sub_observing_program SET short_name = 'second'", *ALL),
    "a program gets another part": case(
        "INSERT INTO sub_observing_program (observing_program_id, short_name) "
        "SELECT id, 'third' FROM observing_program",
        *ALL,
    ),
    "a mode is renamed": case("UPDATE obs_mode SET name = 'Raster' WHERE name = 'OTF'", *ALL),
    "a configuration is changed": case("""UPDATE observation_configuration SET parameters = '{"a": 1}'""", *M17),
    "a set-up of a module is changed": case(
        """UPDATE instrument_module_configuration SET parameters = '{"a": 1}' WHERE name = 'wide'""", *ALL
    ),
    "an observation uses one more set-up": case(
        "INSERT INTO obs_unit_module_configuration "
        "SELECT u.id, c.id FROM obs_unit u, instrument_module_configuration c "
        "WHERE u.name = 'M17' AND c.name = 'narrow'",
        *M17,
    ),
    "an observation uses no set-up any more": case("DELETE FROM obs_unit_module_configuration", *M17),
    "a module is renamed": case("UPDATE instrument_module SET name = 'low' WHERE name = 'LFA'", *ALL),
    "a module that took nothing is renamed": case("UPDATE instrument_module SET name = 'high' WHERE name = 'HFA'"),
    "an instrument is renamed": case("UPDATE instrument SET name = 'Tea' WHERE name = 'CHAI'", *ALL),
    "a telescope is renamed": case("UPDATE telescope SET name = 'Fred'", *ALL),
    "an observatory is moved": case("UPDATE observatory SET altitude_m = 5600", *ALL),
}
WORK = {
    "a run completes": case(
        "UPDATE executed_reduction_step SET status = 'completed' WHERE status = 'staging_data'", "grid"
    ),
    "a run is cancelled": case(
        "UPDATE executed_reduction_step SET status = 'cancelled' WHERE status = 'staging_data'", "grid"
    ),
    "a run fails and will be retried": case(FAIL, "grid"),
    "a run is lost and starts again": case(
        "UPDATE executed_reduction_step SET status = 'pending' WHERE status = 'staging_data'", "grid"
    ),
    "a retry is given up": case(GIVE_UP, "grid", before=FAIL),
    "a failed run is tried again by hand": case(
        "UPDATE executed_reduction_step SET status = 'pending' WHERE status = 'failed'",
        "grid",
        before=f"{FAIL}; {GIVE_UP}",
    ),
    "a product is withdrawn": case("UPDATE data_product SET state = 'withdrawn'", "calibrate"),
    "a product is found damaged": case(CORRUPT, "calibrate"),
    "a product is found missing": case(CORRUPT.replace("corrupt", "missing"), "calibrate"),
    "a damaged product has a sound copy elsewhere": case(SOUND_COPY, "calibrate", before=CORRUPT),
    "the last sound copy of a damaged product is deleted": case(
        "UPDATE physical_copy SET status = 'deleted' WHERE status = 'present'",
        "calibrate",
        before=f"{CORRUPT}; {SOUND_COPY}",
    ),
    "the last sound copy of a damaged product is let go": case(LET_GO, "calibrate", before=f"{CORRUPT}; {SOUND_COPY}"),
    "a copy of a damaged product that could not be deleted is one again": case(
        "UPDATE physical_copy SET status = 'deletion_scheduled' WHERE status = 'deletion_in_progress'",
        "calibrate",
        before=f"{CORRUPT}; {SOUND_COPY}; {LET_GO}",
    ),
    "the damaged copy of a product is cleared away": case(
        "UPDATE physical_copy SET status = 'deleted' WHERE status = 'corrupt'", "calibrate", before=CORRUPT
    ),
}
WISHES = {
    "a person accepts that a map goes without what it waits for": case(ACCEPT, "grid"),
    "a person takes that back": case("DELETE FROM accepted_coverage", "grid", before=ACCEPT),
    "a trigger asks for a map": case(
        "INSERT INTO trigger (pipeline_id, type, because, by) SELECT id, 'manual', 'now', 'me' FROM pipeline; "
        "INSERT INTO run_request (reduction_step_id, sub_group_key, trigger_id, is_forced) "
        "SELECT s.id, 'all', t.id, true FROM reduction_step s, trigger t WHERE s.key = 'grid'",
        "grid",
    ),
}
DEFINITIONS = {
    "a version is retired": case(
        "UPDATE reduction_software_version SET state = 'retired'", "reduction_software_version"
    ),
    "a version is released": case(
        "INSERT INTO reduction_software_version (reduction_software_id, version, series, runtime, command, image_ref, "
        "content_digest) SELECT reduction_software_id, '9.0', '9', runtime, command, image_ref, content_digest "
        "FROM reduction_software_version LIMIT 1",
        "reduction_software_version",
    ),
    "the pipeline is disabled and enabled": case(
        "UPDATE pipeline SET enabled = false; UPDATE pipeline SET enabled = true", "pipeline"
    ),
    "the pipeline is revised": case(
        "INSERT INTO pipeline_revision (pipeline_id, number, digest, data_grouping_revision_id, "
        "processing_location_id, trigger_type, trigger_config, definition) "
        "SELECT pipeline_id, 2, digest, data_grouping_revision_id, "
        "processing_location_id, trigger_type, trigger_config, definition FROM pipeline_revision",
        "pipeline",
    ),
}
TELLING = {**DATA, **METADATA, **WORK, **WISHES, **DEFINITIONS}
SILENT = {
    "what is there is written once more": "UPDATE source SET name = name; UPDATE raw_data_package SET name = name; "
    "UPDATE raw_data_file SET size_bytes = size_bytes; UPDATE pipeline SET enabled = enabled",
    "a run is claimed": "UPDATE executed_reduction_step SET claimed_by = 'me', lease_until = now(), waiting_for = 'x'",
    "a run is at work": "UPDATE executed_reduction_step SET status = 'running' WHERE status = 'staging_data'",
    "a location is claimed": "UPDATE data_location SET claimed_by = 'me', lease_until = now()",
    "a package is on its way": "UPDATE raw_data_package SET state = 'transferring', size_bytes = 1 "
    "WHERE name = 'waiting'",
    "a file of a scan of which nothing is archived is packed": "UPDATE raw_data_file SET size_bytes = 2 "
    "WHERE relative_path = 'early'; DELETE FROM raw_data_file WHERE relative_path = 'early'",
    "a copy may go": "UPDATE physical_copy SET status = 'deletion_possible'",
    "a copy of a raw package is damaged": "UPDATE physical_copy SET status = 'corrupt' WHERE data_product_id IS NULL",
    "a sound product is brought elsewhere": SOUND_COPY,
    "a product is superseded": "UPDATE data_product SET state = 'superseded'",
    "a product is measured": """UPDATE data_product SET metrics = '{"a": 1}'""",
    "the pipeline is described": "UPDATE pipeline SET description = 'x', priority = 9",
    "an observation is planned": "INSERT INTO obs_mode (name) VALUES ('Cross')",
}


@pytest.fixture(scope="module")
def scene(fresh_history: Callable[[], History]) -> History:
    """The scene, of which the scans are calibrated, the last one not yet, and no change lies in the inbox."""
    history = fresh_history()
    history.define(
        {"key": "calibrate", "group_by": ["executed_obs_unit"]},
        {"key": "grid", "group_by": [], "depends_on": ["calibrate"]},
    )
    for source in ("M17", "M17", "Orion A"):
        history.archive(source=source)
    history.create()
    history.start()
    history.complete(*[run.id for run in history.runs_of("calibrate")])
    history.execute(sa.text(SCENE))
    history.create()
    history.start()
    empty(history)
    return history


@pytest.fixture
def observed(scene: History) -> Iterator[History]:
    """The scene, as which it is left."""
    with scene.connection.begin_nested() as savepoint:
        yield scene
        savepoint.rollback()


def told(history: History) -> set[str]:
    """What the pipeline is told of, after it was handed out."""
    history.session(hand_out)
    change, package, step = models.PendingChange, models.RawDataPackage, models.ReductionStep
    label = sa.case(
        (change.noun == "raw_data_package", sa.func.coalesce(package.name, "a package that is gone")),
        else_=sa.func.coalesce(step.key, change.noun),
    )
    of_package = sa.and_(change.noun == "raw_data_package", sa.cast(package.id, sa.Text) == change.object_id)
    of_step = sa.and_(change.noun == "reduction_step", sa.cast(step.id, sa.Text) == change.object_id)
    query = sa.select(label).select_from(change).outerjoin(package, of_package).outerjoin(step, of_step)
    return set(history.connection.scalars(query.where(change.pipeline_id.is_not(None))))


def empty(history: History) -> None:
    history.execute(sa.delete(models.PendingChange))


@pytest.mark.parametrize("what", TELLING)
def test_the_pipeline_is_told_when(observed: History, what: str) -> None:
    if TELLING[what].before:
        observed.execute(sa.text(TELLING[what].before))
        empty(observed)
    observed.execute(sa.text(TELLING[what].statement))
    assert told(observed) == TELLING[what].told


@pytest.mark.parametrize("what", SILENT)
def test_nobody_writes_anything_down_when(observed: History, what: str) -> None:
    observed.execute(sa.text(SILENT[what]))
    assert not observed.connection.scalar(sa.select(sa.func.count()).select_from(models.PendingChange))


def test_every_table_that_rules_can_see_is_watched(observed: History) -> None:
    of_table = sa.text("SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE 'note%'")
    seen = {table.name for path in paths().values() for step in path for table in step.tables}
    assert seen <= set(observed.connection.scalars(of_table))


def test_a_change_that_is_rolled_back_was_none(observed: History) -> None:
    with observed.connection.begin_nested() as savepoint:
        observed.execute(sa.text(TELLING["a source is renamed"].statement))
        savepoint.rollback()
    assert told(observed) == set()


def test_every_enabled_pipeline_is_told_and_no_disabled_one(observed: History) -> None:
    observed.execute(
        sa.text("INSERT INTO pipeline (name, enabled) VALUES ('enabled', true), ('disabled', false), ('also', true)")
    )
    observed.execute(sa.text(TELLING["a source is renamed"].statement))
    observed.session(hand_out)
    change, pipeline = models.PendingChange, models.Pipeline
    names = sa.select(pipeline.name).join(change, change.pipeline_id == pipeline.id)
    assert sorted(observed.connection.scalars(names)) == ["also", "also", "enabled", "enabled", "it", "it"]
    assert observed.session(hand_out) == 0


def test_very_many_changes_at_once_are_all_handed_out(observed: History) -> None:
    empty(observed)
    with observed.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE pending_change"))  # so that one change is expected
    many = "INSERT INTO pending_change (noun, object_id) SELECT 'source', n FROM generate_series(1000, 80000) n"
    observed.execute(sa.text(many))
    observed.execute(sa.text(TELLING["a source is renamed"].statement))
    assert told(observed) == {"p1", "p2"}
    assert observed.session(hand_out) == 0


def test_with_very_many_changes_a_pipeline_is_looked_at_as_a_whole(observed: History) -> None:
    """Of a package that nothing is said of, too."""
    observed.execute(
        sa.text("UPDATE raw_data_package SET excluded_at = now(), excluded_because = 'x' WHERE name = 'p1'")
    )
    empty(observed)
    unknown = """
        INSERT INTO pending_change (pipeline_id, noun, object_id)
        SELECT p.id, 'raw_data_package', n FROM pipeline p, generate_series(1000000, 1000000 + :number) n
    """
    before = observed.verdicts()
    observed.execute(sa.text(unknown).bindparams(number=99_998))
    assert observed.verdicts() == before
    observed.execute(sa.text(unknown).bindparams(number=100_000))
    assert len(observed.verdicts()) == len(before) - 1
