"""Verdicts from what was seen, without any process."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from ccat_workflow_manager.contract.judging import findings, is_traced, is_worth, stop_after
from ccat_workflow_manager.contract.values import Case, Finding, Made, Point, Seen, Subject, Trial, Verdict
from ccat_workflow_manager.hpc.base import JobObservation, JobState


def seen(code: int = 0, **given: Any) -> Seen:
    of_observation = {name: given.pop(name) for name in set(given) & set(JobObservation.__dataclass_fields__)}
    observation = JobObservation(state=JobState.FINISHED, exit_code=code, **of_observation)
    said = given.pop("stderr", "no lines: error" if code else "")
    return Seen(observation=observation, log_tail=said, stderr=said, made=given.pop("made", Made()), **given)


def judged(subject: Subject | None = None, **trials: Seen) -> Mapping[Point, Finding]:
    every = {Trial(name.replace("_", "-")): one for name, one in trials.items()}
    usual = {Trial.UNKNOWN_PARAMETER: seen(78), Trial.MISSING_MANIFEST: seen(78)}
    case = Case(subject=subject or Subject(command=("chai",)), seen={**usual, **every}, damaged="scan.bin")
    return {one.point: one for one in findings(case)}


@pytest.mark.parametrize(
    ("wall", "cpu", "asked", "verdict"),
    [
        (10, 9, 1, Verdict.KEPT),
        (10, 38, 1, Verdict.BROKEN),
        (10, 38, 4, Verdict.KEPT),
        (10, 9, 4, Verdict.WARNED),
        (0.2, 0.9, 1, Verdict.KEPT),
    ],
)
def test_cpus_are_compared_with_what_is_asked_for(wall: float, cpu: float, asked: int, verdict: Verdict) -> None:
    run = seen(wall_time=timedelta(seconds=wall), cpu_time=timedelta(seconds=cpu))
    assert judged(Subject(command=("chai",), cpu=asked), run=run)[Point.CPU].verdict is verdict


def test_memory_is_told_beside_what_is_asked_for() -> None:
    finding = judged(run=seen(peak_memory_bytes=1_500_000_000))[Point.MEMORY]
    assert (finding.verdict, finding.said) == (Verdict.KEPT, "1.50 GB at most, of 2 GB that are asked for")


def test_what_never_started_is_judged_in_nothing_else() -> None:
    found = judged(run=seen(127, stderr="timeout: failed to run command 'chai': No such file or directory"))
    assert {one.verdict for point, one in found.items() if point is not Point.STARTS} == {Verdict.NOT_JUDGED}
    assert found[Point.STARTS].said.startswith("failed to run command 'chai': No such file or directory: it is looked")


def test_127_of_the_software_itself_is_not_taken_for_a_command_that_is_missing() -> None:
    assert judged(run=seen(127, stderr="sh: chai: not found"))[Point.STARTS].verdict is Verdict.KEPT


def test_what_software_without_an_image_says_is_not_taken_for_words_of_apptainer() -> None:
    assert judged(run=seen(1, stderr="ERROR: no lines"))[Point.STARTS].verdict is Verdict.KEPT


def test_a_refusal_of_made_inputs_says_nothing_about_parameters_where_both_end_alike() -> None:
    alike = seen(78, stderr="chai: no FITS file")
    assert judged(run=alike, unknown_parameter=alike)[Point.UNKNOWN_PARAMETER].verdict is Verdict.NOT_JUDGED
    other = seen(78, stderr="chai: no such parameter")
    assert judged(run=alike, unknown_parameter=other)[Point.UNKNOWN_PARAMETER].verdict is Verdict.KEPT


def test_trials_that_would_tell_nothing_are_not_made() -> None:
    subject = Subject(command=("chai",))

    def worth(run: Seen, *, damaged: str | None = "scan.bin") -> set[Trial]:
        case = Case(subject=subject, seen={Trial.RUN: run}, damaged=damaged)
        return {one for one in Trial if one is not Trial.RUN and is_worth(one, case)}

    quick, long = timedelta(seconds=0.1), timedelta(seconds=9)
    started = {Trial.UNKNOWN_PARAMETER, Trial.MISSING_MANIFEST}
    assert worth(seen(127, stderr="timeout: failed to run command 'chai'")) == set()
    assert worth(seen(65, wall_time=long)) == started
    assert worth(seen(wall_time=quick)) == {*started, Trial.AGAIN, Trial.DAMAGED_INPUT}
    assert worth(seen(wall_time=long), damaged=None) == {*started, Trial.AGAIN, Trial.TERMINATION}


def test_it_is_asked_to_end_while_it_is_at_work() -> None:
    cold, warm = seen(wall_time=timedelta(seconds=9)), seen(wall_time=timedelta(seconds=6))
    case = Case(subject=Subject(command=("chai",)), seen={Trial.RUN: cold, Trial.AGAIN: warm})
    assert stop_after(Trial.TERMINATION, case) == timedelta(seconds=2)
    assert stop_after(Trial.AGAIN, case) is None


def test_what_leaves_processes_behind_is_not_traced_as_that_would_wait_for_them() -> None:
    cases = [Case(subject=Subject(command=("x",)), seen={Trial.RUN: seen(left_behind=left)}) for left in ((), ("d",))]
    assert [is_traced(Trial.AGAIN, case) for case in cases] == [True, False]
