"""What each step of the camera does with its inputs, beside the science."""

import json
from datetime import datetime, timedelta
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from camera import Camera, Workshop, content, files
from harness import BIN, Bench
from PIL import Image


def test_the_same_inputs_make_the_same_bytes(shop: Workshop) -> None:
    again = shop.calibrate(shop.small.planet)
    assert (again.output / "science" / "calibration.fits").read_bytes() == shop.small.calibration.read_bytes()
    maps = [shop.map(*scans).output for scans in (shop.small.science, shop.small.science[::-1])]
    fitted = [shop.bench.run("primecam fit", upstream=files(one, "science"), final=True).output for one in maps]
    for first, second in (maps, fitted):
        written = [path.relative_to(first) for path in sorted(first.rglob("*")) if path.is_file()]
        assert {str(path.parent) for path in written} >= {"plots", "qa", "science"}
        for file in written:
            assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_the_same_seed_makes_the_same_scans_whatever_the_number_of_nights(camera: Camera, bench: Bench) -> None:
    arguments = ["make-raw", "--seed", "1", "--out", str(bench.root)]
    outcome = bench.spawn([str(BIN / "primecam"), *arguments], {"WORKFLOW_OUTPUT_DIR": ""})
    assert outcome.exit_code == 0, outcome.message
    described = json.loads((bench.root / "scans.json").read_text())["scans"]
    assert described == camera.described[:4]
    for scan in described:
        assert (bench.root / scan["file"]).read_bytes() == (camera.raw / scan["file"]).read_bytes()


def test_every_night_has_a_planet_and_three_science_scans(camera: Camera) -> None:
    scans = camera.described
    assert [scan["observing_night"] for scan in scans] == [*4 * ["2026-04-01"], *4 * ["2026-04-02"]]
    assert [scan["kind"] for scan in scans] == 2 * ["planet", *3 * ["science"]]
    assert [(scan["source"], scan["observation"]) for scan in scans[:2]] == [
        ("Demo planet", "demo-planet"),
        ("Demo field", "demo-field"),
    ]
    assert scans[0]["start"] == "2026-04-02T02:00:00+00:00"
    assert {scan["instrument_module"] for scan in scans} == {"280GHz"}
    assert all(7e6 < (camera.raw / scan["file"]).stat().st_size < 9e6 for scan in scans)
    times = [datetime.fromisoformat(scan["start"]) for scan in scans]
    assert times[4] - times[3] > timedelta(hours=12), "no scan has a planet of another night within half a day"


def test_responsivity_is_another_one_every_night(camera: Camera) -> None:
    first, second = (np.array(list(night.values())) for night in camera.truth["responsivity_hz_per_jy"].values())
    assert np.median(second / first) < 0.8
    assert np.ptp(first[first > 50] / np.median(first)) > 0.3


def test_a_calibration_says_of_which_night_it_is_how_long_it_is_valid_and_what_is_broken(camera: Camera) -> None:
    with fits.open(camera.first_night) as units:
        header, rows = units["PRIMARY"].header, units["DETECTORS"].data
        said = [header[key] for key in ("NIGHT", "DATE-BEG", "DATE-END", "VALIDHRS")]
        assert said == ["2026-04-01", "2026-04-02T02:00:00.000", "2026-04-02T02:06:00.000", 12]
        assert (header["INSTRUME"], header["MODULE"], header["STEP"]) == ("Prime-Cam", "280GHz", "calibrate-planet")
        faults = {row["DETECTOR"]: row["FAULT"] for row in rows if not row["GOOD"]}
    assert faults == camera.truth["broken_detectors"]


def test_a_product_says_where_it_came_from(camera: Camera) -> None:
    header = fits.getheader(camera.mapped / "science" / "map.fits")
    assert (header["SOFTNAME"], header["SOFTVER"]) == ("ccat-pipelines", version("ccat-pipelines"))
    assert (header["STEP"], header["NINPUTS"]) == ("map", 4), "three scans and their calibration"
    assert f"map {header['SOFTVER']}: pixel_arcsec = 12.0" in list(header["HISTORY"])


def test_map_products_have_a_sky_coordinate_system_tables_and_a_preview(camera: Camera) -> None:
    with fits.open(camera.mapped / "science" / "map.fits") as units:
        assert [units[0].header[f"CTYPE{axis}"] for axis in (1, 2)] == ["RA---TAN", "DEC--TAN"]
        assert units[0].header["BUNIT"] == "Jy/beam"
        assert units[0].data.shape == units["WEIGHT"].data.shape == (130, 130)
        assert len(units["SCANS"].data) == 3
        assert np.count_nonzero(units["DETECTORS"].data["SCANS"] == 3) == 118
    hits = fits.getdata(camera.mapped / "science" / "hits.fits")
    assert 0.9 < hits.sum() / (3 * 118 * 18000) <= 1, "nearly every sample is on the map"
    with Image.open(camera.mapped / "plots" / "map.png") as preview:
        assert preview.size == (512, 588)


def test_sources_are_where_they_were_put(camera: Camera) -> None:
    sky = WCS(fits.getheader(camera.mapped / "science" / "map.fits"), fix=False)
    table = fits.getdata(camera.fitted / "statistics" / "sources.fits", "SOURCES")
    column, row = sky.world_to_pixel_values(table["RA"], table["DEC"])
    for source, x, y in zip(camera.truth["sources"], -12 * (column - 64.5), 12 * (row - 64.5), strict=True):
        if source["flux_jy"] > 0.3:  # brightest first, as in the truth; the two faint ones have the same flux
            assert (x, y) == pytest.approx((source["east_arcsec"], source["north_arcsec"]), abs=2)


def test_two_planet_scans_make_one_calibration(shop: Workshop) -> None:
    later = {"SCANID": "later", "DATE-BEG": "2026-04-02T05:00:00.000", "DATE-END": "2026-04-02T05:06:00.000"}
    second = shop.altered(shop.small.planet, attributes=later)
    outcome = shop.calibrate(shop.small.planet, second)
    assert (outcome.exit_code, outcome.message) == (0, "")
    with fits.open(outcome.output / "science" / "calibration.fits") as two, fits.open(shop.small.calibration) as one:
        assert two["DETECTORS"].data["RESPONSE"] == pytest.approx(one["DETECTORS"].data["RESPONSE"])
        assert [two[0].header[key] for key in ("DATE-BEG", "DATE-END", "NSCANS")] == [
            "2026-04-02T02:00:00.000",
            "2026-04-02T05:06:00.000",
            2,
        ]


def test_twice_the_flux_of_the_planet_is_half_the_responsivity(shop: Workshop) -> None:
    twice = {"planet_flux_jy": 40}
    medians = [shop.calibrate(shop.small.planet, **given).json("metrics.json") for given in (dict[str, Any](), twice)]
    first, second = (one["median_responsivity_hz_per_jy"] for one in medians)
    assert second == pytest.approx(first / 2)


def test_dead_detectors_are_dropped(shop: Workshop) -> None:
    _, data = content(shop.small.planet)
    silent, stuck = {name: data[name].copy() for name in ("ISWEEP", "QSWEEP", "I", "Q")}, 5
    for values in silent.values():
        values[7] = 0
    silent["I"][stuck], silent["Q"][stuck] = 1000, 2000
    dead = shop.altered(shop.small.planet, data=silent)
    outcome = shop.calibrate(dead)
    assert (outcome.exit_code, outcome.message) == (0, "")
    rows = fits.getdata(outcome.output / "science" / "calibration.fits", "DETECTORS")
    usual = fits.getdata(shop.small.calibration, "DETECTORS")
    assert [row["DETECTOR"] for row in rows if row["FAULT"]] == ["kid-0006", "kid-0008"]
    assert not np.any([row["FAULT"] for row in usual])


def test_a_detector_that_dies_after_the_planet_is_left_out_of_that_scan(shop: Workshop) -> None:
    _, data = content(shop.small.science[0])
    silent = {name: data[name].copy() for name in ("I", "Q")}
    for values in silent.values():
        values[7] = 1000
    dead = shop.altered(shop.small.science[0], data=silent)
    outcome = shop.map(dead, shop.small.science[1])
    assert (outcome.exit_code, outcome.message) == (0, "")
    scans = fits.getdata(outcome.output / "science" / "map.fits", "DETECTORS")["SCANS"]
    assert scans.tolist() == [1 if detector == 7 else 2 for detector in range(24)]


def test_a_camera_that_saw_nothing_is_refused(shop: Workshop) -> None:
    _, data = content(shop.small.planet)
    dark = shop.altered(shop.small.planet, data={"I": 0 * data["I"], "Q": 0 * data["Q"]})
    outcome = shop.calibrate(dark)
    assert outcome.exit_code == 65
    assert f"{dark}: no good detector: 0 of 24 have a resonance and a signal" in outcome.message


def test_science_scans_are_no_planet(shop: Workshop) -> None:
    outcome = shop.calibrate(shop.small.science[0])
    assert outcome.exit_code == 78
    assert "is a scan of kind 'science', not of a planet: group planet scans by observing_night" in outcome.message


def test_planet_scans_of_two_nights_are_refused(shop: Workshop) -> None:
    other = shop.altered(shop.small.planet, attributes={"SCANID": "b", "NIGHT": "2026-04-02"})
    outcome = shop.calibrate(shop.small.planet, other)
    assert outcome.exit_code == 78
    assert "the scans differ in NIGHT: " in outcome.message


@pytest.mark.parametrize("step", ["calibrate-planet", "map"])
def test_a_scan_that_is_there_twice_is_refused(shop: Workshop, step: str) -> None:
    scan = shop.small.planet if step == "calibrate-planet" else shop.small.science[0]
    outcome = shop.calibrate(scan, scan) if step == "calibrate-planet" else shop.map(scan, scan)
    assert outcome.exit_code == 65
    assert f"scan {scan.stem} is already among the inputs: withdraw one of the two" in outcome.message


def test_scans_of_two_sources_are_refused(shop: Workshop) -> None:
    other = shop.altered(shop.small.science[1], attributes={"OBJECT": "Other field"})
    outcome = shop.map(shop.small.science[0], other)
    assert outcome.exit_code == 78
    assert "the scans differ in OBJECT: " in outcome.message
    assert "group science scans by source" in outcome.message


def test_a_map_beside_its_scans_is_refused(shop: Workshop) -> None:
    _, data = content(shop.small.science[0])
    astray = shop.altered(shop.small.science[0], data={"DEC": data["DEC"] + 5})
    outcome = shop.map(astray)
    assert outcome.exit_code == 65
    assert f"nothing of {shop.small.science[0].stem} is on the map" in outcome.message


def test_a_map_without_a_calibration_says_how_to_get_one(shop: Workshop) -> None:
    outcome = shop.bench.run("primecam map", raw=shop.small.science)
    assert outcome.exit_code == 78
    assert outcome.message == (
        "primecam map: wants auxiliary files named calibration.fits among its inputs, found 0: give the step one "
        "auxiliary rule that takes the nearest product of `primecam calibrate-planet`, and group it by observing_night "
        "and instrument_module\n"
    )


def test_two_calibrations_are_refused(shop: Workshop, camera: Camera) -> None:
    two = [shop.small.calibration, camera.second_night]
    outcome = shop.bench.run("primecam map", raw=shop.small.science, auxiliary=two)
    assert outcome.exit_code == 78
    assert "wants one auxiliary file named calibration.fits among its inputs, found 2: " in outcome.message


def test_a_calibration_of_other_detectors_is_refused(shop: Workshop, camera: Camera) -> None:
    scan = shop.small.science[0]
    outcome = shop.map(scan, calibration=camera.first_night)
    assert outcome.exit_code == 65
    assert outcome.message == (
        f"primecam map: {camera.first_night}: its detectors are not those of scan {scan.stem}: number 25 is kid-0025"
        ", and missing in the scan: calibrate on a planet scan that was made after the last tuning\n"
    )


def test_a_calibration_of_another_module_is_refused(shop: Workshop) -> None:
    other = shop.recalibrated(MODULE="350GHz")
    outcome = shop.map(*shop.small.science, calibration=other)
    assert outcome.exit_code == 65
    assert f"{other}: MODULE is '350GHz', and '280GHz' in scan prime-cam-" in outcome.message


@pytest.mark.parametrize(
    "case",
    [
        ("2026-04-01T14:36:00", {}, 0),  # ends 12 hours before the scan; it is 6 minutes long
        ("2026-04-01T14:35:59", {}, 65),
        ("2026-04-01T14:35:59", {"max_calibration_age_hours": 12.01}, 0),
        ("2026-04-02T14:42:00", {}, 0),  # begins 12 hours after it
        ("2026-04-02T14:42:01", {}, 65),
        ("2026-04-02T02:00:00", {"max_calibration_age_hours": 0.1}, 65),
    ],
)
def test_calibration_and_scan_may_be_half_a_day_apart(shop: Workshop, case: tuple[str, dict[str, Any], int]) -> None:
    planet, given, exit_code = case
    begin = datetime.fromisoformat(planet)
    times = {"DATE-BEG": begin.isoformat(), "DATE-END": (begin + timedelta(minutes=6)).isoformat()}
    scan = shop.altered(shop.small.science[0], attributes={"DATE-BEG": "2026-04-02T02:42:00.000"})
    outcome = shop.map(scan, calibration=shop.recalibrated(**times), **given)
    assert outcome.exit_code == exit_code, outcome.message


def test_a_calibration_may_say_itself_that_it_is_valid_for_less(shop: Workshop) -> None:
    brief = shop.calibrate(shop.small.planet, valid_hours=0.1)
    calibration = brief.output / "science" / "calibration.fits"
    outcome = shop.map(shop.small.science[0], calibration=calibration)
    assert outcome.exit_code == 65
    assert "is 0.4 h away from scan" in outcome.message
    assert "more than 0.1 h" in outcome.message


@pytest.mark.parametrize("case", [("calibrate-planet", "*.h5"), ("fit", "map.fits"), ("check", "map.fits")])
def test_a_step_without_its_inputs_says_what_it_wants(shop: Workshop, case: tuple[str, str]) -> None:
    step, wanted = case
    given: dict[str, Any] = {"truth_file": "truth.json"} if step == "check" else {}
    outcome = shop.bench.run(f"primecam {step}", upstream=[shop.small.calibration], **given)
    assert outcome.exit_code == 78
    assert f"files named {wanted} among its inputs, found 0: " in outcome.message


def test_a_step_runs_as_a_process_under_the_name_that_was_typed(bench: Bench) -> None:
    environ = bench.prepare("calibrate-planet", inputs={"raw": []}, parameters={}, final=True)
    outcome = bench.spawn([str(BIN / "primecam"), "calibrate-planet"], environ)
    assert outcome.exit_code == 78
    assert outcome.message.startswith("primecam calibrate-planet: wants raw files named *.h5 among its inputs, found 0")
