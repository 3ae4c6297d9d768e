"""What the end of a trial means, in the words that people would read of a run."""

import re
from typing import Final

from ccat_workflow_manager.contract.values import Case, Seen, Trial
from ccat_workflow_manager.execution.container import container_trouble
from ccat_workflow_manager.hpc.failures import one_line_cause

_REFUSALS: Final = frozenset({65, 75, 78})
_NOT_EXECUTED: Final = frozenset({125, 126, 127})
_NUMBER: Final = re.compile(r"\d+")
_WATCHMAN: Final = "timeout: failed to run command"
"""What the wrapper's `timeout` says of a command that it cannot execute."""


def succeeded(seen: Seen) -> bool:
    """Whether it ended with 0."""
    return seen.observation.exit_code == 0


def is_refusal(seen: Seen) -> bool:
    """Whether it ended with a code by which software says that it is not its fault."""
    return seen.observation.exit_code in _REFUSALS


def without_success(case: Case) -> str:
    """Why there is nothing to be judged of a reduction that did not end well."""
    return f"it did not end well{'' if case.subject.given else '; give it inputs of its own by --raw'}"


def cause(case: Case, seen: Seen) -> str:
    """Why a trial failed, as people read it of a run."""
    return one_line_cause(seen.log_tail, seen.observation, memory_gb=case.subject.memory_gb)


def said_alike(case: Case, trial: Trial, other: Trial) -> bool:
    """Whether two trials failed for one reason: what differs is no more than the trial's own paths, and numbers."""
    return _without_its_own(trial, case) == _without_its_own(other, case)


def _without_its_own(trial: Trial, case: Case) -> tuple[int | None, str]:
    seen = case.seen[trial]
    said = cause(case, seen).replace(f"/{trial}/", "/")
    return seen.observation.exit_code, _NUMBER.sub("0", said)


def start_trouble(case: Case) -> str | None:
    """Why the software was never executed; None where it was."""
    seen = case.seen[Trial.RUN]
    code = seen.observation.exit_code
    if case.subject.image and (trouble := container_trouble(code, seen.stderr)):
        return trouble[1]
    last = (seen.stderr.strip().splitlines() or [""])[-1]
    if code in _NOT_EXECUTED and last.startswith(_WATCHMAN):
        where = "it is looked for in the bin of --environment, and in /usr/local/bin, /usr/bin and /bin"
        return f"{last.removeprefix('timeout: ')}: {where}; relative paths begin in the workspace"
    return None
