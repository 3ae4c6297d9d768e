"""The reduction of CHAI in an image, through the command as a team types it."""

from pathlib import Path

import pytest

from ccat_workflow_manager.contract.values import Point, Trial, Verdict
from tests.apptainer import OPTIONS
from tests.chai_image import build_chai_image
from tests.workflow.contract.conftest import require_reductions
from tests.workflow.contract.test_command import of_json

COPY = 'cat "$WORKFLOW_INPUT_DIR"/raw/*/*.fits >"$WORKFLOW_OUTPUT_DIR/calibrated.fits"'
"""A program that never looks at what it copies."""


@pytest.fixture(scope="module")
def options(small_image: Path, tmp_path_factory: pytest.TempPathFactory, raw_scan: Path) -> list[str | Path]:
    """What comes before the command; the image and its inputs among it."""
    assert small_image.exists()  # there is an Apptainer, and it runs
    require_reductions()
    image = build_chai_image(tmp_path_factory.mktemp("image"))
    allowed = [f"--apptainer-option={one}" for one in OPTIONS]
    return [*allowed, "--required-output", "calibrated.fits", "--raw", raw_scan, image, "--"]


def test_the_image_of_the_reference_reduction_keeps_every_point(options: list[str | Path]) -> None:
    told = of_json(*options, "chai", "calibrate")
    others = {one["point"]: one["said"] for one in told["points"] if one["verdict"] != Verdict.KEPT}
    assert others == {Point.NETWORK: "nobody sees this from outside of an image"}
    assert (told["verdict"], [one["point"] for one in told["points"]]) == (Verdict.KEPT, list(Point))
    codes = {one["trial"]: one["exit_code"] for one in told["trials"]}
    assert codes.pop(Trial.TERMINATION) != 0
    assert codes == {
        Trial.RUN: 0,
        Trial.AGAIN: 0,
        Trial.UNKNOWN_PARAMETER: 78,
        Trial.MISSING_MANIFEST: 78,
        Trial.DAMAGED_INPUT: 65,
    }
    [version] = told["definition"]["software"][0]["versions"]
    assert (version["command"], version["image_digest"]) == (["chai", "calibrate"], told["image"]["digest"])


def test_the_same_image_breaks_points_with_a_program_that_does_not_look_at_its_data(options: list[str | Path]) -> None:
    told = of_json(*options, "sh", "-c", COPY)
    broken = {one["point"] for one in told["points"] if one["verdict"] == Verdict.BROKEN}
    assert (told["verdict"], broken) == (Verdict.BROKEN, {Point.MISSING_MANIFEST, Point.DAMAGED_INPUT})
