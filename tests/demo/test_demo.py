"""The whole system through the demo, with every process killed once."""

import json
import os
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from ccat.stack.directory import StackDirectory
from ccat.stack.state import read_state
from tests.demo.support import Demo, Ended
from tests.stack.support import eventually

pytestmark = pytest.mark.timeout(420)


KILLED = (
    ("trigger-manager", "workflow-manager", "result-manager"),
    ("transfer-manager", "transfer-worker"),
    ("postgresql", "redis"),
    ("celery-worker",),
)
"""Services, act by act."""


OF_NIGHT = (
    ("calibrate-planet", ["science/calibration.fits", "qa/metrics.json"]),
    ("map", [*(f"science/{name}.fits" for name in ("map", "hits", "null")), "plots/map.png", "qa/metrics.json"]),
    ("fit", ["statistics/sources.fits", "science/empty.fits", "plots/empty.png", "qa/metrics.json"]),
    ("check", ["qa/metrics.json", "qa/report.json"]),
)
"""Products of Prime-Cam, step by step."""


class Killer:
    """Kills services while the system works on what has just happened, each when the one before is up again."""

    def __init__(self, demo: Demo) -> None:
        self.left = [*KILLED]
        self._demo = demo

    def __call__(self, line: str) -> None:
        if self.left and ("Registered:" in line or "Released:" in line):
            services = {one["name"]: one for one in json.loads(self._demo.ccat("status", "--json"))["services"]}
            for name in self.left.pop(0):
                os.kill(services[name]["pid"], signal.SIGKILL)
                eventually(partial(self._is_up_again, name))

    def _is_up_again(self, name: str) -> bool:
        state = read_state(StackDirectory(self._demo.stack).state)
        restarted = [one.name for one in state.services if one.restarts] if state else []
        return state is not None and state.is_up and name in restarted


@pytest.fixture(scope="module")
def killed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, Ended]:
    """A whole demo, during which every process of the stack was killed once. (`make demo` plays it undisturbed.)"""
    demo = Demo(tmp_path_factory.mktemp("killed").resolve() / "demo", cache)
    killer = Killer(demo)
    ended = demo.play(on_line=killer)
    assert killer.left == [], ended.output + ended.errors
    return demo, ended


def test_two_nights_become_maps_although_every_process_is_killed_once(killed: tuple[Demo, Ended]) -> None:
    _, ended = killed
    assert (ended.exit_code, ended.errors) == (0, ""), ended.output + ended.errors
    assert "Everything is as expected: 33 runs, 51 current products." in ended.output


def test_every_raw_package_crossed_to_the_archive_in_a_transfer_package_and_it_is_told(
    killed: tuple[Demo, Ended],
) -> None:
    demo, ended = killed
    packages = demo.report()["packages"]
    assert len(packages) == 12
    for one in packages:
        assert f"transfer package {one['transfer_package']}: " in ended.output
        assert one["copies"] == ["ccat/buffer", "cologne/buffer", "cologne/lta", "cologne/ramses"]
    said = "cross from ccat/buffer to cologne/buffer in transfer packages, along the route ccat_to_cologne: each is "
    assert f"{said}sent once it has 1.0 TB, or its oldest data waited 1 s for more" in ended.output


def test_every_science_value_is_in_its_band(killed: tuple[Demo, Ended]) -> None:
    demo, ended = killed
    values = demo.report()["science"]
    assert Counter((one["instrument"], one["subject"]) for one in values) == {
        ("CHAI", "all scans"): 7,
        ("Prime-Cam", "night 1"): 11,
        ("Prime-Cam", "night 2"): 11,
    }
    assert all(one["low"] <= one["value"] <= one["high"] for one in values)
    assert "OUT OF BAND" not in ended.output


def test_every_product_is_registered_once(killed: tuple[Demo, Ended]) -> None:
    report = killed[0].report()
    runs = {run["id"]: f"{run['instrument']} {run['step']}" for run in report["runs"]}
    subjects = {run["id"]: run["subject"] for run in report["runs"]}
    registered = Counter((runs[one["run"]], subjects[one["run"]], one["path"]) for one in report["products"])
    nights = ("night 1", "night 2")
    a_map = ["science/cube.fits", "science/moment0.fits", "science/weight.fits", "plots/moment0.png", "qa/metrics.json"]
    assert registered == Counter(
        [
            *(("CHAI calibrate", f"scan {number}", "calibrated.fits") for number in range(1, 5)),
            *(("CHAI baseline", f"scan {number}", "baselined.fits") for number in range(1, 5)),
            *(("CHAI grid", "all scans", path) for path in a_map),
            *(("CHAI grid-night", night, path) for night in nights for path in a_map),
            *(("CHAI check", "all scans", path) for path in ("qa/metrics.json", "qa/report.json")),
            *((f"Prime-Cam {step}", night, path) for night in nights for step, paths in OF_NIGHT for path in paths),
        ]
    )


def test_the_lineage_of_the_final_maps_names_every_raw_file_with_its_checksum(killed: tuple[Demo, Ended]) -> None:
    demo, ended = killed
    raw = demo.raw_files()
    assert len(raw) == 12
    for name, checksum in raw.items():
        assert any(name in line and checksum in line for line in ended.output.splitlines())
    lineages = [one["lineage"] for one in demo.report()["maps"]]
    packages = [package for lineage in lineages for package in lineage["packages"].values()]
    files = [(Path(file["path"]).name, file["checksum"]) for package in packages for file in package["files"]]
    assert sorted(files) == sorted(raw.items())


def test_a_map_waits_for_the_calibration_of_its_night_and_its_lineage_names_it(killed: tuple[Demo, Ended]) -> None:
    demo, ended = killed
    said = "Prime-Cam map of night 1 waits for calibration of prime-cam-calibration/calibrate-planet within 12 h of "
    assert ended.output.count(said) == 2
    runs = {run["id"]: run for run in demo.report()["runs"]}
    maps = {one["subject"]: one["lineage"] for one in demo.report()["maps"] if one["instrument"] == "Prime-Cam"}
    for night, lineage in maps.items():
        [taken] = (run["auxiliary"]["calibration"] for run in lineage["runs"].values() if run["step"] == "map")
        makers = {runs[lineage["products"][str(one)]["run_id"]]["subject"] for one in taken}
        assert makers == {night}


def test_no_process_is_left(killed: tuple[Demo, Ended]) -> None:
    assert killed[0].processes() == []
