"""Verdicts from what was seen, without any process."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ccat_ops_db.states import DataProductType
from ccat_workflow_manager.contract.judging import findings, is_traced, is_worth, stop_after
from ccat_workflow_manager.contract.values import Case, Finding, Given, Made, Point, Seen, Subject, Trial, Verdict
from ccat_workflow_manager.execution.products import Product
from ccat_workflow_manager.hpc.base import JobObservation, JobState

MAP = Product(path="map.fits", type=DataProductType.SCIENCE, checksum="sha256:" + "0" * 64, size_bytes=1)


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


def test_more_memory_than_is_asked_for_is_broken_also_where_nobody_was_quick_enough_to_kill_it() -> None:
    finding = judged(run=seen(peak_memory_bytes=2_500_000_000))[Point.MEMORY]
    assert (finding.verdict, finding.said[:15]) == (Verdict.BROKEN, "2.50 GB at most")


def test_memory_counts_in_every_trial() -> None:
    killed = seen(137, out_of_memory=True)
    finding = judged(run=seen(peak_memory_bytes=1), again=killed)[Point.MEMORY]
    assert (finding.verdict, finding.said[:25]) == (Verdict.BROKEN, "in `again`, out of memory")


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
    elsewhere = seen(78, stderr="12:00:07 chai: no FITS file in /tmp/t/run/attempt-1/input")
    again = seen(78, stderr="12:00:09 chai: no FITS file in /tmp/t/unknown-parameter/attempt-1/input")
    assert judged(run=elsewhere, unknown_parameter=again)[Point.UNKNOWN_PARAMETER].verdict is Verdict.NOT_JUDGED
    other = seen(78, stderr="chai: no such parameter")
    assert judged(run=alike, unknown_parameter=other)[Point.UNKNOWN_PARAMETER].verdict is Verdict.KEPT


def test_where_nothing_could_be_collected_nothing_is_the_same() -> None:
    refused = seen(made=Made(refused="it links to /etc/passwd"))
    found = judged(run=refused, again=refused)
    assert (found[Point.SAME_BYTES].verdict, found[Point.PRODUCTS].verdict) == (Verdict.NOT_JUDGED, Verdict.BROKEN)
    assert judged(run=seen(), again=seen())[Point.SAME_BYTES].verdict is Verdict.NOT_JUDGED


def test_what_ends_with_0_after_sigterm_has_taken_no_notice_or_says_that_it_is_done() -> None:
    whole = seen(wall_time=timedelta(seconds=3), made=Made(products=[MAP]))
    finding = judged(run=whole, again=whole, termination=replace(whole, was_stopped=True))[Point.TERMINATION]
    assert (finding.verdict, finding.said[:58]) == (
        Verdict.WARNED,
        "it took no notice of SIGTERM, and ended 2.0 s later with a",
    )
    half = seen(wall_time=timedelta(seconds=1.2), was_stopped=True)
    finding = judged(run=whole, again=whole, termination=half)[Point.TERMINATION]
    assert (finding.verdict, finding.said[:38]) == (Verdict.WARNED, "SIGTERM ended it with exit code 0, whi")
    cut_short = seen(143, wall_time=timedelta(seconds=1.2), was_stopped=True)
    finding = judged(run=whole, again=whole, termination=cut_short)[Point.TERMINATION]
    assert (finding.verdict, finding.said) == (Verdict.KEPT, "SIGTERM ended it within 0.2 s")


def test_whatever_names_software_gives_a_line_can_be_printed() -> None:
    said = judged(run=seen(changed=["a\nb\x1b[31m\udcff is new"]))[Point.INPUTS_UNCHANGED].said
    assert r"a\nb\x1b[31m\udcff is new" in said
    assert said.encode()


def test_nobody_who_gave_inputs_is_told_to_give_some() -> None:
    given = Subject(command=("chai",), given=Given(raw=[Path("scan.fits")]))
    assert [one.said for one in judged(given, run=seen(65)).values() if "--raw" in one.said] == []


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
