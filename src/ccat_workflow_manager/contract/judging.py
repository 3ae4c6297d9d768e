"""From what was seen to a verdict for each point: decisions only."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from ccat_workflow_manager.contract import judging_products as products
from ccat_workflow_manager.contract import judging_use as use
from ccat_workflow_manager.contract.saying import Said, broken, kept, not_judged, printable, warned
from ccat_workflow_manager.contract.telling import (
    cause,
    is_refusal,
    said_alike,
    start_trouble,
    succeeded,
    without_success,
)
from ccat_workflow_manager.contract.values import Case, Finding, Point, Seen, Trial

_SHORTEST: Final = timedelta(milliseconds=200)
"""A run that is over sooner cannot be stopped in the middle."""
_DATA, _CONFIGURATION = 65, 78
_PUBLISHED: Final = frozenset({0, 1, _DATA, 75, _CONFIGURATION})
_ON_SUCCESS: Final = frozenset({Trial.AGAIN, Trial.TERMINATION, Trial.DAMAGED_INPUT})
_NEVER_STARTED: Final = "it did not start, so nothing else was seen"


def is_worth(trial: Trial, case: Case) -> bool:
    """Whether a trial would tell anything after what was seen so far."""
    first = case.seen.get(Trial.RUN)
    if first is None:
        return trial is Trial.RUN
    if start_trouble(case):
        return False
    if trial is Trial.TERMINATION and stop_after(trial, case) is None:
        return False
    if trial is Trial.DAMAGED_INPUT and case.damaged is None:
        return False
    return succeeded(first) or trial not in _ON_SUCCESS


def is_traced(trial: Trial, case: Case) -> bool:
    """Whether it is watched what files a trial opens: it would be told to wait for what it leaves behind."""
    return trial is Trial.AGAIN and not case.subject.image and not case.seen[Trial.RUN].left_behind


def stop_after(trial: Trial, case: Case) -> timedelta | None:
    """Return after what time a trial is asked to end: at a third, so that it is at work; None if it is not asked."""
    before = [case.seen[one].observation.wall_time for one in (Trial.RUN, Trial.AGAIN) if one in case.seen]
    shortest = min(
        (took for took in before if took is not None), default=timedelta()
    )  # the first one finds cold caches
    return shortest / 3 if trial is Trial.TERMINATION and shortest >= _SHORTEST else None


def findings(case: Case) -> Sequence[Finding]:
    """Say of every point what is to be said."""
    has_started = not start_trouble(case)
    said = {
        point: judge(case) if has_started or point is Point.STARTS else not_judged(_NEVER_STARTED)
        for point, judge in _JUDGES.items()
    }
    return [Finding(point, verdict, printable(sentence)) for point, (verdict, sentence) in said.items()]


def _starts(case: Case) -> Said:
    trouble = start_trouble(case)
    return broken(trouble) if trouble else kept("it starts with the command line and the environment of a run")


def _exit_code(case: Case) -> Said:
    first, code = case.seen[Trial.RUN], case.seen[Trial.RUN].observation.exit_code
    if succeeded(first):
        return kept("exit code 0")
    why = cause(case, first)
    if not case.subject.given and is_refusal(first):
        return kept(f"exit code {code}: it refuses inputs that were made up; give it its own by --raw ({why})")
    if code not in _PUBLISHED or case.subject.given:
        told = {_DATA: "it calls the inputs bad", _CONFIGURATION: "it calls the configuration wrong"}
        return broken(f"{told.get(code or 0, 'it failed')}, with exit code {code}: {why}")
    return warned(
        f"exit code {code}: made-up inputs are bad data, for which 65 keeps it from being tried again ({why})"
    )


def _cause(case: Case) -> Said:
    failed = {trial: seen for trial, seen in case.seen.items() if not seen.was_stopped and seen.observation.exit_code}
    if not failed:
        return not_judged("it never failed, so it had no reason to say why")
    mute = [trial for trial, seen in failed.items() if not seen.stderr.strip()]
    if mute:
        return broken(f"in `{mute[0]}` it failed without a word: end with one line on standard error that says why")
    trial, seen = next(iter(failed.items()))
    return kept(f"in `{trial}` people read: {cause(case, seen)}")


def _unknown_parameter(case: Case) -> Said:
    seen = case.seen[Trial.UNKNOWN_PARAMETER]
    code, why = seen.observation.exit_code, cause(case, seen)
    if code and said_alike(case, Trial.UNKNOWN_PARAMETER, Trial.RUN):
        return not_judged(f"it ended with {code}, as without the unknown parameter: {without_success(case)}")
    if code == _CONFIGURATION:
        return kept(f"exit code 78: {why}")
    if code == 0:
        return warned("it ignores a parameter that it does not know, and so a misspelt one: refuse it with 78")
    return warned(f"exit code {code} where 78 says that the configuration is wrong, and keeps it from being retried")


def _missing_manifest(case: Case) -> Said:
    code = case.seen[Trial.MISSING_MANIFEST].observation.exit_code
    if code == _CONFIGURATION:
        return kept("exit code 78")
    if code == 0:
        return broken("exit code 0 though there is no manifest: read the file that WORKFLOW_MANIFEST names")
    return warned(f"exit code {code} where 78 says that it was started in a wrong way")


def _damaged_input(case: Case) -> Said:
    seen = case.seen.get(Trial.DAMAGED_INPUT)
    if seen is None and case.damaged is None:
        return not_judged("there is no input file that it reads, and that could be damaged")
    if seen is None:
        return not_judged(without_success(case))
    code = seen.observation.exit_code
    if code == _DATA:
        return kept(f"exit code 65: {cause(case, seen)}")
    if code == 0:
        remedy = "compare each input with its checksum in the manifest, and end with 65 where they differ"
        unless = "" if case.access else "; if it does not read that file, test it without"
        return broken(f"exit code 0 though bytes in {case.damaged} were turned over: {remedy}{unless}")
    return warned(f"exit code {code} where 65 says that the data are bad, and keeps it from being tried again")


def _termination(case: Case) -> Said:
    seen = case.seen.get(Trial.TERMINATION)
    if seen is None and succeeded(case.seen[Trial.RUN]):
        return not_judged("it ends too soon to be stopped in the middle; give it larger inputs by --raw")
    if seen is None:
        return not_judged(without_success(case))
    if not seen.was_stopped:
        return not_judged("it had ended before it could be stopped")
    grace = case.subject.grace.total_seconds()
    took = seen.observation.wall_time
    asked = stop_after(Trial.TERMINATION, case)
    if seen.observation.exit_code == use.KILLED or took is None or asked is None:
        return broken(f"it went on for {grace:g} s after SIGTERM, and was killed: let the signal end it")
    after = max((took - asked).total_seconds(), 0.1)
    if succeeded(seen):
        return _as_if_done(case, seen, after=after)
    return kept(f"SIGTERM ended it within {after:.1f} s")


def _as_if_done(case: Case, seen: Seen, *, after: float) -> Said:
    if _paths(seen) == _paths(case.seen[Trial.RUN]):
        grace = case.subject.grace.total_seconds()
        remedy = f"with more than {grace:g} s of work left it is killed; let the signal end it"
        return warned(f"it took no notice of SIGTERM, and ended {after:.1f} s later with all its products: {remedy}")
    remedy = "what there is would be taken for all its products; end with 143, or any other code"
    return warned(f"SIGTERM ended it with exit code 0, which says that it is done: {remedy}")


def _paths(seen: Seen) -> set[str]:
    return {one.path for one in seen.made.products}


_JUDGES: Final[Mapping[Point, Callable[[Case], Said]]] = {
    Point.STARTS: _starts,
    Point.EXIT_CODE: _exit_code,
    Point.CAUSE: _cause,
    Point.REQUIRED_OUTPUTS: products.required_outputs,
    Point.PRODUCTS: products.acceptable,
    Point.ANNOTATIONS: products.annotations,
    Point.SORTING: products.sorting,
    Point.INPUTS_UNCHANGED: use.inputs_unchanged,
    Point.READS: use.reads,
    Point.WRITES: use.writes,
    Point.NETWORK: use.network,
    Point.PROCESSES: use.processes,
    Point.MEMORY: use.memory,
    Point.TIME: use.time,
    Point.CPU: use.cpu,
    Point.SAME_BYTES: products.same_bytes,
    Point.UNKNOWN_PARAMETER: _unknown_parameter,
    Point.MISSING_MANIFEST: _missing_manifest,
    Point.TERMINATION: _termination,
    Point.DAMAGED_INPUT: _damaged_input,
}
