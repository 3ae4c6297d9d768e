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
_TELLING: Final = re.compile(r"error|exception|fatal|fail|cannot|denied|no such|not found|killed|abort", re.IGNORECASE)
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


def one_line_cause(log_tail: str, observation: JobObservation) -> str:
    """Return why a job failed: what the backend knows, else the last telling line of its log, else the exit code."""
    known = _known_cause(observation)
    if known:
        return known
    return _shorten(_last_telling_line(log_tail) or _exit(observation.exit_code))


def _known_cause(observation: JobObservation) -> str | None:
    where = f" on {observation.host}" if observation.host else ""
    if observation.state is JobState.LOST:
        return f"the job vanished{where} without leaving an exit code"
    if observation.state is JobState.UNKNOWN:
        return "the cluster could not tell what became of the job until its time limit was long over"
    if observation.timed_out:
        after = f" after {observation.wall_time.total_seconds():.0f} s" if observation.wall_time else ""
        return f"time limit reached{after}{where}"
    if observation.out_of_memory:
        peak = observation.peak_memory_bytes
        with_peak = f" with {peak / GIGABYTE:.2f} GB" if peak else ""
        return f"out of memory{with_peak}{where}"
    return None


def _last_telling_line(log_tail: str) -> str | None:
    lines = [line.strip() for line in log_tail.splitlines() if line.strip()][-_LINES_WITH_THE_CAUSE:]
    return next((line for line in reversed(lines) if _TELLING.search(line)), lines[-1] if lines else None)


def _exit(code: int | None) -> str:
    if code is not None and code > 128:  # noqa: PLR2004 the shell's convention: 128 + signal
        with_name = {int(known): known.name for known in signal.Signals}
        return f"killed by {with_name.get(code - 128, f'signal {code - 128}')}, and its log is empty"
    return f"exit code {code}, and its log is empty"


def _shorten(line: str) -> str:
    return line if len(line) <= _LONGEST_CAUSE else line[: _LONGEST_CAUSE - 1] + "…"
