"""What the demo does where something goes wrong: it notices, says so, and leaves nothing behind."""

import json
import signal

import pytest

from tests.demo.support import Demo
from tests.stack.support import eventually

pytestmark = pytest.mark.timeout(420)


@pytest.mark.parametrize(
    ("fault", "act", "told"),
    [
        ("old-opacity", "Night one", "CHAI all scans, peak_ratio: expected 0.96 … 1.05, found 0."),
        ("skip-baseline", "Night one", "CHAI all scans, rms_ratio: expected 0.96 … 1.04, found "),
        (
            "scan-twice",
            "Night one",
            "CHAI calibrate: expected 2 runs, found 3 runs, not expected: scan 1 again (1.0.0, missing).",
        ),
        ("old-ephemeris", "Night two", "Prime-Cam night 2, responsivity_ratio: expected 0.99 … 1.01, found 0.8"),
    ],
)
def test_a_fault_ends_the_demo_with_1_and_is_told(demo: Demo, fault: str, act: str, told: str) -> None:
    ended = demo.play("--fault", fault)
    assert ended.exit_code == 1
    assert ended.errors.startswith(f"error: {act}: not as expected. ")
    assert told in ended.errors


def test_a_dropped_scan_is_told_too_and_the_stack_stays_up_where_it_is_to_be_kept(demo: Demo) -> None:
    ended = demo.play("--fault", "drop-scan", "--keep")
    assert ended.exit_code == 1
    assert "calibrate: expected 2 runs, found 1 run, not made: scan 2 (1.0.0, missing)." in ended.errors
    assert json.loads(demo.ccat("status", "--json"))["up"]
    demo.ccat("down")
    assert demo.processes() == []


def test_an_interrupt_takes_down_what_is_being_started(demo: Demo) -> None:
    with demo.start() as process:
        eventually(lambda: "postgres" in demo.process_names())
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted; nothing runs any more\n")
    assert demo.processes() == []
