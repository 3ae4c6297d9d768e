"""Failures that are alike, and people who have them tried again."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from ccat_ops_db import models
from ccat_ops_db.states import FailureClass, RunStatus
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works

SCANS = {"key": "calibrate", "group_by": ["source"], "max_retries": 0}


@pytest.fixture
def failed(works: Works) -> Works:
    """An installation with three runs that gave up for the same cause, and one for another."""
    for source in ("M17", "M42", "M51", "Saturn"):
        works.staged_on_paper(source, source=source)
    works.define(SCANS)
    works.create()
    works.start()
    *alike, other = [run.id for run in works.runs()]
    for run_id in alike:
        works.fail(run_id, FailureClass.PAYLOAD, f"no line found in '/data/{run_id}/a.fits' at {run_id} GHz")
    works.fail(other, FailureClass.DATA, "the checksum of HDU 1 differs")
    return works


def status(works: Works) -> Sequence[RunStatus]:
    return [run.status for run in works.runs()]


def test_failures_that_are_alike_are_listed_together(failed: Works, say: Say) -> None:
    *_, third, other = failed.runs()
    alike, data = json.loads(say("failures", "--json").stdout)
    assert (alike["runs"], alike["failure_class"], alike["steps"]) == (3, "payload", ["toy/calibrate"])
    assert (alike["run_id"], alike["fingerprint"]) == (third.id, third.fingerprint)
    assert alike["cause"] == third.failure
    assert (data["runs"], data["run_id"]) == (1, other.id)
    assert "2 kinds of failures" in say("failures").stdout
    assert json.loads(say("failures", "--pipeline", "toy", "--json").stdout) == [alike, data]


def test_all_that_are_alike_are_tried_again_at_once(failed: Works, say: Say) -> None:
    first, *_ = failed.runs()
    would = say("run", "retry", "--like", first.id, "--dry-run").stdout
    assert would.startswith("3 runs would be tried again: ")
    assert set(status(failed)) == {RunStatus.FAILED}

    told = json.loads(say("run", "retry", "--like", first.id, "--because", "mended", "--json").stdout)
    ids = [run.id for run in failed.runs()]
    assert (told["retried"], told["refused"]) == (ids[:3], {})
    assert status(failed) == [*[RunStatus.PENDING] * 3, RunStatus.FAILED]
    *_, move = failed.all(models.StatusChange, noun="executed_reduction_step", object_id=first.id)
    assert move.because.endswith(": mended")
    assert "@" in move.by

    assert say("run", "retry", "--fingerprint", failed.runs()[3].fingerprint).stdout.startswith("1 run is tried again")
    started = failed.start()
    assert (len(started.started), started.not_needed) == (4, ())
    assert {run.attempts[-1].number for run in failed.runs()} == {2}


def test_what_is_tried_again_by_hand_has_all_its_retries_before_it(works: Works, say: Say) -> None:
    works.staged_on_paper("a")
    works.define({**SCANS, "max_retries": 1})
    works.create()
    for _ in range(2):
        works.start()
        works.fail(works.run().id)
        works.retry_now()
    assert (works.run().retry_count, works.run().retry_at) == (1, None)
    say("run", "retry", works.run().id)
    works.start()
    works.fail(works.run().id)
    assert works.run().retry_at is not None


def test_only_what_failed_and_nothing_followed_is_tried_again(failed: Works, say: Say) -> None:
    followed, under_way, cancelled, given_up = (run.id for run in failed.runs())
    failed.staged_on_paper("new", source="M17")
    failed.create()
    say("run", "retry", under_way)
    say("run", "retry", cancelled)
    say("run", "cancel", cancelled, "--because", "clouds")
    answer = say("run", "retry", followed, under_way, cancelled, given_up)
    assert answer.exit_code == 0
    command = "`ccat trigger toy --step calibrate --sub-group {}`".format
    paths = [run.sub_group_path for run in failed.runs()]
    assert set(answer.stdout.splitlines()) == {
        f"1 run is tried again: {given_up}",
        f"a newer run of its sub-group came after run {followed}; {command(paths[0])} makes one, if it is wanted",
        f"run {under_way} is under way already: `ccat run why {under_way}` says how far",
        f"run {cancelled} is cancelled, which is final; {command(paths[2])} makes a new one",
    }
    assert say("run", "retry", cancelled).exit_code == 1


def test_what_another_run_makes_is_not_tried_again(works: Works, say: Say) -> None:
    works.staged_on_paper("a")
    works.define({**SCANS, "max_retries": 1})
    works.create()
    works.start()
    works.fail(works.run().id)
    run = works.run()
    assert say("withdraw", "run", run.id, "--because", "wrong host").exit_code == 0
    assert say("run", "why", run.id).stdout.partition("\n\n")[0].splitlines()[-1] == (
        "what comes next: nothing: another run makes what is wanted, and its own results would be refused again"
    )
    assert json.loads(say("failures", "--json").stdout) == []
    command = f"`ccat trigger toy --step calibrate --sub-group {run.sub_group_path}`"
    answer = say("run", "retry", run.id)
    assert (answer.exit_code, answer.stdout.splitlines()) == (
        1,
        [
            "nothing is tried again",
            f"run {run.id} is not needed any more: another run makes what is wanted, by itself or by {command}",
        ],
    )
    assert say("run", "retry", "--like", run.id).exit_code == 1
    works.create()
    assert status(works) == [RunStatus.FAILED, RunStatus.PENDING]


def test_what_belonged_to_a_trigger_belongs_to_it_again(works: Works, say: Say) -> None:
    works.staged_on_paper("a")
    works.define(SCANS, trigger="manual")
    works.create()
    assert say("trigger", "toy").exit_code == 0
    works.create()
    works.start()
    works.fail(works.run().id)
    works.create()
    assert works.all(models.Trigger)[0].closed_at is not None
    say("run", "retry", works.run().id)
    assert works.all(models.Trigger)[0].closed_at is None
    assert works.all(models.RunRequest)[0].run_id == works.run().id


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--like", "999999"), "There is no run 999999"),
        (("--fingerprint", "abc"), "No failure that stands has fingerprint `abc`"),
        (("999999",), "There is no run 999999"),
    ],
)
def test_what_does_not_exist_is_named(failed: Works, say: Say, words: tuple[str, ...], told: str) -> None:
    del failed
    answer = say("run", "retry", *words)
    assert (answer.exit_code, told in answer.stderr) == (1, True)


def test_many_are_tried_again_only_if_somebody_means_it(works: Works, say: Say) -> None:
    works.staged_on_paper("a")
    steps: list[dict[str, Any]] = [{**SCANS, "key": f"step-{number}"} for number in range(21)]
    works.define(*steps)
    works.create()
    works.start()
    for run in works.runs():
        works.fail(run.id)
    like = ("run", "retry", "--like", works.runs()[0].id)
    assert "21 runs would be tried again, more than 20" in say(*like).stderr
    assert set(status(works)) == {RunStatus.FAILED}
    assert say(*like, "--yes").exit_code == 0
    assert set(status(works)) == {RunStatus.PENDING}
