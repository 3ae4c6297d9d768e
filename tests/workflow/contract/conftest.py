import subprocess
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from ccat.cli.contract_testing import find_strace
from ccat_workflow_manager.contract.examining import examine
from ccat_workflow_manager.contract.images import bring
from ccat_workflow_manager.contract.values import Finding, Point, Report, Subject
from tests.apptainer import OPTIONS, PROGRAMS, build, make_sandbox, require_apptainer
from tests.chai_image import ENVIRONMENT
from tests.needs import give_up

READ: Final = """
fail() { echo "reduction: $2" >&2; exit "$1"; }
[ -f "$WORKFLOW_MANIFEST" ] || fail 78 "there is no manifest at $WORKFLOW_MANIFEST"
! grep -q parameter_that_nobody_knows "$WORKFLOW_MANIFEST" || fail 78 "no such parameter"
"""
CHECK: Final = """
for file in "$WORKFLOW_INPUT_DIR"/raw/*/*; do
    sum=$(sha256sum <"$file")
    grep -q "sha256:${sum%% *}" "$WORKFLOW_MANIFEST" || fail 65 "$file is not what was registered"
done
"""
WRITE: Final = """
cat "$WORKFLOW_INPUT_DIR"/raw/*/scan.txt >"$WORKFLOW_OUTPUT_DIR/copy.txt"
"""
GOOD: Final = READ + CHECK + WRITE
"""A reduction in a few lines that keeps the contract."""

Examine = Callable[..., Report]


@pytest.fixture
def strace() -> str:
    return find_strace() or give_up("no strace here, or none that may trace: apt-get install strace")


@pytest.fixture
def examined(tmp_path: Path) -> Examine:
    """What is found of a command, or of a script for `sh`."""

    def of(*command: str, strace: str | None = None, **given: Any) -> Report:
        words = ("/bin/sh", "-c", *command) if len(command) == 1 else command
        subject = Subject(**{"command": words, "grace": timedelta(seconds=0.5), **given})
        return examine(subject, tmp_path / "test", tell=lambda _trial, _seen: None, strace=strace)

    return of


@pytest.fixture(scope="session")
def reducing_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SIF file in which the scripts here run."""
    require_apptainer()
    directory = tmp_path_factory.mktemp("reducing")
    return build(directory / "small.sif", make_sandbox(directory / "sandbox", (*PROGRAMS, "sha256sum", "grep")))


@pytest.fixture
def examined_in_image(examined: Examine, reducing_image: Path, tmp_path: Path) -> Examine:
    """The same, in an image."""
    return lambda *command: examined(*command, image=bring(str(reducing_image), tmp_path), apptainer_options=OPTIONS)


def require_reductions() -> None:
    """End the test where the reductions of pipelines/ are not installed."""
    if not (ENVIRONMENT / "bin/chai").exists():
        give_up("no environment of the reductions here: make set-up")


@pytest.fixture(scope="package")
def raw_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated scan."""
    require_reductions()
    folder = tmp_path_factory.mktemp("raw")
    subprocess.run([ENVIRONMENT / "bin/chai", "make-raw", "--seed", "1", "--scans", "1", "--out", folder], check=True)
    [scan] = folder.glob("*.fits")
    return scan


def found(report: Report) -> Mapping[Point, Finding]:
    """The findings by their points."""
    return {one.point: one for one in report.findings}
