"""The whole chain against the truth that the raw scans were made of."""

from pathlib import Path
from typing import Any

import pytest
from harness import Observation

FIGURES = [
    "peak_ratio",
    "flux_ratio",
    "position_error_arcsec",
    "width_arcsec",
    "rms_ratio",
    "broken_pixels_found",
    "good_pixels_flagged",
]


def out_of_band(metrics: dict[str, Any]) -> list[str]:
    return [n for n in FIGURES if not metrics[f"{n}_low"] <= metrics[n] <= metrics[f"{n}_high"]]


@pytest.mark.parametrize("scans", [(1, 2), (1, 2, 3), (1, 2, 4), (4,), (1, 2, 3, 4)])
def test_every_map_of_good_scans_is_in_all_bands(seed_one: Observation, scans: tuple[int, ...]) -> None:
    metrics = seed_one.check(*scans)
    assert out_of_band(metrics) == []
    assert metrics["in_band"] == 1
    assert metrics["broken_pixels_found"] == (8 if 3 in scans else 0)


@pytest.mark.parametrize("scans", [(1, 2), (1, 2, 4), (1, 2, 3, 4)])
def test_so_are_the_maps_of_another_seed(seed_two: Observation, scans: tuple[int, ...]) -> None:
    assert out_of_band(seed_two.check(*scans)) == []


def test_an_old_opacity_pushes_peak_and_flux_out_of_their_bands(
    seed_one: Observation, map_with_old_opacity: Path
) -> None:
    outcome = seed_one.judge(map_with_old_opacity)
    assert outcome.exit_code == 0, "QA reports; who asked decides"
    assert out_of_band(outcome.json("metrics.json")) == ["peak_ratio", "flux_ratio"]


def test_one_scan_in_four_with_an_old_opacity_is_still_seen(seed_one: Observation, old_opacity: Path) -> None:
    others = [seed_one.baselined[number] for number in (2, 3, 4)]
    metrics = seed_one.judge(seed_one.grid(old_opacity, *others)).json("metrics.json")
    assert "peak_ratio" in out_of_band(metrics)


def test_a_skipped_baseline_pushes_the_noise_out_of_its_band(seed_one: Observation) -> None:
    raw = [seed_one.baseline(seed_one.calibrated[number], enabled=False) for number in (1, 2)]
    assert "rms_ratio" in out_of_band(seed_one.judge(seed_one.grid(*raw)).json("metrics.json"))


def test_fail_out_of_band_exits_1_and_names_the_values_after_writing_them(
    seed_one: Observation, map_with_old_opacity: Path
) -> None:
    outcome = seed_one.judge(map_with_old_opacity, fail_out_of_band=True)
    assert outcome.exit_code == 1
    assert outcome.message.startswith("chai check: out of band: peak_ratio = 0.6")
    report = outcome.json("report.json")
    assert [row["name"] for row in report["checks"]] == FIGURES
    assert [row["name"] for row in report["checks"] if not row["ok"]] == ["peak_ratio", "flux_ratio"]
    assert report["scans"] == ["chai-lfa-2026-04-01-0001"]


def test_a_truth_file_of_other_scans_is_refused(
    seed_one: Observation, map_with_old_opacity: Path, tmp_path: Path
) -> None:
    (tmp_path / "truth.json").write_text((seed_one.raw / "truth.json").read_text().replace("-0001", "-0009"))
    upstream = sorted((map_with_old_opacity / "science").iterdir())
    outcome = seed_one.bench.run("chai check", upstream=upstream, truth_file=str(tmp_path / "truth.json"))
    assert outcome.exit_code == 78
    assert "does not know 'chai-lfa-2026-04-01-0001'" in outcome.message
