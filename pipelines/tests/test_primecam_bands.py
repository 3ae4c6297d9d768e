"""The whole chain against the truth that the raw scans were made of, and against what must not happen."""

import json
from pathlib import Path
from typing import Any

import pytest
from camera import Camera
from harness import Outcome

FIGURES = [
    "nefd_ratio",
    "responsivity_ratio",
    "responsivity_scatter",
    "broken_detectors_dropped",
    "good_detectors_dropped",
    "bright_flux_ratio",
    "faint_flux_pull",
    "sources_found",
    "sources_too_many",
    "null_pull",
    "empty_pull",
]
FOR_EVER = 1e5


def out_of_band(metrics: dict[str, Any]) -> list[str]:
    return [name for name in FIGURES if not metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]]


def brightest(fitted: Path) -> float:
    flux: float = json.loads((fitted / "qa" / "metrics.json").read_text())["brightest_jy"]
    return flux


@pytest.fixture(scope="module")
def with_the_wrong_night(camera: Camera) -> Outcome:
    """The check of the first night's scans under the second night's calibration, with the refusal switched off."""
    scans = camera.scans("science", 1)
    mapped = camera.map(camera.second_night, *scans, max_calibration_age_hours=FOR_EVER)
    return camera.check(mapped, camera.fit(mapped))


def test_a_night_is_in_all_bands(camera: Camera) -> None:
    metrics = camera.check(camera.mapped, camera.fitted).json("metrics.json")
    assert out_of_band(metrics) == []
    assert metrics["in_band"] == 1
    assert metrics["broken_detectors_dropped"] == 2


def test_so_is_the_next_night_with_its_own_calibration(camera: Camera) -> None:
    mapped = camera.map(camera.second_night, *camera.scans("science", 2))
    assert out_of_band(camera.check(mapped, camera.fit(mapped)).json("metrics.json")) == []


def test_so_is_a_night_of_another_seed(other_camera: Camera) -> None:
    assert out_of_band(other_camera.check(other_camera.mapped, other_camera.fitted).json("metrics.json")) == []


def test_every_kind_of_fault_was_among_them(camera: Camera, other_camera: Camera) -> None:
    faults = [set(one.truth["broken_detectors"].values()) for one in (camera, other_camera)]
    assert set.union(*faults) == {"no resonance", "response", "noise"}


def test_the_calibration_of_another_night_is_refused(camera: Camera) -> None:
    scan = camera.scans("science", 1)[0]
    outcome = camera.bench.run("primecam map", raw=[scan], auxiliary=[camera.second_night])
    assert outcome.exit_code == 65
    assert outcome.message == (
        f"primecam map: {camera.second_night}: the calibration of night 2026-04-02 is 23.5 h away from scan {scan.stem}"
        ", more than 12 h: calibrate on a planet of the scan's night, or raise max_calibration_age_hours\n"
    )
    assert list(outcome.output.iterdir()) == []


def test_for_a_reason_it_makes_wrong_fluxes_and_the_map_shows_no_sign_of_it(with_the_wrong_night: Outcome) -> None:
    metrics = with_the_wrong_night.json("metrics.json")
    wrong = ["nefd_ratio", "responsivity_ratio", "bright_flux_ratio", "faint_flux_pull"]
    assert [name for name in out_of_band(metrics) if name != "responsivity_scatter"] == wrong
    assert metrics["bright_flux_ratio"] > 1.25
    assert metrics["null_pull"] == pytest.approx(1, abs=0.05)


def test_a_report_says_what_is_out_of_band(with_the_wrong_night: Outcome) -> None:
    assert with_the_wrong_night.exit_code == 0, "QA reports; who asked decides"
    report = with_the_wrong_night.json("report.json")
    assert [row["name"] for row in report["checks"]] == FIGURES
    assert "bright_flux_ratio" in [row["name"] for row in report["checks"] if not row["ok"]]
    assert report["scans"] == [f"prime-cam-280ghz-2026-04-01-{number:04}" for number in (2, 3, 4)]


def test_fail_out_of_band_exits_1_and_names_the_values_after_writing_them(camera: Camera) -> None:
    fitted = camera.fit(camera.mapped, detection_threshold=100)
    outcome = camera.check(camera.mapped, fitted, fail_out_of_band=True)
    assert outcome.exit_code == 1
    assert outcome.message.startswith(
        "primecam check: out of band: faint_flux_pull = 200 not in 0…3.5, sources_found = "
    )
    assert outcome.json("metrics.json")["in_band"] == 0


def test_fluxes_are_low_without_the_pixel_window(camera: Camera) -> None:
    pointed = camera.fit(camera.mapped, pixel_window=False)
    assert 0.95 < brightest(pointed) / brightest(camera.fitted) < 0.99


def test_fluxes_are_low_while_sources_are_still_in_the_common_mode(camera: Camera) -> None:
    once = camera.fit(camera.map(camera.first_night, *camera.scans("science", 1), iterations=1))
    assert 0.95 < brightest(once) / brightest(camera.fitted) < 0.995


def test_a_truth_file_of_other_scans_is_refused(camera: Camera, tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(Path(camera.truth_file).read_text().replace("-0003", "-0009"))
    outcome = camera.check(camera.mapped, camera.fitted, truth_file=str(tmp_path / "truth.json"))
    assert outcome.exit_code == 78
    assert "does not know 'prime-cam-280ghz-2026-04-01-0003'" in outcome.message
    assert "give the truth.json that `primecam make-raw` wrote" in outcome.message


def test_a_map_without_sources_is_none_that_is_in_its_bands(camera: Camera) -> None:
    blind = camera.fit(camera.mapped, detection_threshold=1000)
    metrics = camera.check(camera.mapped, blind).json("metrics.json")
    assert (metrics["sources_found"], metrics["bright_flux_ratio"]) == (0, 0)
    assert {"bright_flux_ratio", "faint_flux_pull", "sources_found"} <= set(out_of_band(metrics))
