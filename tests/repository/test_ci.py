"""What `.ci/run` promises, with a `make` that only writes down how it was called."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bin_directory(tmp_path: Path) -> Path:
    make = tmp_path / "make"
    make.write_text(
        "#!/bin/sh\n"
        'echo "make $*, CCAT_REQUIRE_ALL=$CCAT_REQUIRE_ALL, input: $(cat)"\n'
        'if [ "$*" = "$FAILS" ]; then exit 7; fi\n'
    )
    make.chmod(0o755)
    return tmp_path


def ci_run(bin_directory: Path, *, fails: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{bin_directory}:{os.environ['PATH']}", "FAILS": fails, "CI": "true"}
    return subprocess.run(
        ["bash", ".ci/run"], cwd=ROOT, env=environment, input="typed", capture_output=True, text=True, check=False
    )


def calls(answer: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in answer.stdout.splitlines() if "CCAT_REQUIRE_ALL" in line]


def test_ci_checks_tests_and_demos_skipping_nothing_and_reading_no_input(bin_directory: Path) -> None:
    answer = ci_run(bin_directory)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert calls(answer) == [
        f"make {target}, CCAT_REQUIRE_ALL=1, input: " for target in ("set-up", "check", "test", "demo")
    ]
    assert "Everything passed." in answer.stdout
    assert " s  make test" in answer.stdout


@pytest.mark.parametrize(("fails", "called"), [("check", 2), ("test", 3), ("demo", 4)])
def test_ci_ends_at_the_first_failure_with_its_status_and_names_it(
    bin_directory: Path, fails: str, called: int
) -> None:
    answer = ci_run(bin_directory, fails=fails)
    assert answer.returncode == 7
    assert len(calls(answer)) == called
    assert f"make {fails} failed with status 7" in answer.stdout
    assert "Everything passed." not in answer.stdout
