"""Which run carries out what is asked for: the one that there is, the next one, and what follows from it."""

from datetime import timedelta
from random import Random
from typing import Any

import pytest

from ccat_ops_db.states import RunReason, RunStatus, Verdict
from ccat_ops_db.verbs.planning import make_plan
from ccat_workflow_manager.verbs.launching import launch
from tests.engine.history import History
from tests.engine.order import check

SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
MAP: dict[str, Any] = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"], "cooldown_seconds": 7200}
FLAT_MAP = {**MAP, "depends_on": []}


def begun(history: History, **what: Any) -> int:
    """The only run that a wish starts."""
    history.wish(**what)
    history.create()
    [run_id] = history.start().started
    return run_id


def test_what_is_wanted_while_a_run_is_under_way_is_run_after_it(history: History) -> None:
    history.define({**MAP, "depends_on": []}, trigger="manual")
    history.archive()
    run_id = begun(history)
    history.archive()
    assert history.wish().requested == 1
    assert history.create() == 0  # never two at once
    history.complete(run_id)
    assert history.settle() == ["grid"]
    assert history.verdicts() == {"grid M17": Verdict.UP_TO_DATE}
    assert history.open_triggers() == []


def test_what_is_ready_while_the_map_of_the_same_wish_is_under_way_is_in_the_next(history: History) -> None:
    history.define(SCAN, {**MAP, "readiness": "available", "min_fraction": 0.5}, trigger="manual")
    history.archive()
    history.archive()
    history.wish()
    history.create()
    first, second = sorted(history.start().started)
    history.complete(first)
    history.create()
    [half] = history.start().started
    history.complete(second)
    history.create()
    history.complete(half)
    assert history.settle() == ["grid"]
    assert history.verdicts()["grid M17"] is Verdict.UP_TO_DATE


def test_a_retry_that_is_given_up_for_other_inputs_leaves_the_wish(history: History) -> None:
    history.define({**MAP, "depends_on": []}, trigger="manual")
    history.archive()
    run_id = begun(history)
    history.archive()
    history.fail(run_id, retried=True)
    assert history.settle() == ["grid"]
    assert history.verdicts() == {"grid M17": Verdict.UP_TO_DATE}


@pytest.mark.parametrize("is_started", [False, True])
def test_what_is_forced_twice_runs_twice_only_if_the_first_has_started(history: History, *, is_started: bool) -> None:
    history.define(SCAN, trigger="manual")
    history.archive()
    history.wish()
    assert history.settle() == ["calibrate"]
    assert history.wish(force=True).requested == 1
    history.create()
    started = history.start().started if is_started else ()
    assert history.wish(force=True).requested == len(started)
    history.create()
    history.complete(*started)
    assert len(started) + len(history.settle()) == 1 + len(started)


def test_what_was_wanted_only_if_necessary_can_still_be_forced(history: History) -> None:
    history.define(SCAN, trigger="manual")
    history.archive()
    history.wish()
    assert history.settle() == ["calibrate"]
    history.configure("calibrate", 1)
    assert history.wish().requested == 1
    again = history.wish(force=True)
    assert (again.requested, again.requested_before) == (1, 0)
    assert history.triggers()[0].is_forced  # who forced it, and why, is kept
    history.configure("calibrate", 0)  # nothing is necessary any more
    assert history.settle() == ["calibrate"]
    history.wish(force=True)
    history.create()
    assert (history.wish(force=True).requested_before, history.settle()) == (1, ["calibrate"])
    assert history.open_triggers() == []


def test_a_forced_map_waits_for_the_scans_that_are_forced_with_it(history: History) -> None:
    history.is_restless = True
    history.define(SCAN, MAP, trigger="manual")
    history.archive()
    history.archive()
    history.wish()
    assert history.settle() == ["calibrate", "calibrate", "grid"]
    history.wish(force=True)
    assert history.settle(order=Random(0)) == ["calibrate", "calibrate", "grid"]  # noqa: S311 - no secret


def test_what_takes_a_calibration_of_the_same_wish_is_run_with_it(history: History) -> None:
    rule = {"name": "flat", "from": "it/calibrate", "max_age": "1d", "on_missing": "fail"}
    history.define(SCAN, {**MAP, "depends_on": [], "auxiliary": [rule]}, trigger="manual")
    history.archive()
    assert (history.wish().requested, history.settle()) == (1, ["calibrate", "grid"])
    assert history.open_triggers() == []


def test_a_wish_for_which_nothing_is_to_be_done_is_none(history: History) -> None:
    history.define(SCAN, trigger="manual")
    opened = history.wish()
    assert (opened.trigger_id, opened.requested, history.triggers()) == (None, 0, [])


@pytest.mark.parametrize("outcome", ["fail", "cancel"])
def test_what_is_wanted_while_a_run_of_the_same_is_under_way_is_that_run(history: History, *, outcome: str) -> None:
    history.define(FLAT_MAP, trigger="manual")
    history.archive()
    run_id = begun(history)
    assert (history.wish().requested, history.wish().requested_before) == (0, 1)
    getattr(history, outcome)(run_id)
    assert history.settle() == []  # it was given up; nobody wanted it again since
    assert history.wish().requested == 1
    assert history.settle() == ["grid"]


@pytest.mark.parametrize("how", ["inputs", "recipe"])
def test_a_retry_that_is_outdated_when_it_is_to_start_leaves_the_wish(history: History, *, how: str) -> None:
    history.define(FLAT_MAP, trigger="manual")
    history.archive()
    run_id = begun(history)
    history.fail(run_id, retried=True)
    history.create()
    history.offset += timedelta(hours=3)
    assert history.retry() == [run_id]
    if how == "inputs":
        history.archive()
    else:
        history.configure("grid", 7)
    assert history.settle() == ["grid"]


def test_what_is_asked_again_for_that_does_not_rest(history: History) -> None:
    history.define({**FLAT_MAP, "cooldown_seconds": 36_000})
    history.archive()
    history.wish()
    assert history.settle() == ["grid"]
    history.archive()
    run_id = begun(history)
    history.fail(run_id, retried=True)
    history.create()
    history.offset += timedelta(hours=2)
    assert history.retry() == [run_id]
    history.archive()
    assert history.settle() == ["grid"]


@pytest.mark.parametrize("is_wanted_besides", [False, True])
def test_what_is_forced_stays_so_when_its_run_is_outdated_at_its_start(
    history: History, *, is_wanted_besides: bool
) -> None:
    history.define(FLAT_MAP, trigger="manual")
    history.archive()
    history.wish()
    assert history.settle() == ["grid"]
    package = history.archive()
    run_id = begun(history, force=True)
    history.fail(run_id, retried=True)
    history.create()
    history.offset += timedelta(hours=2)
    assert history.retry() == [run_id]
    history.exclude(package)
    if is_wanted_besides:
        history.wish()
    assert history.settle() == ["grid"]
    assert (history.runs()[-1].reason, history.open_triggers()) == (RunReason.REQUESTED, [])


def test_a_forced_run_that_is_taken_up_again_is_still_forced(history: History) -> None:
    history.define(FLAT_MAP, trigger="manual")
    history.archive()
    history.wish()
    history.settle()
    run_id = begun(history, force=True)
    history.fail(run_id)
    assert history.settle() == []
    history.take_up(run_id)
    assert history.settle() == ["grid"]


def test_a_forced_map_that_is_blocked_holds_nothing_up(history: History) -> None:
    everything = {"key": "all", "group_by": [], "depends_on": ["grid"], "on_failed_input": "omit"}
    history.define(SCAN, {**MAP, "cooldown_seconds": 0}, everything)
    history.archive()
    history.settle()
    history.archive()
    history.create()
    for run_id in history.start().started:
        history.fail(run_id)
    history.settle()
    made = len(history.runs_of("all"))
    history.wish(step="grid", force=True)
    history.archive(source="Orion A")
    assert history.settle() == ["calibrate", "grid", "all"]
    assert len(history.runs_of("all")) == made + 1


def test_a_wish_for_nothing_closes_no_other(history: History) -> None:
    history.is_restless = True
    history.define(SCAN, {**MAP, "cooldown_seconds": 0}, {"key": "other", "group_by": []}, trigger="manual")
    history.archive()
    history.wish()
    history.settle()
    history.configure("calibrate", 5)
    run_id = begun(history)
    history.set_state("calibrate", "1.0", "retired")
    history.create()
    history.complete(run_id)
    assert history.wish(step="other").requested == 0
    assert history.settle() == ["grid"]


def test_what_is_forced_while_its_first_run_waits_is_that_run(history: History) -> None:
    history.define(SCAN)
    history.archive()
    history.create()
    assert history.wish(force=True).requested == 1
    assert history.settle() == ["calibrate"]
    assert [one.runs for one in history.triggers()] == [{RunStatus.COMPLETED: 1}]


def test_runs_that_were_there_before_the_pipeline_waited_for_wishes_are_followed(history: History) -> None:
    history.define(SCAN, {**MAP, "cooldown_seconds": 0})
    history.archive()
    history.settle()
    history.configure("calibrate", 3)
    history.create()
    history.keys = {"trigger": "manual"}
    history.apply()
    assert history.wish().requested == 1
    assert history.settle() == ["calibrate", "grid"]


def test_a_sub_group_that_is_gone_for_a_while_stays_wanted(history: History) -> None:
    history.is_restless = True
    history.define(SCAN, {**MAP, "cooldown_seconds": 0}, trigger="manual")
    package = history.archive()
    history.wish()
    history.settle()
    history.configure("calibrate", 3)
    run_id = begun(history)
    history.move(run_id, RunStatus.SUBMITTED, RunStatus.COLLECTING_RESULTS)
    history.exclude(package)
    history.create()
    history.readmit(package)
    history.create()
    history.complete(run_id)
    assert history.settle() == ["grid"]


def test_a_wish_goes_with_the_run_that_is_cancelled_as_its_sub_group_is_gone(history: History) -> None:
    history.define(SCAN, {**MAP, "cooldown_seconds": 0}, trigger="manual")
    package = history.archive()
    begun(history)
    history.exclude(package)
    history.create()
    assert history.ids(RunStatus.CANCELLED)
    history.readmit(package)
    assert (history.settle(), history.open_triggers()) == ([], [])
    history.wish()
    assert history.settle() == ["calibrate", "grid"]


def test_a_run_that_is_taken_up_again_carries_its_wish_on(history: History) -> None:
    history.define(SCAN, MAP, trigger="manual")
    history.archive()
    run_id = begun(history)
    history.fail(run_id)
    assert (history.settle(), history.open_triggers()) == ([], [])
    history.take_up(run_id)
    assert history.settle() == ["calibrate", "grid"]
    assert history.open_triggers() == []


def test_force_is_kept_when_what_it_asked_for_is_asked_again(history: History) -> None:
    history.define(FLAT_MAP, trigger="manual")
    history.archive()
    history.wish()
    history.settle()
    run_id = begun(history, force=True)
    package = history.archive()
    history.wish()
    history.fail(run_id, retried=True)
    history.create()
    history.exclude(package)
    assert history.settle() == ["grid"]


def test_a_plan_of_which_nothing_holds_opens_no_trigger(history: History) -> None:
    history.define(SCAN, trigger="manual")
    history.archive()
    made = history.session(lambda session: make_plan(session, "it", step=None, now=history.now, by="a test"))
    assert made.plan
    plan_id = made.plan.id
    for created in (1, 0):
        launched = history.session(lambda session: launch(session, plan_id, now=history.now, by="a test"))
        assert launched.created == created
        history.settle()
    assert [one.closed_at is not None for one in history.triggers()] == [True]


def test_a_plan_takes_nothing_that_was_just_made_again(history: History) -> None:
    history.define(SCAN, trigger="manual")
    history.archive()
    history.wish()
    history.settle()
    history.wish(force=True)
    made = history.session(lambda session: make_plan(session, "it", step=None, now=history.now, by="a test"))
    assert made.plan
    plan_id = made.plan.id
    history.create()
    history.complete(*history.start().started)
    assert history.session(lambda session: launch(session, plan_id, now=history.now, by="a test")).created == 0
    assert history.settle() == []


def test_two_requests_for_a_sub_group_are_one_to_the_oracle(history: History) -> None:
    history.define(FLAT_MAP, trigger="manual")
    package = history.archive()
    history.wish()
    history.settle()
    history.wish(force=True)
    history.create()
    history.start()
    history.archive()
    history.wish()
    history.create()
    check(history)
    history.exclude(package)
    check(history)
    assert [one.requested for one in history.triggers()][:2] == [1, 1]


def test_a_scan_that_is_not_complete_holds_the_map_with_and_without_a_wish(history: History) -> None:
    history.define({**SCAN, "wait_for": "scan_complete"}, MAP, trigger="manual")
    history.archive()
    open_scan = history.archive(hours_ago=1)
    history.announce(open_scan)
    history.wish()
    assert history.settle() == ["calibrate"]
    assert history.verdicts()["grid M17"] is Verdict.BLOCKED
    assert history.open_triggers() == []
