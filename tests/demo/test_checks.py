from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from ccat.demo.checks import (
    Run,
    Value,
    lineage_deviations,
    repeated_products,
    run_deviations,
    science_deviations,
    science_values,
    subject_of,
)
from ccat.demo.story import CHECK, FIGURES, STORY, ExpectedRun
from ccat_ops_db.states import RunReason

EXPECTED = [
    ExpectedRun("grid", "all scans", RunReason.MISSING),
    ExpectedRun("grid-night", "night 1", RunReason.MISSING),
]
IN_BAND = [Value(name, 1.0, 0.5, 1.5) for name in FIGURES]


def made(step: str, subject: str, **other: Any) -> Run:
    values: dict[str, Any] = {"id": 1, "status": "completed", "reason": "missing", "because": "", "version": "1.0.0"}
    return Run(step=step, subject=subject, created_at=datetime.now(UTC), **values | other)


def test_the_expected_runs_in_any_order_are_no_deviation() -> None:
    assert run_deviations(EXPECTED, [made("grid-night", "night 1"), made("grid", "all scans")]) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([], "grid: expected 1 run, found 0 runs, not made: all scans (1.0.0, missing)"),
        (
            [made("grid", "all scans"), made("grid", "all scans", reason="inputs_changed")],
            "grid: expected 1 run, found 2 runs, not expected: all scans (1.0.0, inputs_changed)",
        ),
        (
            [made("grid", "all scans", version="1.1.0")],
            (
                "grid: expected 1 run, found 1 run, not made: all scans (1.0.0, missing), "
                "not expected: all scans (1.1.0, missing)"
            ),
        ),
        (
            [made("grid", "all scans", status="failed", failure="exit code 65")],
            (
                "grid: expected 1 run, found 1 run, not made: all scans (1.0.0, missing), "
                "not expected: all scans (1.0.0, missing) failed (exit code 65)"
            ),
        ),
        (
            [made("grid", "all scans", status="cancelled"), made("grid", "all scans")],
            "grid: expected 1 run, found 2 runs, not expected: all scans (1.0.0, missing) cancelled",
        ),
    ],
)
def test_what_is_missing_repeated_other_or_unfinished_is_told(found: list[Run], told: str) -> None:
    assert run_deviations(EXPECTED, [*found, made("grid-night", "night 1")]) == [told]


def test_a_step_that_should_not_run_is_told() -> None:
    found = [made("grid", "all scans"), made("grid-night", "night 1"), made("calibrate", "scan 1")]
    told = "calibrate: expected 0 runs, found 1 run, not expected: scan 1 (1.0.0, missing)"
    assert run_deviations(EXPECTED, found) == [told]


@pytest.mark.parametrize(
    ("key", "subject"),
    [
        ("executed_obs_unit=043ef9e4-42bb-54ea-9712-acf1161f13c0", "scan 1"),
        ("source=7,observing_night=2026-04-01", "night 1"),
        ("source=7", "all scans"),
        (
            "executed_obs_unit=00000000-0000-0000-0000-000000000000",
            "executed_obs_unit=00000000-0000-0000-0000-000000000000",
        ),
    ],
)
def test_sub_groups_have_the_names_of_the_story(key: str, subject: str) -> None:
    names = {"043ef9e4-42bb-54ea-9712-acf1161f13c0": "scan 1", "2026-04-01": "night 1", "source": "all scans"}
    assert subject_of(key, names) == subject


def test_science_values_are_those_metrics_of_the_newest_check_that_have_a_band() -> None:
    metrics = {"in_band": 1, "rms_ratio": 1.01, "rms_ratio_low": 0.96, "rms_ratio_high": 1.04}
    runs = [made(CHECK, "all scans", metrics={}), made(CHECK, "all scans", metrics=metrics), made("grid", "all scans")]
    assert science_values(runs) == [Value("rms_ratio", 1.01, 0.96, 1.04)]


def test_values_in_their_bands_are_no_deviation() -> None:
    assert science_deviations(IN_BAND) == []


@pytest.mark.parametrize("value", [0.49, 1.51, float("nan")])
def test_a_value_outside_of_its_band_is_told(value: float) -> None:
    told = f"{FIGURES[0]}: expected 0.5 … 1.5, found {value:g}"
    assert science_deviations([Value(FIGURES[0], value, 0.5, 1.5), *IN_BAND[1:]]) == [told]


def test_an_absent_value_is_told() -> None:
    assert science_deviations(IN_BAND[1:]) == [f"{FIGURES[0]}: expected a value, found none"]


def test_a_product_that_is_current_twice_is_told() -> None:
    product = {"step": "grid", "sub_group": {"source": "Orion"}, "path": "science/cube.fits"}
    assert repeated_products([product, {**product, "path": "science/moment0.fits"}]) == []
    [told] = repeated_products([product, product])
    assert told.startswith("grid: expected one current science/cube.fits")


@pytest.mark.parametrize("raw", [{"2.fits": "sha256:b"}, {"1.fits": "sha256:c"}])
def test_a_raw_file_that_the_lineage_does_not_lead_to_is_told(raw: Mapping[str, str]) -> None:
    lineage = {"packages": {"1": {"files": [{"path": "2026-04-01/1.fits", "checksum": "sha256:a"}]}}}
    assert lineage_deviations(lineage, {"1.fits": "sha256:a"}) == []
    assert len(lineage_deviations(lineage, raw)) == 1


def test_the_story_expects_twenty_five_runs_and_every_scan_is_observed_and_arrives_once() -> None:
    assert [len(act.expected) for act in STORY] == [7, 5, 5, 8]
    assert sorted(number for act in STORY for number in act.observed) == [1, 2, 3, 4]
    assert sorted(number for act in STORY for number in act.arriving) == [1, 2, 3, 4]
