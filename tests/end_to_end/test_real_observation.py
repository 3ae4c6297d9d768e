"""A real observation of a real telescope through the whole chain, against the observatory's own result."""

import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.installation import REPOSITORY, Installation
from tests.needs import give_up

DATA = REPOSITORY.parent / "shared" / "data" / "gbt"
RAW = DATA / "TGBT21A_501_11.raw.vegas.fits"
GBTIDL = DATA / "TGBT21A_501_11_getps_scan_152_intnum_0_ifnum_0_plnum_0.fits"
PIPELINES = REPOSITORY / "build" / "pipelines-env" / "bin" / "python"

COMPARE = """
import sys
import numpy as np
from astropy.io import fits
ours, theirs = (np.ravel(fits.getdata(name, 1)["DATA"]) for name in sys.argv[1:])
both = np.isfinite(ours) & np.isfinite(theirs)
print(ours.size, both.sum(), np.abs(ours - theirs)[both].max(), np.nanmax(ours))
"""


@pytest.fixture(autouse=True)
def _data_are_here() -> None:
    if not RAW.exists():
        give_up(f"the real observation is not here: it belongs into {DATA}")


def test_a_real_observation_becomes_what_the_observatory_made_of_it(installation: Installation) -> None:
    installation.ccat("apply", "-f", REPOSITORY / "pipelines" / "examples" / "gbt.yaml")
    installation.observe(
        "ngc2415-hi", [RAW], started_at="2021-02-10T07:38:37+00:00", ended_at="2021-02-10T07:41:00+00:00"
    )
    installation.ccat("wait", "--timeout", 90)
    [run] = installation.json("runs")
    assert (run["status"], run["reason"]) == ("completed", "missing")
    [product] = installation.json("products", "--type", "science")
    channels, common, difference_k, peak_k = _compare(installation.path_of(product), GBTIDL)
    assert channels == 32768
    assert common >= channels - 1  # one channel is blanked in both
    assert difference_k < 1e-3
    assert peak_k == pytest.approx(4.34, abs=0.01)


def _compare(ours: Path, theirs: Path) -> tuple[int, int, float, float]:
    done = subprocess.run([PIPELINES, "-c", COMPARE, ours, theirs], capture_output=True, text=True, check=True)
    channels, common, difference_k, peak_k = done.stdout.split()
    return int(channels), int(common), float(difference_k), float(peak_k)


def test_its_lineage_ends_at_the_raw_file_with_its_checksum(installation: Installation) -> None:
    digest = subprocess.run(["sha256sum", RAW], capture_output=True, text=True, check=True).stdout.split()[0]
    [product] = installation.json("products", "--type", "science")
    told = installation.json("lineage", product["id"])
    [file] = [file for package in told["packages"].values() for file in package["files"]]
    assert file["checksum"] == f"sha256:{digest}"
    text = installation.ccat("lineage", product["id"])
    assert RAW.name in text
    assert f"sha256:{digest}" in text
