"""What each step does with its inputs, beside the science."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from harness import BIN, Bench, Observation
from PIL import Image


def test_the_same_inputs_make_the_same_bytes(seed_one: Observation) -> None:
    again = seed_one.calibrate(1)
    assert again.read_bytes() == seed_one.calibrated[1].read_bytes()
    assert seed_one.baseline(again).read_bytes() == seed_one.baselined[1].read_bytes()
    first, second = (seed_one.grid(*(seed_one.baselined[number] for number in order)) for order in ((1, 2), (2, 1)))
    files = [path.relative_to(first) for path in sorted(first.rglob("*")) if path.is_file()]
    assert [str(file) for file in files] == [
        "plots/moment0.png",
        "qa/metrics.json",
        "science/cube.fits",
        "science/moment0.fits",
        "science/weight.fits",
    ]
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file


def test_the_same_seed_makes_the_same_scans_whatever_their_number(seed_one: Observation, bench: Bench) -> None:
    arguments = ["make-raw", "--seed", "1", "--scans", "1", "--out", str(bench.root)]
    outcome = bench.spawn([str(BIN / "chai"), *arguments], {"WORKFLOW_OUTPUT_DIR": ""})
    assert outcome.exit_code == 0, outcome.message
    described = json.loads((bench.root / "scans.json").read_text())["scans"]
    assert described == json.loads((seed_one.raw / "scans.json").read_text())["scans"][:1]
    assert (bench.root / described[0]["file"]).read_bytes() == seed_one.scan(1).read_bytes()


def test_the_scans_lie_in_two_nights(seed_one: Observation) -> None:
    scans = json.loads((seed_one.raw / "scans.json").read_text())["scans"]
    assert [scan["observing_night"] for scan in scans] == [*3 * ["2026-04-01"], "2026-04-02"]
    assert scans[0]["start"] == "2026-04-02T02:00:00+00:00"
    assert {scan["instrument_module"] for scan in scans} == {"LFA"}


def test_a_product_says_where_it_came_from(seed_one: Observation) -> None:
    header = fits.getheader(seed_one.baselined[1])
    assert (header["SOFTNAME"], header["SOFTVER"]) == ("ccat-pipelines", version("ccat-pipelines"))
    assert (header["STEP"], header["SUBGROUP"], header["NINPUTS"]) == ("baseline", "source=1", 1)
    assert len(header["INPUTS"]) == len(header["INPUT1"]) == len(header["CONFIG"]) == 64
    assert f"calibrate {header['SOFTVER']}: opacity = null" in list(header["HISTORY"])
    assert f"baseline {header['SOFTVER']}: order = 3" in list(header["HISTORY"])


def test_map_products_have_a_sky_coordinate_system_flags_and_a_preview(seed_one: Observation) -> None:
    output = seed_one.grid(seed_one.baselined[3])
    with fits.open(output / "science" / "cube.fits") as cube:
        assert [cube[0].header[f"CTYPE{axis}"] for axis in (1, 2, 3)] == ["RA---TAN", "DEC--TAN", "VRAD"]
        assert np.count_nonzero(cube["FLAGS"].data["FLAGGED"]) == 8
    with Image.open(output / "plots" / "moment0.png") as preview:
        assert preview.size == (512, 588)
    assert json.loads((output / "qa" / "metrics.json").read_text())["flagged_pixels"] == 8


def test_a_scan_that_is_there_twice_is_refused(seed_one: Observation) -> None:
    outcome = seed_one.bench.run("chai grid", upstream=[seed_one.baselined[1], seed_one.baselined[1]])
    assert outcome.exit_code == 65
    assert "scan chai-lfa-2026-04-01-0001 is already on the map" in outcome.message


def test_scans_of_two_sources_are_refused(seed_one: Observation, tmp_path: Path) -> None:
    with fits.open(seed_one.baselined[2]) as units:
        units[0].header.update(OBJECT="Other", SCANID="other")
        units.writeto(tmp_path / "baselined.fits", checksum=True)
    outcome = seed_one.bench.run("chai grid", upstream=[seed_one.baselined[1], tmp_path / "baselined.fits"])
    assert outcome.exit_code == 78
    assert "the scans differ in OBJECT: " in outcome.message
    assert "group the step by source" in outcome.message


def test_a_line_window_without_a_channel_is_refused(seed_one: Observation) -> None:
    outcome = seed_one.bench.run("chai grid", upstream=[seed_one.baselined[1]], line_half_width_kms=0.1)
    assert outcome.exit_code == 78
    assert "no channel within 0.1 km/s of 10 km/s: widen line_half_width_kms" in outcome.message


def test_a_map_without_a_sample_is_refused(seed_one: Observation, tmp_path: Path) -> None:
    with fits.open(seed_one.baselined[2]) as units:
        units["WEIGHT"].data[:] = 0
        units.writeto(tmp_path / "baselined.fits", checksum=True)
    outcome = seed_one.bench.run("chai grid", upstream=[tmp_path / "baselined.fits"])
    assert outcome.exit_code == 65
    assert "every pixel of chai-lfa-2026-04-01-0002 is flagged" in outcome.message


@pytest.mark.parametrize("step", [("baseline", "calibrated.fits"), ("grid", "baselined.fits")])
def test_a_step_without_its_upstream_says_what_it_wants(bench: Bench, small_raw: Path, step: tuple[str, str]) -> None:
    name, wanted = step
    outcome = bench.run(f"chai {name}", upstream=[small_raw])
    assert outcome.exit_code == 78
    assert f"named {wanted} among its inputs, found 0: make the step depend on" in outcome.message


def test_a_dead_pixel_is_flagged(bench: Bench, small_raw: Path) -> None:
    with fits.open(small_raw) as units:
        units["SPECTRA"].data[:, 2] = 0
        units.writeto(small_raw.with_name("dead.fits"), checksum=True)
    calibrated = bench.run("chai calibrate", raw=[small_raw.with_name("dead.fits")]).output / "calibrated.fits"
    outcome = bench.run("chai baseline", upstream=[calibrated], order=1, flag_threshold=3)
    assert (outcome.exit_code, outcome.message) == (0, "")
    with fits.open(outcome.output / "baselined.fits") as units:
        assert units["PIXELS"].data["FLAGGED"].tolist() == [False, False, True, False]
        assert units["WEIGHT"].data[:, 2].tolist() == [0, 0]


def test_a_scan_without_a_cold_load_is_refused(bench: Bench, small_raw: Path) -> None:
    with fits.open(small_raw) as units:
        units["POINTING"].data["MODE"][1] = "HOT"
        units.writeto(small_raw.with_name("cut.fits"), checksum=True)
    outcome = bench.run("chai calibrate", raw=[small_raw.with_name("cut.fits")])
    assert outcome.exit_code == 65
    assert "cut.fits, HDU POINTING: no integration COLD" in outcome.message
