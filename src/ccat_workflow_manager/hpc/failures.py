"""From what was observed of a job to the kind of its failure, and to the one line that a person reads."""

import re
import signal
from typing import Final

from ccat_ops_db.states import FailureClass
from ccat_workflow_manager.hpc.base import GIGABYTE, JobObservation, JobState

_BY_EXIT_CODE: Final[dict[int | None, FailureClass]] = {
    65: FailureClass.DATA,
    75: FailureClass.INFRASTRUCTURE,
    78: FailureClass.CONFIGURATION,
}
_TELLING: Final = re.compile(
    r"error|exception|fatal|fail|cannot|denied|no such|not found|no space|killed|abort|segmentation fault",
    re.IGNORECASE,
)
_LONGEST_CAUSE: Final = 300
_LINES_WITH_THE_CAUSE: Final = 5


def failure_class(observation: JobObservation) -> FailureClass | None:
    """Return the kind of failure of a job that is over; None if it succeeded, was cancelled or is not over."""
    if not observation.is_over or observation.cancelled:
        return None
    if observation.state is JobState.LOST:
        return FailureClass.INFRASTRUCTURE
    if observation.timed_out or observation.out_of_memory:
        return FailureClass.RESOURCES
    if observation.exit_code == 0:
        return None
    return _BY_EXIT_CODE.get(observation.exit_code, FailureClass.PAYLOAD)


def one_line_cause(log_tail: str, observation: JobObservation, *, memory_gb: float) -> str:
    """Return why a job failed that had so much memory: what the backend knows, else its log and its exit code."""
    known = _known_cause(observation, memory_gb)
    if known:
        return known
    lines = [line.strip() for line in log_tail.splitlines() if line.strip()][-_LINES_WITH_THE_CAUSE:]
    ended = _ended(observation.exit_code)
    if not lines:
        return f"{ended}, and its log is empty"
    says_what_it_means = observation.exit_code in _BY_EXIT_CODE  # and its last line is the reason
    telling = next((line for line in reversed(lines) if _TELLING.search(line)), None)
    if telling is None and not says_what_it_means:
        return _shorten(f"{ended}; its log ends with: {lines[-1]}")
    said = telling or lines[-1]
    if says_what_it_means or observation.exit_code == 1:
        return _shorten(said)
    return f"{_shorten(said, room_for=ended)} ({ended})"


def _known_cause(observation: JobObservation, memory_gb: float) -> str | None:
    where = f" on {observation.host}" if observation.host else ""
    if observation.state is JobState.LOST:
        if observation.trouble:
            return f"the job was lost{where}: {observation.trouble}"
        return f"the job vanished{where} without leaving an exit code"
    if observation.state is JobState.UNKNOWN:
        return "the cluster could not tell what became of the job until its time limit was long over"
    if observation.timed_out:
        after = f" after {observation.wall_time.total_seconds():.0f} s" if observation.wall_time else ""
        return f"time limit reached{after}{where}"
    if observation.out_of_memory:
        peak = observation.peak_memory_bytes
        used = f"it used {peak / GIGABYTE:.2f} GB and had" if peak else "it had"
        return f"out of memory{where}: {used} {memory_gb:g} GB"
    return None


def _ended(code: int | None) -> str:
    if code is not None and code > 128:  # noqa: PLR2004 the shell's convention: 128 + signal
        with_name = {int(known): known.name for known in signal.Signals}
        return f"killed by {with_name.get(code - 128, f'signal {code - 128}')}"
    return f"exit code {code}"


def _shorten(line: str, *, room_for: str = "") -> str:
    longest = _LONGEST_CAUSE - len(room_for and f" ({room_for})")
    return line if len(line) <= longest else line[: longest - 1] + "…"
