"""Each check of `make check` that is our own, run as `make check` runs it, on a small repository with one fault."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLANTED = {
    "ceilings": ("src/ccat/long.py", "def long():\n" + "    step()\n" * 60, "src/ccat/long.py:1: long has 61 lines"),
    "moves": ("src/ccat/sly.py", "def fail(run):\n    run.status = 'failed'\n", "src/ccat/sly.py:2: writes a status"),
    "clock": ("src/ccat_data_transfer/plan.py", "moment = datetime.now()\n", "plan.py:1: now() in a pure module"),
    "addresses": ("uv.lock", "version = 1\n", "uv.lock:1: this kind of lock records addresses"),
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "README.md").write_text("# Nothing wrong here\n")
    return tmp_path


def run_check(name: str, repository: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tools.check_{name}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_named_with_its_place_and_fails_the_check(name: str, repository: Path) -> None:
    before = run_check(name, repository)
    assert (before.returncode, before.stdout.startswith(f"{name}: in order")) == (0, True), before.stderr
    path, content, complaint = PLANTED[name]
    (repository / path).parent.mkdir(parents=True, exist_ok=True)
    (repository / path).write_text(content)
    after = run_check(name, repository)
    assert after.returncode == 1
    assert complaint in after.stderr
    assert f"{name}: 1 to mend" in after.stdout


def test_what_git_ignores_is_not_read(repository: Path) -> None:
    (repository / ".gitignore").write_text("build/\n")
    (repository / "build").mkdir()
    (repository / "build" / "uv.lock").write_text("version = 1\n")
    assert run_check("addresses", repository).returncode == 0
