"""Backups of a real database: what they are, and what they never are."""

import contextlib
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from ccat.backup.errors import ProgramTooOld
from ccat.backup.programs import connection_to, program
from ccat_ops_db.migrating import migrate
from ccat_ops_db.schema import head, revisions
from ccat_ops_db.session import create_engine
from tests.backup.conftest import Say, measured, rewrite, say_to, told, url_of
from tests.needs import do_without

NOBODY = "postgresql://ccat:s3cret@127.0.0.1:1/ccat"


def test_a_backup_says_what_it_is_and_only_its_owner_reads_it(say: Say, tmp_path: Path, initialized: sa.Engine) -> None:
    done = told(say("backup", tmp_path / "kept", "--json"))
    path, manifest = Path(done["path"]), done["manifest"]
    assert {one.name for one in path.iterdir()} == {"database.dump", "definitions.yaml", "manifest.json"}
    assert {stat.S_IMODE(one.stat().st_mode) for one in path.iterdir()} == {0o600}
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert manifest == json.loads((path / "manifest.json").read_text())
    assert (manifest["schema_revision"], manifest["program_version"], manifest["data_dir"]) == (head(), "0.1.0", None)
    assert manifest["rows"]["status_change"] == 0
    with initialized.connect() as connection:
        assert manifest["installation_id"] == str(
            connection.scalar(sa.text("SELECT installation_id FROM installation"))
        )
    assert told(say("backup", "verify", path, "--json")) == manifest
    assert f"{path} is whole: installation {manifest['installation_id']} at " in say("backup", "verify", path).stdout


@pytest.mark.parametrize("part", ["database.dump", "definitions.yaml"])
def test_what_changed_since_is_found(say: Say, backup: Path, part: str) -> None:
    content = (backup / part).read_bytes()
    (backup / part).write_bytes(bytes([content[0] ^ 1]) + content[1:])
    refused = say("backup", "verify", backup)
    assert refused.exit_code == 1
    assert f"is damaged: the bytes of {part} are others than were written. Take another one" in refused.stderr
    (backup / part).write_bytes(content[:-1])
    assert (
        f"{part} has {len(content) - 1:,} bytes, and {len(content):,} were written"
        in say("backup", "verify", backup).stderr
    )
    (backup / part).unlink()
    assert f"{part} cannot be read (No such file or directory)" in say("backup", "verify", backup).stderr


def test_a_dump_that_postgresql_cannot_read_is_found_though_its_digest_is_right(say: Say, backup: Path) -> None:
    (backup / "database.dump").write_bytes(b"no dump")
    rewrite(backup, parts=measured(backup))
    assert "pg_restore ended with exit code 1: pg_restore: error: input file" in say("backup", "verify", backup).stderr


def test_of_older_backups_so_many_are_kept_as_are_wanted_and_nothing_of_others_is_touched(
    say: Say, backup: Path
) -> None:
    place = backup.parent
    other, foreign, broken = place / "ccat-other", place / "notes", place / "ccat-broken"
    for one, manifest in ((other, (backup / "manifest.json").read_text()), (foreign, None), (broken, "{}")):
        one.mkdir()
        if manifest is not None:
            (one / "manifest.json").write_text(manifest)
    rewrite(other, installation_id="0f9b9f5c-4c7a-4b47-9a39-000000000000")
    rewrite(backup, taken_at="2026-04-05T00:00:00Z")
    done = told(say("backup", place, "--keep", 2, "--json"))
    assert done["removed"] == []
    rewrite(Path(done["path"]), taken_at="2026-04-05T00:00:01Z")
    time.sleep(1.1)
    done = told(say("backup", place, "--keep", 1, "--json"))
    assert done["removed"][0] == str(backup)
    assert len(done["removed"]) == 2
    assert {one.name for one in place.iterdir()} == {Path(done["path"]).name, other.name, foreign.name, broken.name}


def test_what_was_just_made_is_never_removed_though_a_clock_was_ahead_before(say: Say, backup: Path) -> None:
    place = backup.parent
    ahead = place / "ccat-20990101T000000Z"
    backup.rename(ahead)
    rewrite(ahead, taken_at="2099-01-01T00:00:00Z")
    made = [told(say("backup", place, "--keep", 1, "--json")) for _ in range(2)]
    first, second = (Path(one["path"]) for one in made)
    assert (made[0]["removed"], made[1]["removed"]) == ([], [str(first)])
    assert made[1]["dated_later"] == [str(ahead)]
    assert {one.name for one in place.iterdir()} == {second.name, ahead.name}
    warned = say("backup", place, "--keep", 1).stdout
    assert f"1 backup there is dated later, so that a clock was wrong: {ahead.name}" in warned


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        (NOBODY, "error: The operations database postgresql+psycopg://ccat:***@127.0.0.1:1/ccat does not answer"),
        ("empty", "error: The operations database has no schema yet. Create it with `opsdb_init`"),
        ("outdated", f"has schema revision {revisions()[-2]}, this version needs {head()}. Run `opsdb_migrate`"),
    ],
)
def test_a_database_that_cannot_be_backed_up_is_told_and_nothing_is_left(
    tmp_path: Path, engine: sa.Engine, empty: sa.Engine, url: str, problem: str
) -> None:
    if url == "outdated":
        migrate(engine, to=revisions()[-2])
    named = {"empty": empty, "outdated": engine}.get(url) or sa.create_engine(url)
    refused = say_to(named, "backup", tmp_path / "kept")
    assert refused.exit_code == 1
    assert problem in refused.stderr
    assert "s3cret" not in refused.stderr
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_is_no_place_for_backups_is_refused(say: Say, backup: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    told_of = {file: "File exists", tmp_path / "a" / "b": "No such file or directory", backup: "it is a backup itself"}
    for place, problem in told_of.items():
        refused = say("backup", place)
        assert refused.exit_code == 1
        assert f"error: No backup can be made in {place}: {problem}. Name another directory." in refused.stderr


def test_no_backup_is_overwritten_and_one_is_named_by_the_next_second_that_is_free(say: Say, backup: Path) -> None:
    place, second = backup.parent, int(time.time())
    taken = [place / time.strftime("ccat-%Y%m%dT%H%M%SZ", time.gmtime(second + later)) for later in range(3)]
    for name in taken:
        name.mkdir(exist_ok=True)
    before = {name: sorted(name.iterdir()) for name in taken}
    made = Path(told(say("backup", place, "--json"))["path"])
    assert made not in taken
    assert {name: sorted(name.iterdir()) for name in taken} == before


def test_on_a_full_disk_nothing_is_left_and_it_is_said(say: Say, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        do_without("this container may not mount a file system: start it with CAP_SYS_ADMIN (`--cap-add SYS_ADMIN`)")
    try:
        refused = say("backup", disk)
        assert refused.exit_code == 1
        assert "No space left on device. Nothing of what it did was kept." in refused.stderr
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_one_that_is_killed_leaves_no_backup_and_the_next_one_cleans_up(
    say: Say, tmp_path: Path, initialized: sa.Engine
) -> None:
    command = [sys.executable, "-m", "ccat", "backup", str(tmp_path)]
    environment = {**os.environ, "CCAT_OPS_DB_URL": url_of(initialized)}
    with initialized.connect() as connection, subprocess.Popen(command, env=environment) as killed:
        connection.execute(sa.text("LOCK TABLE alert"))  # where it stops in the middle of its dump
        pg_dump = eventually_dumping(killed.pid)
        seen = " ".join([*psutil.Process(killed.pid).cmdline(), *pg_dump.cmdline()])
        assert str(initialized.url.password) not in seen
        refused = say("backup", tmp_path)
        assert f"Another backup is being made in {tmp_path}. Wait for its end" in refused.stderr
        killed.kill()
        killed.wait()
        pg_dump.wait(10)
        connection.rollback()
    [partial] = tmp_path.iterdir()
    assert partial.name.endswith(".partial")
    done = told(say("backup", tmp_path, "--json"))
    assert list(tmp_path.iterdir()) == [Path(done["path"])]


def eventually_dumping(pid: int) -> psutil.Process:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == "pg_dump":
                    return child
        time.sleep(0.02)
    raise AssertionError("it never came to pg_dump")


def test_a_server_that_is_newer_than_our_programs_needs_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramTooOld, match=r"pg_dump of PostgreSQL 19 or newer is needed, and there is no pg_dump on"):
        program("pg_dump", at_least=19)
    stub = tmp_path / "pg_dump"
    stub.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)'\n")
    stub.chmod(0o755)
    with pytest.raises(ProgramTooOld, match=r"the pg_dump on PATH is of PostgreSQL 15\. Install the clients of that"):
        program("pg_dump", at_least=19)
    stub.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 20beta1'\n")
    assert program("pg_dump", at_least=19) == stub
    assert program("pg_dump", at_least=18) != stub


def test_no_secret_of_a_url_comes_to_a_command_line() -> None:
    url = "postgresql+psycopg://ann:p%20%27w@db:5433/ops?sslmode=require&sslpassword=hidden&application_name=x%20y"
    public, secret = connection_to(create_engine(url, application_name="tests"))
    assert "hidden" not in public
    assert "p 'w" not in public.replace("\\", "")
    assert {"host=db", "port=5433", "user=ann", "dbname=ops", "sslmode=require"} <= set(public.split())
    assert secret == {"PGPASSWORD": "p 'w"}
