"""The drill: an installation is backed up while it works, and another one that is made of the backup goes on."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.installation import SOURCE, Installation
from tests.end_to_end.toy import COPY, install, write_definitions
from tests.stack.support import eventually

RAW_LIES_AT = (SOURCE, "ccat/buffer", "cologne/buffer")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the toy's environment and definitions; one raw file lies there too."""
    folder = tmp_path_factory.mktemp("toy")
    install(folder / "toy-env")
    (folder / "scan.dat").write_bytes(b"counts" * 1000)
    steps: list[dict[str, object]] = [
        {"key": "reduce", "group_by": ["executed_obs_unit"], "software": "copy"},
        {"key": "combine", "group_by": ["source"], "software": "copy", "depends_on": ["reduce"]},
    ]
    write_definitions(folder / "good.yaml", {"copy": COPY}, steps, pipeline="good")
    return folder


@pytest.fixture(scope="module")
def lost(toy: Path) -> Iterator[Installation]:
    """An installation that made something, and is up."""
    with tempfile.TemporaryDirectory(prefix="ccat-") as directory:
        found = Installation(Path(directory) / "lost")
        with up(found):
            found.ccat("apply", "-f", toy / "good.yaml")
            observe(found, toy, day=1)
            found.ccat("wait", "--timeout", 60)
            yield found


@contextmanager
def up(installation: Installation) -> Iterator[None]:
    """The whole stack is up while the block lasts."""
    done = installation.process("up", "--detach")
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        yield
    finally:
        installation.process("down")


def observe(installation: Installation, toy: Path, *, day: int) -> None:
    times = {"started_at": f"2026-04-{day:02}T02:00:00Z", "ended_at": f"2026-04-{day:02}T02:05:00Z"}
    installation.observe("orion", [toy / "scan.dat"], **times)


def runs_of(installation: Installation) -> list[dict[str, Any]]:
    return sorted(installation.json("runs", "--limit", 1000), key=lambda run: int(run["id"]))


def raw_that_goes(installation: Installation) -> dict[str, bool]:
    """Whether raw data go from where they lie, by location."""
    rows = installation.json("retention", "plan")["rows"]
    return {row["location"]: row["goes"] for row in rows if row["what"] in {"source", "buffer"}}


def hashed(directory: Path) -> dict[str, str]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_what_is_made_of_a_backup_is_another_installation_that_goes_on_where_the_backup_was(
    lost: Installation, toy: Path, tmp_path: Path
) -> None:
    before, place = runs_of(lost), tmp_path / "kept"
    while_up = lost.json("backup", place)
    lost.process("down")
    while_down = lost.json("backup", place, "--keep", 1)
    assert while_down["removed"] == [while_up["path"]]
    assert while_down["manifest"]["rows"] == while_up["manifest"]["rows"]
    assert while_down["manifest"]["rows"]["executed_reduction_step"] == len(before) == 2

    new = Installation(lost.directory.with_name("new"))
    restored = new.json("restore", while_down["path"], "--data-dir", new.directory)
    assert restored["installation_id"] != while_down["manifest"]["installation_id"]
    shutil.copytree(lost.directory / "storage", new.directory / "storage", dirs_exist_ok=True)
    with up(new):
        changes = new.json("apply", "-f", Path(while_down["path"]) / "definitions.yaml")["changes"]
        assert {change["action"] for change in changes} == {"unchanged"}
        observe(new, toy, day=2)
        eventually(lambda: len(new.json("packages", "--state", "archived")) == 2)
        assert runs_of(new) == before, "everything is paused, and what was done already is not done again"
        new.ccat("resume", "--all")
        new.ccat("wait", "--timeout", 60)
        runs = runs_of(new)
        assert runs[:2] == before
        assert [(run["step"], run["status"]) for run in runs[2:]] == [("reduce", "completed"), ("combine", "completed")]
        assert runs[2]["id"] == 2_000_000
        [combined] = [one for one in new.json("products") if one["run"] == runs[3]["id"]]
        assert len(new.json("lineage", combined["id"])["packages"]) == 2
        assert new.path_of(combined).is_file()
        [attempt] = new.json("run", "show", runs[3]["id"])["attempts"]
        assert attempt["job_name"].startswith(f"ccat-{restored['installation_id'][:8]}-")


def test_what_an_archive_had_when_it_was_backed_up_lets_nothing_go_before_it_was_read_here(
    lost: Installation, tmp_path: Path
) -> None:
    """Its disk came back without anything on it."""
    place = lost.json("backup", tmp_path / "kept")["path"]
    new = Installation(lost.directory.with_name("emptied"))
    restored = new.json("restore", place, "--data-dir", new.directory)
    before = hashed(lost.directory / "storage/cologne/lta")
    assert restored["unread_copies"] >= 1
    shutil.copytree(lost.directory / "storage", new.directory / "storage", dirs_exist_ok=True)
    archive = new.directory / "storage/cologne/lta"
    shutil.rmtree(archive)
    (archive / "lost+found").mkdir(parents=True)
    with up(new):
        for location in RAW_LIES_AT:
            new.ccat("retention", "set", location, "--days", 0)
        assert raw_that_goes(new) == dict.fromkeys(RAW_LIES_AT, False)
        new.ccat("resume", "--all")
        eventually(lambda: hashed(archive) == before)
        eventually(lambda: all(raw_that_goes(new).values()))


def test_what_was_archived_after_a_backup_is_adopted_read_and_reduced_though_only_the_archive_has_it(
    lost: Installation, toy: Path, tmp_path: Path
) -> None:
    place = lost.json("backup", tmp_path / "kept")["path"]
    lost.process("down")
    disks = shutil.copytree(lost.directory / "storage", tmp_path / "disks")
    with up(lost):
        observe(lost, toy, day=3)
        observe(lost, toy, day=4)
        eventually(lambda: len(lost.json("packages", "--state", "archived")) == 3)
        later = {one["name"]: one["checksum"] for one in lost.json("packages")[:2]}
    new = Installation(lost.directory.with_name("adopting"))
    new.ccat("restore", place, "--data-dir", new.directory)
    archive = "storage/cologne/lta"
    for kept, at in ((disks, "storage"), (lost.directory / archive, archive)):
        shutil.copytree(kept, new.directory / at, dirs_exist_ok=True)
    with up(new):
        assert set(new.json("package", "adopt", "cologne/lta")["adopted"]) == set(later)
        assert len(new.json("packages")) == 1
        adopted = new.json("package", "adopt", "cologne/lta", "--yes")
        assert (set(adopted["adopted"]), adopted["refused"]) == (set(later), [])
        assert later.items() < {one["name"]: one["checksum"] for one in new.json("packages")}.items()
        new.ccat("resume", "--all")
        new.ccat("wait", "--timeout", 60)
        eventually(lambda: new.json("transfer", "status")["doubtful"] == [])
        [combined] = [one for one in new.json("products") if one["state"] == "current" and one["step"] == "combine"]
        assert len(new.json("lineage", combined["id"])["packages"]) == 3
