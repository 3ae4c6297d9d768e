"""What `make` says where it cannot set itself up: each message names what is missing and what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As much of the project as the first step of the set-up reads."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "pipelines" / "src").mkdir(parents=True)
    (tmp_path / "pipelines" / "pyproject.toml").touch()
    return tmp_path


def interpreter(directory: Path, *, version: str = "Python 3.9.2", fails_on: str) -> Path:
    """An interpreter that refuses any program with `fails_on` in it, and claims to be of a version."""
    path = directory / "python-of-this-machine"
    path.write_text(f'#!/bin/sh\ncase "$*" in *-V*) echo {version} ;; *{fails_on}*) exit 1 ;; esac\n')
    path.chmod(0o755)
    return path


def make(clone: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    outer = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKEOVERRIDES", "ARGS"}}
    return subprocess.run(
        ["make", *arguments], cwd=clone, env=outer | environment, capture_output=True, text=True, check=False
    )


def test_without_python_the_message_says_what_to_install(clone: Path) -> None:
    answer = make(clone, "demo", "PYTHON=no-such-python")
    assert answer.returncode != 0
    assert "there is no 'no-such-python' on PATH. Install Python 3.11 or newer" in answer.stderr


def test_an_older_python_is_named_with_its_version(clone: Path) -> None:
    answer = make(clone, "demo", f"PYTHON={interpreter(clone, fails_on='version_info')}")
    assert answer.returncode != 0
    assert "is Python 3.9.2, and 3.11 or newer is needed" in answer.stderr


def test_without_the_venv_module_the_package_that_has_it_is_named(clone: Path) -> None:
    answer = make(clone, "demo", f"PYTHON={interpreter(clone, fails_on='ensurepip')}")
    assert answer.returncode != 0
    assert "apt install python3-venv" in answer.stderr


def test_without_a_network_the_message_says_which_settings_lead_to_one(clone: Path) -> None:
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    nothing_local = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    answer = make(clone, "demo", f"PYTHON={sys.executable}", **unreachable, **nothing_local)
    assert answer.returncode != 0
    assert "packages could not be installed" in answer.stderr
    assert "HTTPS_PROXY" in answer.stderr
    assert not (clone / ".venv" / ".ready").exists()


def test_make_alone_lists_every_target_that_a_person_would_call(clone: Path) -> None:
    answer = make(clone)
    listed = {line.split()[1] for line in answer.stdout.splitlines()}
    assert answer.returncode == 0
    assert {"demo", "test", "run", "check", "clean", "help"} <= listed


@pytest.mark.parametrize("lock", ["uv.txt", "pipelines-test.txt"])
def test_locks_that_overlap_pin_the_same_versions(lock: str) -> None:
    assert pins(ROOT / "requirements" / lock) <= pins(ROOT / "requirements" / "dev.txt")


def pins(lock: Path) -> set[str]:
    return {line.split()[0] for line in lock.read_text().splitlines() if "==" in line.split(" ")[0]}
