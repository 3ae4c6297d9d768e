"""The whole system through the demo: in one module, so that no two demos share this machine's processors."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ccat.stack.directory import StackDirectory
from ccat.stack.state import read_state
from tests.demo.support import Demo, Ended
from tests.stack.support import eventually

pytestmark = pytest.mark.timeout(420)


@pytest.fixture(scope="module")
def quiet_demo(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Demo, Ended]:
    """A demo that nobody disturbed, from beginning to end."""
    demo = Demo(tmp_path_factory.mktemp("quiet").resolve() / "demo", cache)
    return demo, demo.play()


def test_two_nights_become_maps_inside_all_bands_and_no_process_is_left(quiet_demo: tuple[Demo, Ended]) -> None:
    demo, ended = quiet_demo
    assert (ended.exit_code, ended.errors) == (0, ""), ended.output
    assert demo.processes() == []
    assert "OUT OF BAND" not in ended.output
    assert "Everything is as expected: 25 runs, 25 current products." in ended.output


def test_the_lineage_of_the_final_map_names_every_raw_file_with_its_checksum(quiet_demo: tuple[Demo, Ended]) -> None:
    demo, ended = quiet_demo
    raw = demo.raw_files()
    assert len(raw) == 4
    for name, checksum in raw.items():
        assert any(name in line and checksum in line for line in ended.output.splitlines())
    packages = demo.report()["lineage"]["packages"].values()
    files = {Path(file["path"]).name: file["checksum"] for package in packages for file in package["files"]}
    assert files == raw


KILLED = (
    ("trigger-manager", "workflow-manager", "result-manager"),
    ("transfer-manager", "transfer-worker"),
    ("postgresql", "redis"),
    ("celery-worker",),
)
"""Services, act by act."""


class Killer:
    """Kills services while the system works on what has just happened, each when the one before is up again."""

    def __init__(self, demo: Demo) -> None:
        self.left = [*KILLED]
        self._demo = demo

    def __call__(self, line: str) -> None:
        if self.left and ("Registered:" in line or "Released:" in line):
            for service in self.left.pop(0):
                self._kill(service)

    def _kill(self, name: str) -> None:
        [service] = [one for one in self._services() if one["name"] == name]
        os.kill(service["pid"], signal.SIGKILL)
        eventually(lambda: self._is_up_again(name), within=60)

    def _services(self) -> list[dict[str, Any]]:
        services: list[dict[str, Any]] = json.loads(self._demo.ccat("status", "--json"))["services"]
        return services

    def _is_up_again(self, name: str) -> bool:
        state = read_state(StackDirectory(self._demo.stack).state)
        return (
            state is not None and any(one.name == name and one.restarts == 1 for one in state.services) and state.is_up
        )


def test_killing_every_process_one_after_the_other_changes_nothing(quiet_demo: tuple[Demo, Ended], demo: Demo) -> None:
    killer = Killer(demo)
    ended = demo.play(on_line=killer)
    assert (ended.exit_code, ended.errors) == (0, ""), ended.output
    assert killer.left == []
    assert sorted(products(demo)) == sorted(products(quiet_demo[0]))


def products(demo: Demo) -> Iterator[tuple[str, ...]]:
    """What identifies the current products, whatever their numbers are."""
    for one in demo.report()["products"]:
        yield one["step"], json.dumps(one["sub_group"]), one["type"], one["path"], one["checksum"]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("old-opacity", "peak_ratio: expected 0.96 … 1.05, found 0."),
        ("skip-baseline", "rms_ratio: expected 0.96 … 1.04, found "),
        ("scan-twice", "calibrate: expected 2 runs, found 3 runs, not expected: scan 1 again (1.0.0, missing)."),
        ("drop-scan", "calibrate: expected 2 runs, found 1 run, not made: scan 2 (1.0.0, missing)."),
    ],
)
def test_a_fault_ends_the_demo_with_1_and_is_told(demo: Demo, fault: str, told: str) -> None:
    ended = demo.play("--fault", fault)
    assert ended.exit_code == 1
    assert ended.errors.startswith("error: Night one: not as expected. ")
    assert told in ended.errors


def test_an_interrupt_takes_the_stack_down(demo: Demo) -> None:
    with demo.start() as process:
        assert any("run after" in line for line in process.stdout or ())
        assert len(demo.processes()) > 8
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted; nothing runs any more\n")
    assert demo.processes() == []
