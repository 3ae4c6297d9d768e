"""Damaged HDF5 files: every one of them exits 65 and names the file and what is wrong with it."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from camera import Workshop, content
from harness import Outcome

from ccat_pipelines import hdf5


def refused(outcome: Outcome, said: str) -> None:
    """Demand exit code 65 and one line that says this and what to do."""
    assert outcome.exit_code == 65
    assert said in outcome.message
    assert outcome.message.count("\n") == 1
    assert not list(outcome.output.iterdir())


def place_of(path: Path, name: str) -> int:
    """Return where in the file the first chunk of a data set begins."""
    with h5py.File(path) as tree:
        return int(tree[name].id.get_chunk_info(0).byte_offset)


def test_the_file_that_is_damaged_below_is_a_good_one(shop: Workshop) -> None:
    outcome = shop.calibrate(shop.small.planet)
    assert (outcome.exit_code, outcome.message) == (0, "")


@pytest.mark.parametrize("name", ["I", "QSWEEP", "RA", "TONE"])
def test_a_flipped_bit_exits_65_and_names_file_and_data_set(shop: Workshop, name: str) -> None:
    damaged = shop.flipped(shop.small.planet, byte=place_of(shop.small.planet, name) + 20)
    refused(shop.calibrate(damaged), f"{damaged}, data set {name}: ")


def test_a_bit_flipped_anywhere_is_found_or_changes_nothing(shop: Workshop) -> None:
    rng = np.random.default_rng(5)
    good, found = content(shop.small.planet), 0
    for byte in rng.integers(0, shop.small.planet.stat().st_size, 60).tolist():
        damaged = shop.flipped(shop.small.planet, byte=byte, bit=int(rng.integers(8)))
        outcome = shop.calibrate(damaged)
        if outcome.exit_code:
            refused(outcome, f"{damaged}, ")
            found += 1
        else:
            np.testing.assert_equal(content(damaged), good)
    assert found > 50, "gaps between the data are small"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_a_truncated_file_exits_65(shop: Workshop, share: float) -> None:
    whole = shop.small.planet.read_bytes()
    damaged = shop.bench.root / "damaged.h5"
    damaged.write_bytes(whole[: int(share * len(whole))])
    refused(shop.calibrate(damaged), f"{damaged}, its HDF5 structure: ")


def test_a_file_of_another_format_exits_65(shop: Workshop) -> None:
    (shop.bench.root / "text.h5").write_text("no HDF5\n" * 1000)
    refused(shop.calibrate(shop.bench.root / "text.h5"), "text.h5, its HDF5 structure: ")


def test_a_sound_file_that_is_not_the_registered_one_exits_65(shop: Workshop) -> None:
    entry = {"path": str(shop.small.planet.parent), "files": [{"path": shop.small.planet.name, "checksum": "sha256:0"}]}
    environ = shop.bench.prepare("calibrate-planet", inputs={"raw": [entry]}, parameters={}, final=False)
    refused(shop.bench.execute("primecam", "calibrate-planet", environ), "registered is sha256:0: stage it again")


@pytest.mark.parametrize("name", ["I", "DETECTOR", "FSWEEP", "DEC"])
def test_a_missing_data_set_exits_65_and_is_named(shop: Workshop, name: str) -> None:
    damaged = shop.altered(shop.small.planet, data={name: None})
    refused(shop.calibrate(damaged), f"{damaged}, data set {name}: is missing: fetch a good copy")


@pytest.mark.parametrize(
    "case",
    [
        ("RATE", None, "is missing"),
        ("RATE", "fast", "is 'fast', no number"),
        ("FLUX", None, "is missing"),
        ("DATE-BEG", "last night", "Invalid isoformat string"),
    ],
)
def test_a_missing_or_senseless_attribute_exits_65_and_is_named(shop: Workshop, case: tuple[str, Any, str]) -> None:
    name, value, said = case
    damaged = shop.altered(shop.small.planet, attributes={name: value})
    refused(shop.calibrate(damaged), f"{damaged}, attribute {name}: {said}")


def test_text_that_has_no_checksum_is_refused(shop: Workshop) -> None:
    loose = shop.altered(shop.small.planet)
    with h5py.File(loose, "a") as tree:
        tree.attrs["OBJECT"] = "Demo planet"
    refused(shop.calibrate(loose), "attribute OBJECT is text of variable length, which HDF5 keeps without a checksum")


def test_data_sets_that_do_not_fit_each_other_exit_65(shop: Workshop) -> None:
    _, data = content(shop.small.planet)
    damaged = shop.altered(shop.small.planet, data={"RA": data["RA"][:-1]})
    said = "data set RA: has the shape (1999,), wanted is (sample) as in the others"
    refused(shop.calibrate(damaged), f"{damaged}, {said}")


def test_a_pointing_that_is_no_number_exits_65(shop: Workshop) -> None:
    _, data = content(shop.small.planet)
    lost = np.where(np.arange(data["RA"].size) == 17, np.nan, data["RA"])
    damaged = shop.altered(shop.small.planet, data={"RA": lost})
    refused(shop.calibrate(damaged), f"{damaged}, data set RA: has values that are no numbers")


def test_a_scan_that_was_broken_off_exits_65(shop: Workshop) -> None:
    _, data = content(shop.small.planet)
    first = {name: data[name][..., :50] for name in ("I", "Q", "TIME", "RA", "DEC")}
    short = shop.altered(shop.small.planet, data=first)
    refused(shop.calibrate(short), f"{short}: has 50 samples, fewer than 100: withdraw the scan")


@pytest.mark.parametrize("product", ["calibration.fits", "a scan"])
def test_a_damaged_input_of_a_map_exits_65(shop: Workshop, product: str) -> None:
    scan, calibration = shop.small.science[0], shop.small.calibration
    if product == "a scan":
        scan = shop.flipped(scan, byte=place_of(scan, "Q") + 100)
    else:
        calibration = shop.flipped(calibration, byte=calibration.stat().st_size - 2881)
    outcome = shop.map(scan, calibration=calibration)
    refused(outcome, "data set Q: " if product == "a scan" else "does not agree with its CHECKSUM")


def test_the_same_content_makes_the_same_bytes_at_any_time(shop: Workshop) -> None:
    attributes, data = content(shop.small.planet)
    backwards = dict(reversed(data.items()))
    hdf5.write(shop.bench.root / "again.h5", attributes=attributes, data=backwards)
    assert (shop.bench.root / "again.h5").read_bytes() == shop.small.planet.read_bytes()
