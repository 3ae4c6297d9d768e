"""Maps take the calibration of their own night: nothing else is ever chosen, however scans and planets arrive."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.installation import REPOSITORY, Installation

pytestmark = pytest.mark.timeout(600)
PRIMECAM = REPOSITORY / "build/pipelines-env/bin/primecam"
LOCATION, MODULE = "ccat/primecam_raw_data", "Prime-Cam/280GHz"
NIGHTS = ("2026-04-01", "2026-04-02")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files of two nights, and what is known of them."""
    folder = tmp_path_factory.mktemp("primecam")
    subprocess.run([PRIMECAM, "make-raw", "--seed", "1", "--nights", "2", "--out", folder], check=True)
    return folder


def deliver(installation: Installation, scans: Path, *, night: str, kind: str) -> None:
    """Have the scans of a kind that were made in a night arrive."""
    for scan in json.loads((scans / "scans.json").read_text())["scans"]:
        if (scan["observing_night"], scan["kind"]) == (night, kind):
            file = installation.directory / "storage" / LOCATION / night / scan["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(scans / scan["file"], file)
            installation.ccat("scan", "start", scan["observation"], "--id", scan["id"], "--started-at", scan["start"])
            installation.ccat("scan", "add", scan["id"], file, "--module", MODULE, "--location", LOCATION)
            installation.ccat("scan", "end", scan["id"], "--ended-at", scan["end"], "--files", "1")


def runs(installation: Installation, step: str) -> list[dict[str, Any]]:
    return [one for one in installation.json("runs", "--step", step) if one["status"] == "completed"]


def night_of(run: dict[str, Any]) -> str:
    """Night of the sub-group of a run."""
    return str(run["sub_group"]["observing_night"])


def test_a_map_waits_for_the_calibration_of_its_night_and_takes_no_other(
    installation: Installation, scans: Path, tmp_path: Path
) -> None:
    example = (REPOSITORY / "pipelines/examples/prime-cam.yaml").read_text()
    truth = str(scans / "truth.json")
    (tmp_path / "both.yaml").write_text(
        example.replace("../../build", str(REPOSITORY / "build"))
        .replace("/data/simulated/truth.json", truth)
        .replace("cooldown_seconds: 8", "cooldown_seconds: 1")
    )
    installation.ccat("apply", "-f", tmp_path / "both.yaml")
    for night in NIGHTS:
        deliver(installation, scans, night=night, kind="science")
    deliver(installation, scans, night=NIGHTS[0], kind="planet")
    installation.ccat("wait", "--timeout", "140")
    assert [night_of(run) for run in runs(installation, "map")] == [NIGHTS[0]]
    [waits] = installation.json("gap", "prime-cam-maps", "map")["sub_groups"]
    assert waits["sub_group"]["observing_night"] == NIGHTS[1]
    assert waits["because"].startswith("waits for calibration of prime-cam-calibration/calibrate-planet within 12 h of")

    deliver(installation, scans, night=NIGHTS[1], kind="planet")
    installation.ccat("wait", "--timeout", "140")
    calibrations = {run["id"]: night_of(run) for run in runs(installation, "calibrate-planet")}
    maps = runs(installation, "map")
    taken = {night_of(run): calibrations.keys() & made_by(installation, run) for run in maps}
    assert {night: [calibrations[one] for one in found] for night, found in taken.items()} == {
        night: [night] for night in NIGHTS
    }
    checked = [installation.json("run", "show", run["id"])["metrics"] for run in runs(installation, "check")]
    assert [one["in_band"] for one in checked] == [1, 1]


def made_by(installation: Installation, run: dict[str, Any]) -> set[int]:
    """Runs by which the products of a run came about, itself included."""
    [product, *_] = installation.json("run", "show", run["id"])["products"]
    return {int(one) for one in installation.json("lineage", product["id"])["runs"]}
