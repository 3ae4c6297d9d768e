"""What a step reads from its manifest and environment, and how it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from harness import Bench, package


@pytest.mark.parametrize(
    "case",
    [
        ({"opacty": 0.4}, "no parameter 'opacty': the nearest is 'opacity'"),
        ({"opacity": "high"}, "'opacity' must be a number or null, not 'high'"),
        ({"opacity": True}, "'opacity' must be a number or null, not True"),
        ({"opacity": float("nan")}, "'opacity' must be a number or null, not nan"),
        ({"opacity": -1}, "'opacity' must be between 0 and 5, not -1.0"),
    ],
)
def test_a_wrong_parameter_exits_78_and_is_named(bench: Bench, small_raw: Path, case: Any) -> None:
    parameters, said = case
    outcome = bench.run("chai calibrate", raw=[small_raw], **parameters)
    assert outcome.exit_code == 78
    assert said in outcome.message
    assert outcome.message.startswith("chai calibrate: ")
    assert outcome.message.count("\n") == 1


STEPS = {
    "chai": ["calibrate", "baseline", "grid", "check"],
    "gbt": ["getps"],
    "primecam": ["calibrate-planet", "map", "fit", "check"],
}


@pytest.mark.parametrize("step", [f"{program} {step}" for program, steps in STEPS.items() for step in steps])
def test_every_step_refuses_an_unknown_parameter(bench: Bench, step: str) -> None:
    outcome = bench.run(step, colour="red")
    assert outcome.exit_code == 78
    assert "no parameter 'colour'" in outcome.message


def test_a_line_window_as_wide_as_the_band_exits_78(bench: Bench, small_raw: Path) -> None:
    calibrated = bench.run("chai calibrate", raw=[small_raw]).output / "calibrated.fits"
    outcome = bench.run("chai baseline", upstream=[calibrated], line_half_width_kms=1000)
    assert outcome.exit_code == 78
    assert "line_half_width_kms 1000 leaves less than a quarter of the band: narrow it" in outcome.message


def test_a_missing_parameter_is_named(bench: Bench) -> None:
    outcome = bench.run("chai check")
    assert outcome.exit_code == 78
    assert "'truth_file' must be given" in outcome.message


def test_whole_numbers_do_for_numbers_and_null_for_the_header_value(bench: Bench, small_raw: Path) -> None:
    assert bench.run("chai calibrate", raw=[small_raw], opacity=1, forward_efficiency=None).exit_code == 0


def test_a_missing_manifest_is_named(bench: Bench, tmp_path: Path) -> None:
    environ = {"WORKFLOW_MANIFEST": str(tmp_path / "absent.json"), "WORKFLOW_OUTPUT_DIR": str(tmp_path)}
    outcome = bench.execute("chai", "calibrate", environ)
    assert outcome.exit_code == 78
    assert f"{tmp_path / 'absent.json'}: cannot be read" in outcome.message


def test_an_unset_variable_is_named(bench: Bench) -> None:
    outcome = bench.execute("chai", "calibrate", {})
    assert outcome.exit_code == 78
    assert "WORKFLOW_MANIFEST: this environment variable is not set" in outcome.message


@pytest.mark.parametrize(
    "case",
    [("{", "is not JSON"), ("{}", "has no 'step'"), ("[]", "is not of the published form")],
)
def test_a_broken_manifest_is_named(bench: Bench, tmp_path: Path, case: tuple[str, str]) -> None:
    text, said = case
    (tmp_path / "manifest.json").write_text(text)
    environ = {"WORKFLOW_MANIFEST": str(tmp_path / "manifest.json"), "WORKFLOW_OUTPUT_DIR": str(tmp_path)}
    outcome = bench.execute("chai", "grid", environ)
    assert outcome.exit_code == 78
    assert said in outcome.message


def test_inputs_may_be_relative_and_in_a_file_of_lines(bench: Bench, small_raw: Path) -> None:
    entry = {"role": "raw", **package(small_raw), "path": "."}
    environ = bench.prepare("calibrate", inputs={"file": "inputs.jsonl"}, parameters={}, final=False)
    Path(environ["WORKFLOW_MANIFEST"]).with_name("inputs.jsonl").write_text(json.dumps(entry) + "\n")
    outcome = bench.execute("chai", "calibrate", {**environ, "WORKFLOW_INPUT_DIR": str(small_raw.parent)})
    assert (outcome.exit_code, outcome.message) == (0, "")
    assert [path.name for path in outcome.output.iterdir()] == ["calibrated.fits"]


def test_a_final_step_sorts_its_products(bench: Bench, small_raw: Path) -> None:
    outcome = bench.run("chai calibrate", raw=[small_raw], final=True)
    assert (outcome.output / "science" / "calibrated.fits").is_file()


def test_a_step_may_be_called_anything(bench: Bench, small_raw: Path) -> None:
    environ = bench.prepare("Größe", inputs={"raw": [package(small_raw)]}, parameters={}, final=False)
    outcome = bench.execute("chai", "calibrate", environ)
    assert (outcome.exit_code, outcome.message) == (0, "")


def test_two_scans_for_one_calibration_are_refused(bench: Bench, small_raw: Path) -> None:
    outcome = bench.run("chai calibrate", raw=[small_raw, small_raw])
    assert outcome.exit_code == 78
    assert "wants one raw file named *.fits among its inputs, found 2: group the step by" in outcome.message


def test_an_input_that_is_not_there_exits_65(bench: Bench, small_raw: Path) -> None:
    entry = {"path": str(small_raw.parent), "files": [{"path": "gone.fits", "checksum": "sha256:0"}]}
    environ = bench.prepare("calibrate", inputs={"raw": [entry]}, parameters={}, final=False)
    outcome = bench.execute("chai", "calibrate", environ)
    assert outcome.exit_code == 65
    assert "gone.fits: cannot be read (No such file or directory)" in outcome.message
