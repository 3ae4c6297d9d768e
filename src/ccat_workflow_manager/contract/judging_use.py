"""What is said of what a reduction reaches for, leaves behind, and uses."""

from datetime import timedelta
from typing import Final

from ccat_workflow_manager.contract.saying import Said, broken, kept, not_judged, some, warned
from ccat_workflow_manager.contract.telling import cause, without_success
from ccat_workflow_manager.contract.values import Case, Trial
from ccat_workflow_manager.hpc.base import GIGABYTE

KILLED: Final = 137
_WAIT: Final = "wait for all children, as what goes on after the end is killed or lost"
_ASK_FOR_MEMORY: Final = "ask for more by --memory-gb, or use less"
_READ_ONLY: Final = "Read-only file system"
_WORTH_COUNTING: Final = timedelta(seconds=2)
"""CPU time below which start-up counts for more than the work."""
_SHORTEST: Final = timedelta(milliseconds=10)
"""What the clock of the wrapper tells apart."""
_TOLERANCE: Final = 1.2
_WASTEFUL: Final = 0.5


def inputs_unchanged(case: Case) -> Said:
    """Whether inputs and config are as they were, in every trial."""
    for trial, seen in case.seen.items():
        if seen.changed:
            return broken(f"in `{trial}`, of its inputs and its config {some(seen.changed)}: only read them")
    return kept("contents, times and permissions of all inputs and of the config are as they were")


def reads(case: Case) -> Said:
    """Whether it reads what it may, and nothing else."""
    if case.subject.image:
        return kept("it ran with what is bound into the image, and nothing else of this host")
    access = case.access
    if access is None:
        return not_judged(_unseen(case))
    if access.read:
        return broken(f"it read {some(access.read)}: what it needs is an input, a parameter, or part of the software")
    return kept("it read its inputs, its config, its software and the system")


def writes(case: Case) -> Said:
    """Whether it writes where it may, and nowhere else."""
    if case.subject.image:
        return _writes_in_image(case)
    access = case.access
    if access is None:
        return not_judged(_unseen(case))
    if access.written:
        return broken(f"it wrote {some(access.written)}: write into WORKFLOW_OUTPUT_DIR, or WORKFLOW_WORKSPACE_DIR")
    if access.temporary:
        return warned(f"it wrote {some(access.temporary)}, where all jobs of a host do: use TMPDIR, which is its own")
    return kept("it wrote into its output, its workspace and its logs only")


def network(case: Case) -> Said:
    """Whether it can do without a network."""
    access = case.access
    if access is None:
        return not_judged("nobody sees this from outside of an image" if case.subject.image else _unseen(case))
    if access.contacted:
        return warned(f"it called {some(access.contacted)}: compute nodes often have no network")
    return kept("it called nobody")


def processes(case: Case) -> Said:
    """Whether everything that it started ended with it."""
    for trial, seen in case.seen.items():
        if seen.left_behind:
            return broken(f"in `{trial}` it left {some(seen.left_behind)} behind: {_WAIT}")
    return kept("nothing of it went on after its end")


def memory(case: Case) -> Said:
    """Memory, beside what was asked."""
    asked = case.subject.memory_gb
    killed = next((trial for trial, seen in case.seen.items() if seen.observation.out_of_memory), None)
    if killed:
        return broken(f"in `{killed}`, {cause(case, case.seen[killed])}: {_ASK_FOR_MEMORY}")
    peak = max((seen.observation.peak_memory_bytes or 0 for seen in case.seen.values()), default=0)
    if not peak:
        return not_judged(f"it ended before its memory could be measured; {asked:g} GB are asked for")
    told = f"{peak / GIGABYTE:.2f} GB at most, of {asked:g} GB that are asked for"
    if peak > asked * GIGABYTE:
        return broken(f"{told}, for too short a time to be caught every time: {_ASK_FOR_MEMORY}")
    return kept(told)


def time(case: Case) -> Said:
    """Time, beside what was asked."""
    observation, asked = case.seen[Trial.RUN].observation, case.subject.time_limit.total_seconds()
    if observation.timed_out:
        return broken(f"it was killed after {asked:g} s: ask for more by --time-hours, or be quicker")
    took = observation.wall_time
    return kept(f"less than {asked:g} s" if took is None else f"{took.total_seconds():.1f} s of {asked:g} s")


def cpu(case: Case) -> Said:
    """CPUs, beside what was asked."""
    observation, asked = case.seen[Trial.RUN].observation, case.subject.cpu
    took, used = observation.wall_time, observation.cpu_time
    if took is None or used is None:
        return not_judged("its CPU time could not be measured")
    cores = used / max(took, _SHORTEST)
    told = f"{used.total_seconds():.1f} s of CPU time, {cores:.1f} CPUs on average of {asked}"
    if used < _WORTH_COUNTING:
        return kept(told)
    if cores > asked * _TOLERANCE:
        return broken(f"{told}: start no more threads than OMP_NUM_THREADS says, or ask for more by --cpu")
    if asked > 1 and cores < asked * _WASTEFUL:
        return warned(f"{told}: it keeps the others from other jobs; ask for fewer by --cpu")
    return kept(told)


def _writes_in_image(case: Case) -> Said:
    for trial, seen in case.seen.items():
        refused = next((line for line in seen.stderr.splitlines() if _READ_ONLY in line), None)
        if refused:
            return broken(f"in `{trial}` it tried to write where it may not: {refused.strip()}")
    return kept("in an image nothing but its own directories can be written, and it complained of nothing")


def _unseen(case: Case) -> str:
    if case.blind:
        return case.blind
    if case.seen[Trial.RUN].left_behind:
        return "it leaves processes behind, and until these end nobody can say; mend that first"
    return without_success(case)
