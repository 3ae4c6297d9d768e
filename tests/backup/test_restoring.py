"""A backup is restored into an empty database, and into nothing else."""

import json
import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat.backup.manifest import read_manifest
from ccat.backup.programs import run
from ccat.backup.restoring import _load
from ccat_ops_db.migrating import migrate
from ccat_ops_db.plan.relocation import relocated, relocated_keys
from ccat_ops_db.schema import RestoreUnfinished, head, require_current_schema, revisions
from tests.backup.conftest import Say, database, measured, rewrite, say_to, told


def rows_of(engine: sa.Engine, statement: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def test_it_becomes_an_installation_of_its_own_where_everything_is_paused(backup: Path, empty: sa.Engine) -> None:
    done = told(say_to(empty, "restore", backup, "--moved", "/data/cologne=/srv/köln", "--json"))
    old = read_manifest(backup).installation_id
    assert done["installation_id"] != str(old)
    assert rows_of(empty, "SELECT installation_id::text FROM installation") == [(done["installation_id"],)]
    [[because]] = rows_of(empty, "SELECT because FROM pause")
    assert str(because).startswith(f"restored from a backup of the installation {old.hex[:8]} as it was at 20")
    assert done["relocated"] == ["cologne/buffer", "cologne/lta", "cologne/ramses"]
    paths = {path for (path,) in rows_of(empty, "SELECT path FROM disk_data_location")}
    assert {"/srv/köln/lta", "/srv/köln/ramses", "/data/ccat/buffer"} <= paths
    [[number]] = rows_of(empty, "SELECT nextval(pg_get_serial_sequence('executed_reduction_step', 'id'))")
    assert number == 2_000_000
    require_current_schema(empty)
    assert "everything goes on." in say_to(empty, "resume", "--all").stdout


def test_it_says_which_locations_are_where_they_were_so_that_nobody_forgets_one(backup: Path, empty: sa.Engine) -> None:
    said = say_to(empty, "restore", backup, "--moved", "/data/cologne=/srv/cologne").stdout
    assert "Locations that lie elsewhere now: cologne/buffer, cologne/lta, cologne/ramses." in said
    assert "Locations that are where they were: ccat/buffer (/data/ccat/buffer), ccat/chai_raw_data (/" in said


def test_what_was_moved_and_nothing_lies_there_is_refused_until_it_is_said_right(
    backup: Path, empty: sa.Engine
) -> None:
    refused = say_to(empty, "restore", backup, "--moved", "/data/colonge=/srv/cologne")
    assert refused.exit_code == 1
    assert (
        "No location of the backup lies at or below /data/colonge: ccat/buffer at /data/ccat/buffer" in refused.stderr
    )
    with pytest.raises(RestoreUnfinished):
        require_current_schema(empty)
    said = say_to(empty, "restore", backup, "--moved", "/data/cologne=/srv/cologne").stdout
    assert "Locations that lie elsewhere now: cologne/buffer, cologne/lta, cologne/ramses." in said


def test_buckets_are_moved_as_directories_are(
    postgresql_url: str, backup: Path, empty: sa.Engine, tmp_path: Path
) -> None:
    archive = ("--type", "long_term_archive", "--storage", "s3", "--bucket", "raw", "--prefix", "v1/a")
    for words in (["restore", backup], ["location", "add", "cologne/store", *archive]):
        assert say_to(empty, *words).exit_code == 0
    with_bucket = told(say_to(empty, "backup", tmp_path, "--json"))["path"]
    with database(postgresql_url, template="template0") as new:
        done = told(say_to(new, "restore", with_bucket, "--moved", "s3://raw/v1=s3://drill", "--json"))
        assert done["relocated"] == ["cologne/store"]
        assert rows_of(new, "SELECT bucket, prefix FROM s3_data_location") == [("drill", "a")]


@pytest.mark.parametrize(
    ("moves", "now"),
    [
        ({"s3://raw/v1": "s3://raw/v2"}, ("raw", "v2/a")),
        ({"s3://raw/v1/a": "s3://drill"}, ("drill", "")),
        ({"s3://raw/v": "s3://drill"}, ("raw", "v1/a")),
        ({"/raw": "/drill"}, ("raw", "v1/a")),
    ],
)
def test_the_prefix_of_a_bucket_is_a_path(moves: dict[str, str], now: tuple[str, str]) -> None:
    assert relocated_keys("raw", "v1/a", moves) == now


def test_only_what_is_empty_is_written_to(say: Say, backup: Path, empty: sa.Engine, initialized: sa.Engine) -> None:
    refused = say("restore", backup)
    assert refused.exit_code == 1
    assert re.search(
        r"holds \d\d tables \(accepted_coverage, accepted_package, alembic_version …\), and a backup is", refused.stderr
    )
    assert "in CCAT_OPS_DB_URL a database that `createdb` has just made" in refused.stderr
    assert str(initialized.url.password) not in refused.stderr
    with empty.begin() as connection:
        connection.execute(sa.text("CREATE TABLE weather (at timestamptz)"))
    refused = say_to(empty, "restore", backup, "--json")
    assert json.loads(refused.stderr)["code"] == "database_not_empty"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"schema_revision": "9999"}, "has schema revision 9999, and this version of the software knows them up to"),
        ({"format": 2}, "is no backup that can be read: manifest.json: format: Input should be 1"),
        ({"rows": {}, "parts": {}}, "manifest.json lacks database.dump, definitions.yaml"),
        ({"rows": {"status_change": 7}}, "it should have 7 rows of status_change and not 0"),
    ],
)
def test_what_is_no_backup_of_ours_is_refused_and_leaves_nothing_that_a_process_starts_on(
    backup: Path, empty: sa.Engine, values: dict[str, object], problem: str
) -> None:
    rewrite(backup, **values)
    refused = say_to(empty, "restore", backup)
    assert refused.exit_code == 1
    assert problem in refused.stderr
    assert say_to(empty, "runs").exit_code == 1


def test_what_is_damaged_makes_no_data_directory(say: Say, backup: Path, tmp_path: Path) -> None:
    (backup / "database.dump").unlink()
    refused = say("restore", backup, "--data-dir", tmp_path / "new")
    assert "database.dump cannot be read" in refused.stderr
    assert not (tmp_path / "new").exists()


def test_one_that_was_stopped_half_way_is_told_by_every_command_and_done_again(backup: Path, empty: sa.Engine) -> None:
    _load(backup / "database.dump", empty, read_manifest(backup), clears=False)
    refused = say_to(empty, "runs")
    assert refused.exit_code == 1
    assert "and that was never finished" in refused.stderr
    assert told(say_to(empty, "restore", backup, "--json"))["schema_revision"] == head()
    assert say_to(empty, "runs").exit_code == 0


def test_one_of_an_older_schema_is_brought_to_that_of_now(backup: Path, empty: sa.Engine) -> None:
    assert say_to(empty, "restore", backup).exit_code == 0
    migrate(empty, to=revisions()[-2])
    dump = backup / "database.dump"
    run([str(_pg_dump()), "--format=custom", f"--file={dump}"], empty, look=lambda: None)
    rewrite(backup, schema_revision=revisions()[-2], parts=measured(backup))
    with empty.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    assert f"schema {revisions()[-2]}" in say_to(empty, "restore", backup).stdout
    require_current_schema(empty)


def _pg_dump() -> Path:
    from ccat.backup.programs import program  # noqa: PLC0415 - only here

    return program("pg_dump", at_least=18)


@pytest.mark.parametrize("written", ["/old", "old=/new", "/old=new", "/old=s3://new"])
def test_two_absolute_directories_are_moved(say: Say, backup: Path, written: str) -> None:
    refused = say("restore", backup, "--moved", written)
    assert refused.exit_code == 2


@pytest.mark.parametrize(
    ("path", "now"),
    [
        ("/data/a", "/new/a"),
        ("/data", "/new"),
        ("/database/a", "/database/a"),
        ("/data/fast/b", "/ssd/b"),
        ("relative", "relative"),
    ],
)
def test_a_path_is_below_the_innermost_directory_that_was_moved(path: str, now: str) -> None:
    assert relocated(path, {"/data": "/new", "/data/fast": "/ssd"}) == now
