from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from ccat.demo.checks import (
    Run,
    Value,
    Wait,
    absent_maps,
    lineage_deviations,
    repeated_products,
    run_deviations,
    science_deviations,
    science_values,
    subject_of,
    wait_deviations,
)
from ccat.demo.instruments import CHAI, INSTRUMENTS, Instrument
from ccat.demo.story import ALL_SCANS, CHECK, STORY, ExpectedRun, ExpectedWait
from ccat_ops_db.states import RunReason

EXPECTED = [
    ExpectedRun("CHAI", "grid", "all scans", RunReason.MISSING),
    ExpectedRun("CHAI", "grid-night", "night 1", RunReason.MISSING),
]
WAITS = [ExpectedWait("prime-cam-maps", "map", "night 1", "waits for calibration of ")]
NAMES = [one.name for one in INSTRUMENTS]


def checked(instrument: Instrument) -> list[ExpectedRun]:
    return [ExpectedRun(instrument.name, CHECK, ALL_SCANS, RunReason.MISSING)]


def value(name: str, found: float = 1.0, *, of: str = CHAI.name) -> Value:
    return Value(instrument=of, subject=ALL_SCANS, name=name, value=found, low=0.5, high=1.5)


def in_band(instrument: Instrument) -> list[Value]:
    return [value(name, of=instrument.name) for name in instrument.figures]


def made(step: str, subject: str, **other: Any) -> Run:
    values: dict[str, Any] = {"id": 1, "status": "completed", "reason": "missing", "because": "", "version": "1.0.0"}
    values |= {"instrument": CHAI.name, "created_at": datetime.now(UTC)}
    return Run(step=step, subject=subject, **values | other)


def waits(because: str = "waits for calibration of flat", **other: str) -> Wait:
    values = {"pipeline": "prime-cam-maps", "step": "map", "subject": "night 1", "because": because}
    return Wait(**values | other)


def test_the_expected_runs_in_any_order_are_no_deviation() -> None:
    assert run_deviations(EXPECTED, [made("grid-night", "night 1"), made("grid", "all scans")]) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([], "CHAI grid: expected 1 run, found 0 runs, not made: all scans (1.0.0, missing)"),
        (
            [made("grid", "all scans"), made("grid", "all scans", reason="inputs_changed")],
            "CHAI grid: expected 1 run, found 2 runs, not expected: all scans (1.0.0, inputs_changed)",
        ),
        (
            [made("grid", "all scans", version="1.1.0")],
            (
                "CHAI grid: expected 1 run, found 1 run, not made: all scans (1.0.0, missing), "
                "not expected: all scans (1.1.0, missing)"
            ),
        ),
        (
            [made("grid", "all scans", status="failed", failure="exit code 65")],
            (
                "CHAI grid: expected 1 run, found 1 run, not made: all scans (1.0.0, missing), "
                "not expected: all scans (1.0.0, missing) failed (exit code 65)"
            ),
        ),
        (
            [made("grid", "all scans", status="cancelled"), made("grid", "all scans")],
            "CHAI grid: expected 1 run, found 2 runs, not expected: all scans (1.0.0, missing) cancelled",
        ),
    ],
)
def test_what_is_missing_repeated_other_or_unfinished_is_told(found: list[Run], told: str) -> None:
    assert run_deviations(EXPECTED, [*found, made("grid-night", "night 1")]) == [told]


def test_a_step_that_should_not_run_is_told() -> None:
    found = [made("grid", "all scans"), made("grid-night", "night 1"), made("calibrate", "scan 1")]
    told = "CHAI calibrate: expected 0 runs, found 1 run, not expected: scan 1 (1.0.0, missing)"
    assert run_deviations(EXPECTED, found) == [told]


def test_steps_of_the_same_name_are_told_apart_by_their_instrument() -> None:
    told = [
        "CHAI check: expected 1 run, found 0 runs, not made: all scans (1.0.0, missing)",
        "Prime-Cam check: expected 0 runs, found 1 run, not expected: all scans (1.0.0, missing)",
    ]
    assert run_deviations(checked(CHAI), [made(CHECK, ALL_SCANS, instrument="Prime-Cam")]) == told


def test_what_waits_for_the_expected_is_no_deviation() -> None:
    assert wait_deviations(WAITS, [waits()]) == []


@pytest.mark.parametrize("other", [waits(step="fit"), waits(subject="night 2"), waits("waits for a version")])
def test_what_does_not_wait_and_what_waits_unexpectedly_is_told(other: Wait) -> None:
    absent = "Prime-Cam map of night 1 waits for calibration of …: expected, not found"
    assert wait_deviations(WAITS, []) == [absent]
    assert wait_deviations(WAITS, [waits(), other]) == [f"{other}: found, not expected"]
    assert wait_deviations(WAITS, [other]) == [absent, f"{other}: found, not expected"]


@pytest.mark.parametrize(
    ("key", "subject"),
    [
        ("executed_obs_unit=043ef9e4-42bb-54ea-9712-acf1161f13c0", "scan 1"),
        ("source=7,observing_night=2026-04-01", "night 1"),
        ("source=7", "all scans"),
        ("source=8,observing_night=2026-04-01,instrument_module=3", "night 1"),
        ("observing_night=2026-04-01,instrument_module=3", "night 1"),
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
    of_map: dict[str, Any] = {"subject": ALL_SCANS, "name": "rms_ratio", "value": 1.01, "low": 0.96, "high": 1.04}
    assert science_values(runs) == [Value(instrument="CHAI", **of_map)]
    both = [made(CHECK, "all scans", metrics=metrics, instrument="Prime-Cam"), *runs]
    assert science_values(both) == [Value(instrument=name, **of_map) for name in ("CHAI", "Prime-Cam")]


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=NAMES)
def test_values_in_their_bands_are_no_deviation(instrument: Instrument) -> None:
    assert science_deviations(checked(instrument), in_band(instrument)) == []


@pytest.mark.parametrize("found", [0.49, 1.51, float("nan")])
@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=NAMES)
def test_a_value_outside_of_its_band_is_told(instrument: Instrument, found: float) -> None:
    first, *others = in_band(instrument)
    told = f"{instrument.name} all scans, {first.name}: expected 0.5 … 1.5, found {found:g}"
    out_of_band = value(first.name, found, of=instrument.name)
    assert science_deviations(checked(instrument), [out_of_band, *others]) == [told]


@pytest.mark.parametrize("instrument", INSTRUMENTS, ids=NAMES)
def test_an_absent_value_is_told(instrument: Instrument) -> None:
    first, *others = in_band(instrument)
    told = f"{instrument.name} all scans, {first.name}: expected a value, found none"
    assert science_deviations(checked(instrument), others) == [told]


def test_values_of_one_map_do_not_stand_for_those_of_another() -> None:
    night = ExpectedRun(CHAI.name, CHECK, "night 1", RunReason.MISSING)
    assert len(science_deviations([*checked(CHAI), night], in_band(CHAI))) == len(CHAI.figures)


def test_a_product_that_is_current_twice_is_told() -> None:
    product = {"pipeline": "chai-co43", "step": "grid", "sub_group": {"source": "Orion"}, "path": "science/cube.fits"}
    assert repeated_products([product, {**product, "path": "science/moment0.fits"}]) == []
    [told] = repeated_products([product, product])
    assert told.startswith("chai-co43/grid: expected one current science/cube.fits")


def test_a_checked_map_that_is_not_current_is_told() -> None:
    assert absent_maps(in_band(CHAI), [("CHAI", ALL_SCANS)]) == []
    assert absent_maps(in_band(CHAI), []) == ["CHAI all scans: expected a current map, found none"]


@pytest.mark.parametrize("raw", [{"2.fits": "sha256:b"}, {"1.fits": "sha256:c"}])
def test_a_raw_file_that_the_lineage_does_not_lead_to_and_one_of_another_map_are_told(raw: Mapping[str, str]) -> None:
    lineage = {"packages": {"1": {"files": [{"path": "2026-04-01/1.fits", "checksum": "sha256:a"}]}}}
    assert lineage_deviations(lineage, {"1.fits": "sha256:a"}, of="a map") == []
    [(name, checksum)] = raw.items()
    assert lineage_deviations(lineage, raw, of="a map") == [
        f"lineage of a map: expected the raw file {name} with {checksum}, found none",
        "lineage of a map: expected nothing else, found the raw file 1.fits with sha256:a",
    ]


def test_the_story_expects_thirty_three_runs_and_every_scan_is_observed_and_arrives_once() -> None:
    of_chai = [f"scan {number}" for number in (1, 2, 3, 4)]
    of_prime_cam = [
        *(f"planet scan {number}" for number in (1, 2)),
        *(f"science scan {number}" for number in range(1, 7)),
    ]
    assert [len(act.expected) for act in STORY] == [7, 9, 9, 8]
    assert sorted(name for act in STORY for name in act.observed) == sorted([*of_chai, *of_prime_cam])
    assert sorted(name for act in STORY for name in act.arriving) == sorted([*of_chai, *of_prime_cam])


def test_the_map_waits_for_the_calibration_of_its_own_night() -> None:
    assert [[one.step for one in act.waiting] for act in STORY] == [["map", "fit", CHECK]] * 2 + [[], []]
