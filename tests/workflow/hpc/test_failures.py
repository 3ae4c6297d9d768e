from datetime import timedelta
from typing import Any

import pytest

from ccat_ops_db.states import FailureClass
from ccat_workflow_manager.hpc.base import JobObservation, JobState
from ccat_workflow_manager.hpc.failures import failure_class, one_line_cause


def finished(exit_code: int, **known: Any) -> JobObservation:
    return JobObservation(
        state=JobState.FINISHED, exit_code=exit_code, host="node7", wall_time=timedelta(seconds=90), **known
    )


LOST = JobObservation(state=JobState.LOST, host="node7")


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (finished(0), None),
        (finished(1), FailureClass.PAYLOAD),
        (finished(139), FailureClass.PAYLOAD),
        (finished(65), FailureClass.DATA),
        (finished(75), FailureClass.INFRASTRUCTURE),
        (finished(78), FailureClass.CONFIGURATION),
        (finished(124, timed_out=True), FailureClass.RESOURCES),
        (finished(137, out_of_memory=True), FailureClass.RESOURCES),
        (finished(143, cancelled=True), None),
        (LOST, FailureClass.INFRASTRUCTURE),
    ],
)
def test_the_class_of_a_failure(observation: JobObservation, expected: FailureClass | None) -> None:
    assert failure_class(observation) is expected


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN])
def test_what_is_not_over_has_not_failed(state: JobState) -> None:
    assert failure_class(JobObservation(state=state)) is None


TRACEBACK = """Traceback (most recent call last):
  File "calibrate.py", line 12, in <module>
ValueError: no HOT integration in scan 17

"""


@pytest.mark.parametrize(
    ("log", "observation", "expected"),
    [
        (TRACEBACK, finished(1), "ValueError: no HOT integration in scan 17"),
        ("cannot open map.fits\nbye", finished(1), "cannot open map.fits"),
        ("first\nsecond\n", finished(1), "exit code 1; its log ends with: second"),
        ("loaded 7 of 9 scans", finished(3), "exit code 3; its log ends with: loaded 7 of 9 scans"),
        ("cannot open map.fits\nbye", finished(3), "cannot open map.fits (exit code 3)"),
        ("scan 17: no HOT integration", finished(65), "scan 17: no HOT integration"),
        ("Segmentation fault", finished(139), "Segmentation fault (killed by SIGSEGV)"),
        ("", finished(3), "exit code 3, and its log is empty"),
        ("", finished(139), "killed by SIGSEGV, and its log is empty"),
        ("still mapping", finished(124, timed_out=True), "time limit reached after 90 s on node7"),
        ("still mapping", finished(137, out_of_memory=True), "out of memory on node7: it had 1.5 GB"),
        (
            "still mapping",
            finished(137, out_of_memory=True, peak_memory_bytes=2_345_000_000),
            "out of memory on node7: it used 2.35 GB and had 1.5 GB",
        ),
        ("still mapping", LOST, "the job vanished on node7 without leaving an exit code"),
    ],
)
def test_the_cause_in_one_line(log: str, observation: JobObservation, expected: str) -> None:
    assert one_line_cause(log, observation, memory_gb=1.5) == expected


def test_a_cause_is_one_short_line() -> None:
    cause = one_line_cause("error " + "x" * 10_000, finished(1), memory_gb=1)
    assert len(cause) == 300
    assert cause.endswith("…")
    cause = one_line_cause("error " + "x" * 10_000, finished(3), memory_gb=1)
    assert len(cause) == 300
    assert cause.endswith("… (exit code 3)")
