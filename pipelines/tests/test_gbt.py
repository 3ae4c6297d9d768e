"""A real observation against the observatory's own reduction."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from harness import Bench

DATA = Path(__file__).parents[3] / "shared" / "data" / "gbt"
RAW = DATA / "TGBT21A_501_11.raw.vegas.fits"
REFERENCE = DATA / "TGBT21A_501_11_getps_scan_152_intnum_0_ifnum_0_plnum_0.fits"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir() and os.environ.get("CCAT_REQUIRE_ALL") != "1",
    reason=f"the real observation is not here: put it into {DATA}",
)


def test_getps_reproduces_gbtidl_within_a_millikelvin(bench: Bench) -> None:
    outcome = bench.run("gbt getps", raw=[RAW], final=True)
    assert (outcome.exit_code, outcome.message) == (0, "")
    with fits.open(outcome.output / "science" / "getps.fits") as ours, fits.open(REFERENCE) as theirs:
        row, expected = ours[1].data[0], theirs[1].data[0]
        np.testing.assert_allclose(row["DATA"], np.ravel(expected["DATA"]), rtol=0, atol=1e-3)  # NaN where theirs is
        assert row["TSYS"] == pytest.approx(expected["TSYS"], abs=1e-6)
        assert (row["SCAN"], row["OBJECT"].strip()) == (152, "NGC2415")


def test_an_observation_without_its_off_scan_is_refused(bench: Bench) -> None:
    with fits.open(RAW) as units:
        units[1].data = units[1].data[:2]
        units.writeto(bench.root / "on.fits")
    outcome = bench.run("gbt getps", raw=[bench.root / "on.fits"])
    assert outcome.exit_code == 65
    assert "wants one row with PROCSCAN OFF and CAL T, has 0" in outcome.message
