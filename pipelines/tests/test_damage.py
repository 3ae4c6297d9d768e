"""Damaged files: every one of them exits 65 and names the file and the header-data unit."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from harness import Bench


def flip(path: Path, byte: int, bit: int = 0) -> Path:
    """Write a copy of a file that differs in one bit."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    damaged = path.with_name("damaged.fits")
    damaged.write_bytes(content)
    return damaged


def test_a_flipped_bit_exits_65_and_names_file_and_hdu(bench: Bench, small_raw: Path) -> None:
    with fits.open(small_raw) as units:
        place = units["SPECTRA"].fileinfo()["datLoc"] + 100
    damaged = flip(small_raw, place)
    outcome = bench.run("chai calibrate", raw=[damaged])
    assert outcome.exit_code == 65
    assert outcome.message == (
        f"chai calibrate: {damaged}, HDU 1 (SPECTRA): its content does not agree with its CHECKSUM: "
        "fetch a good copy from the archive and run again\n"
    )
    assert list(outcome.output.iterdir()) == []


def test_a_bit_flipped_anywhere_is_found(bench: Bench, small_raw: Path) -> None:
    rng = np.random.default_rng(5)
    for byte in rng.integers(0, small_raw.stat().st_size, 60).tolist():
        outcome = bench.run("chai calibrate", raw=[flip(small_raw, byte, int(rng.integers(8)))])
        assert outcome.exit_code == 65, byte
        assert "damaged.fits, HDU" in outcome.message, byte
        assert outcome.message.count("\n") == 1, byte


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_exits_65(bench: Bench, small_raw: Path, share: float) -> None:
    content = small_raw.read_bytes()
    damaged = small_raw.with_name("damaged.fits")
    damaged.write_bytes(content[: int(share * len(content))])
    outcome = bench.run("chai calibrate", raw=[damaged])
    assert outcome.exit_code == 65
    assert f"{damaged}, HDU" in outcome.message


def test_a_file_that_lost_its_last_hdu_exits_65(bench: Bench, small_raw: Path) -> None:
    with fits.open(small_raw) as units:
        end = units["PIXELS"].fileinfo()["hdrLoc"]
    damaged = small_raw.with_name("damaged.fits")
    damaged.write_bytes(small_raw.read_bytes()[:end])
    outcome = bench.run("chai calibrate", raw=[damaged])
    assert outcome.exit_code == 65
    assert "damaged.fits, HDU PIXELS: is missing" in outcome.message


def test_a_sound_file_that_is_not_the_registered_one_exits_65(bench: Bench, small_raw: Path) -> None:
    entry = {"path": str(small_raw.parent), "files": [{"path": small_raw.name, "checksum": "sha256:0"}]}
    environ = bench.prepare("calibrate", inputs={"raw": [entry]}, parameters={}, final=False)
    outcome = bench.execute("chai", "calibrate", environ)
    assert outcome.exit_code == 65
    assert "registered is sha256:0: stage it again" in outcome.message


def test_a_missing_keyword_exits_65_and_is_named(bench: Bench, small_raw: Path) -> None:
    with fits.open(small_raw) as units:
        del units[0].header["TAU"]
        units.writeto(small_raw.with_name("bare.fits"), checksum=True)
    outcome = bench.run("chai calibrate", raw=[small_raw.with_name("bare.fits")])
    assert outcome.exit_code == 65
    assert "bare.fits, HDU PRIMARY: has no TAU" in outcome.message


def test_astropy_agrees_with_the_checksums_that_are_written(bench: Bench, small_raw: Path) -> None:
    output = bench.run("chai calibrate", raw=[small_raw]).output
    with fits.open(output / "calibrated.fits", checksum=True) as units:
        assert [(unit.verify_datasum(), unit.verify_checksum()) for unit in units] == 4 * [(1, 1)]
