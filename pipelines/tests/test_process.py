"""Steps as processes of their own, started as an image or an environment starts them."""

import sys
from pathlib import Path

import pytest
from harness import BIN, Bench, package


@pytest.mark.parametrize("start", [[str(BIN / "chai")], [sys.executable, "-m", "ccat_pipelines.chai"]])
def test_a_step_runs_as_a_process(bench: Bench, small_raw: Path, start: list[str]) -> None:
    environ = bench.prepare("calibrate", inputs={"raw": [package(small_raw)]}, parameters={}, final=False)
    outcome = bench.spawn([*start, "calibrate"], environ)
    assert (outcome.exit_code, outcome.message) == (0, "")
    assert (outcome.output / "calibrated.fits").is_file()


def test_a_process_exits_with_the_code_of_its_error(bench: Bench) -> None:
    environ = bench.prepare("getps", inputs={"raw": []}, parameters={}, final=True)
    outcome = bench.spawn([str(BIN / "gbt"), "getps"], environ)
    assert outcome.exit_code == 78
    assert outcome.message.startswith("gbt getps: wants raw files named *.fits among its inputs, found 0")


def test_an_unknown_step_exits_2(bench: Bench) -> None:
    outcome = bench.spawn([str(BIN / "chai"), "calibrat"], {"WORKFLOW_OUTPUT_DIR": ""})
    assert outcome.exit_code == 2
    assert "calibrate" in outcome.message
