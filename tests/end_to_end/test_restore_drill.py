"""The drill: an installation is backed up while it works, and another one that is made of the backup goes on."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.installation import Installation
from tests.end_to_end.toy import COPY, install, write_definitions
from tests.stack.support import eventually


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
    yield
    installation.process("down")


def observe(installation: Installation, toy: Path, *, day: int) -> None:
    times = {"started_at": f"2026-04-{day:02}T02:00:00Z", "ended_at": f"2026-04-{day:02}T02:05:00Z"}
    installation.observe("orion", [toy / "scan.dat"], **times)


def runs_of(installation: Installation) -> list[dict[str, Any]]:
    return sorted(installation.json("runs", "--limit", 1000), key=lambda run: int(run["id"]))


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
