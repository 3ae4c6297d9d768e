"""Trials: something is tried out on a sub-group, and nothing that decides what is necessary sees it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.trials import InvalidKeep, InvalidSetting, parse_keep, with_settings
from ccat_ops_db.queries.configs import config_of
from ccat_ops_db.queries.triggers import list_triggers
from ccat_ops_db.states import ProductState, RunReason, RunStatus
from ccat_ops_db.verbs.pausing import pause
from ccat_workflow_manager.verbs.requesting import PipelineDisabled, Wish, open_wish
from ccat_workflow_manager.verbs.trying import CannotTry
from tests.engine.happenings import DEFINED, EVENTS, end, undergo
from tests.engine.history import History

SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
MAP: dict[str, Any] = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}
CURRENT, SUPERSEDED, TRIAL = ProductState.CURRENT, ProductState.SUPERSEDED, ProductState.TRIAL
ENDS = ["complete", "fail", "retry", "cancel", "nothing"]
_Run = models.ExecutedReductionStep


def paths(history: History, step: str) -> list[str]:
    return [one.path for one in history.gap().values() if one.step.key == step]


def trials(history: History) -> list[models.ExecutedReductionStep]:
    return [run for run in history.runs() if run.is_trial]


def done(history: History) -> str:
    """A scan that is calibrated and mapped; the path of its calibration."""
    history.define(SCAN, MAP)
    history.archive()
    history.settle()
    return paths(history, "calibrate")[0]


@settings(max_examples=200, derandomize=True)
@given(
    shape=st.sampled_from(sorted(DEFINED)),
    events=st.lists(EVENTS, min_size=2, max_size=5),
    outcome=st.sampled_from(ENDS),
    number=st.integers(0, 9),
)
@pytest.mark.timeout(1800)
def test_whatever_happened_the_gap_is_the_same_before_and_after_a_trial(
    fresh_history: Callable[[], History], shape: str, events: list[tuple[Any, ...]], outcome: str, number: int
) -> None:
    history = fresh_history()
    undergo(history, shape, events)
    gap = history.gap().values()
    before = history.noted(), history.products()
    for one in gap:
        try:
            tried = history.try_out(one.step.key, one.path, version="1.0", settings=[f"value={number}"])
        except CannotTry:
            continue
        history.start(*tried.runs.values())
        end(history, *tried.runs.values(), outcome=outcome)
    history.gap()
    assert history.noted() == before[0]
    assert [state for state in history.products() if state is not TRIAL] == [
        state for state in before[1] if state is not TRIAL
    ]
    assert history.rebuilt() == 0


class TestApart:
    """Trials beside other runs."""

    def test_its_products_are_never_current_and_supersede_nothing(self, history: History) -> None:
        path = done(history)
        tried = history.try_out("calibrate", path, settings=["value=7"])
        history.start()
        history.complete(*tried.runs.values())
        assert history.products("calibrate") == [CURRENT, TRIAL]
        assert history.settle() == []
        history.configure("calibrate", 1)
        history.settle()
        assert history.products("calibrate") == [SUPERSEDED, TRIAL, CURRENT]

    def test_a_map_is_never_made_of_it(self, history: History) -> None:
        history.define(SCAN, MAP)
        history.archive()
        tried = history.try_out("calibrate", *paths(history, "calibrate"))
        history.start()
        history.complete(*tried.runs.values())
        assert history.settle() == ["calibrate", "grid"]
        maker = (
            sa.select(_Run.is_trial)
            .join(_Run.products)
            .join(models.RunInput, models.RunInput.data_product_id == models.DataProduct.id)
        )
        assert history.session(lambda session: list(session.scalars(maker))) == [False]

    def test_it_runs_beside_an_ordinary_run_and_beside_another_trial(self, history: History) -> None:
        history.define(SCAN)
        history.archive()
        [path] = paths(history, "calibrate")
        history.try_out("calibrate", path, settings=["value=7"])
        assert history.create() == 1
        history.try_out("calibrate", path, settings=["value=8"])
        assert len(history.start().started) == 3
        assert [run.is_trial for run in history.runs()] == [True, False, True]

    @pytest.mark.parametrize("outcome", ["complete", "fail", "cancel"])
    def test_whatever_a_trial_came_to_is_run_all_the_same(self, history: History, outcome: str) -> None:
        history.define(SCAN)
        history.archive()
        tried = history.try_out("calibrate", *paths(history, "calibrate"))
        history.start()
        end(history, *tried.runs.values(), outcome=outcome)
        history.forget()  # or nobody would look there again
        assert history.settle() == ["calibrate"]

    def test_what_failed_is_told_of_the_ordinary_run(self, history: History) -> None:
        history.define(SCAN)
        history.archive()
        history.create()
        [ordinary] = history.start().started
        history.fail(ordinary)
        tried = history.try_out("calibrate", *paths(history, "calibrate"))
        history.start()
        history.fail(*tried.runs.values())
        [one] = history.gap().values()
        assert one.because == f"run {ordinary} with this recipe and these inputs failed: exit code 1"

    def test_a_trial_lets_nothing_rest(self, history: History) -> None:
        history.define({"key": "grid", "group_by": ["source"], "cooldown_seconds": 3600})
        history.archive(hours_ago=9)
        history.settle()
        history.offset += timedelta(hours=9)
        history.archive(hours_ago=3)
        tried = history.try_out("grid", *paths(history, "grid"))
        trial = sa.update(_Run).where(_Run.id.in_(tried.runs.values()))
        history.execute(trial.values(created_at=history.now))
        history.start()
        history.fail(*tried.runs.values())
        history.forget()
        assert history.settle() == ["grid"]

    def test_it_holds_no_trigger_open(self, history: History) -> None:
        history.define(SCAN, trigger="manual")
        history.archive()
        history.try_out("calibrate", *paths(history, "calibrate"))
        history.start()
        wish = Wish("it", "a test")
        history.session(lambda session: open_wish(session, wish, now=history.now, by="a test"))
        history.create()
        [ordinary] = [run.id for run in history.runs() if not run.is_trial]
        history.start(ordinary)
        history.complete(ordinary)
        history.create()
        [trigger] = history.session(lambda session: list_triggers(session, pipeline="it", limit=5))
        assert trigger.closed_at is not None


class TestLife:
    """What becomes of a trial."""

    def test_it_takes_what_the_sub_group_would_get_now_and_keeps_to_it(self, history: History) -> None:
        history.define({"key": "grid", "group_by": ["source"]})
        first = history.archive()
        tried = history.try_out("grid", *paths(history, "grid"))
        history.archive()
        assert history.start(*tried.runs.values()).started == tuple(tried.runs.values())
        taken = sa.select(models.RunInput.raw_data_package_id)
        assert history.session(lambda session: list(session.scalars(taken))) == [first]

    def test_it_is_tried_again_with_the_same_inputs_whatever_is_wanted_meanwhile(self, history: History) -> None:
        path = done(history)
        [run_id] = history.try_out("calibrate", path, settings=["value=7"]).runs.values()
        history.start()
        history.fail(run_id, retried=True)
        history.configure("calibrate", 1)
        history.create()
        history.offset += timedelta(hours=2)
        assert history.retry() == [run_id]
        assert run_id in history.start().started
        [trial] = trials(history)
        assert trial.status is RunStatus.STAGING_DATA
        assert trial.trial_parameters == {"value": 7}

    def test_a_pause_holds_it_and_it_says_so(self, history: History) -> None:
        path = done(history)
        history.session(lambda session: pause(session, pipeline="it", location=None, because="wind", by="Ann"))
        history.try_out("calibrate", path)
        assert history.start().started == ()
        assert (trials(history)[0].waiting_for or "").endswith("UTC: wind")

    def test_limits_count_it_though_it_redoes_nothing(self, history: History) -> None:
        path = done(history)
        history.keys = {"limits": {"live": 1, "redo_live": 1}}
        history.apply()
        history.try_out("calibrate", path)
        history.try_out("calibrate", path)
        started = history.start()
        assert (len(started.started), len(started.held)) == (1, 1)
        assert trials(history)[1].waiting_for == "1 of 1 runs of pipeline `it` are live"

    def test_it_says_what_it_is_and_until_when_its_products_are_kept(self, history: History) -> None:
        path = done(history)
        tried = history.try_out("calibrate", path, version="1.0")
        [run] = trials(history)
        assert (run.reason, run.because) == (RunReason.REQUESTED, "trial by a person: a test")
        assert run.expires_at == tried.expires_at
        assert timedelta(hours=23) < tried.expires_at - history.now <= timedelta(days=1)
        assert (tried.step, tried.version, list(tried.runs)) == ("calibrate", "1.0", [path])

    def test_a_retired_version_can_be_tried_and_a_recipe_of_its_own_is_noted(self, history: History) -> None:
        path = done(history)
        history.release("calibrate", "2.0", series="2")
        history.settle()
        history.set_state("calibrate", "1.0", "retired")
        history.try_out("calibrate", path, version="1")
        history.try_out("calibrate", path, version="1", settings=["value=1"])
        first, *_, old, changed = history.runs_of("calibrate")
        assert old.recipe_digest == first.recipe_digest
        assert changed.recipe_digest not in {run.recipe_digest for run in history.runs() if run.id != changed.id}

        def digest(session: Any) -> str | None:
            used = config_of(session.get_one(_Run, changed.id))
            return used.digest if used else None

        history.configure("calibrate", 1)
        revision = sa.select(models.ReductionStepConfigRevision.digest).order_by(
            models.ReductionStepConfigRevision.id.desc()
        )
        assert history.session(digest) == history.session(lambda session: session.scalars(revision).first())

    def test_what_comes_down_the_pipeline_may_be_in_part(self, history: History) -> None:
        history.define(SCAN, MAP)
        history.archive()
        history.settle()
        history.archive()
        tried = history.try_out("grid", *paths(history, "grid"))
        products = sa.select(sa.func.count()).where(models.RunInput.run_id.in_(tried.runs.values()))
        assert history.session(lambda session: session.scalar(products)) == 1


class TestRefusals:
    """What cannot be tried."""

    @pytest.mark.parametrize(
        ("what", "message"),
        [
            ({"sub_groups": []}, "A trial is of chosen sub-groups: name each with --sub-group. No run was created."),
            ({"step": "gird"}, "There is no step `gird` of pipeline it. Did you mean `grid`?"),
            (
                {"step": None},
                "A trial is of one step: name it with --step. it has `calibrate`, `grid`. No run was created.",
            ),
            ({"sub_groups": ["Saturn"]}, "There is no sub-group `Saturn` of calibrate. Known: `PATH`."),
            ({"version": "1.1"}, "There is no version `1.1` of calibrate. Did you mean `1.0`?"),
            ({"version": "latest"}, "There is no version `latest` of calibrate. Known: `0.9`, `1.0`."),
            (
                {"version": "0.9"},
                "Version 0.9 of calibrate is withdrawn: nothing is made with it. No run was created.",
            ),
            (
                {"settings": ["valeu=3"]},
                "--set valeu: the config of the step has no such parameter. Did you mean `value`? No run was created.",
            ),
        ],
    )
    def test_what_is_not_there_cannot_be_tried(self, history: History, what: dict[str, Any], message: str) -> None:
        history.define(SCAN, MAP)
        history.archive()
        history.release("calibrate", "0.9")
        history.set_state("calibrate", "0.9", "withdrawn")
        [path] = paths(history, "calibrate")
        step, chosen = what.pop("step", "calibrate"), what.pop("sub_groups", [path])
        with pytest.raises(CcatError) as refused:
            history.try_out(step, *chosen, **what)
        assert str(refused.value) == message.replace("PATH", path)
        assert history.runs() == []

    def test_nothing_can_be_tried_where_nothing_is_there_yet(self, history: History) -> None:
        history.define(SCAN, MAP)
        history.archive()
        [path] = paths(history, "grid")
        [scan] = paths(history, "calibrate")
        with pytest.raises(CannotTry) as refused:
            history.try_out("grid", path)
        assert str(refused.value) == (
            f"There is nothing that a trial of grid {path} could take: it waits for calibrate {scan} (wanted). "
            "No run was created."
        )

    def test_without_a_released_version_one_is_named(self, history: History) -> None:
        path = done(history)
        history.set_state("calibrate", "1.0", "retired")
        with pytest.raises(
            CannotTry, match=r"^No version of calibrate is used by new work now: name one with --version"
        ):
            history.try_out("calibrate", path)
        assert history.try_out("calibrate", path, version="1.0").runs

    def test_of_a_pipeline_that_is_disabled_nothing_can_be_tried(self, history: History) -> None:
        path = done(history)
        history.enable(enabled=False)
        with pytest.raises(PipelineDisabled):
            history.try_out("calibrate", path)


NESTED = {"gain": 1.5, "baseline": {"order": 3, "windows": [1, 2]}, "a.b": None}


class TestSettings:
    """Parameters, given as `key=value`."""

    @pytest.mark.parametrize(
        ("setting", "expected"),
        [
            ("gain=2", {**NESTED, "gain": 2}),
            ("gain=two words", {**NESTED, "gain": "two words"}),
            ("gain=", {**NESTED, "gain": ""}),
            ("gain=a=b", {**NESTED, "gain": "a=b"}),
            ("gain=NaN", {**NESTED, "gain": "NaN"}),
            ("gain=null", {**NESTED, "gain": None}),
            ('gain="2"', {**NESTED, "gain": "2"}),
            ("baseline.order=4", {**NESTED, "baseline": {"order": 4, "windows": [1, 2]}}),
            ("baseline.windows=[]", {**NESTED, "baseline": {"order": 3, "windows": []}}),
            ('baseline={"order": 1}', {**NESTED, "baseline": {"order": 1}}),
            ("a.b=true", {**NESTED, "a.b": True}),
        ],
    )
    def test_a_value_is_json_else_text(self, setting: str, expected: dict[str, Any]) -> None:
        assert with_settings(NESTED, [setting]) == expected
        assert NESTED["gain"] == 1.5

    def test_where_nothing_is_known_anything_can_be_set(self) -> None:
        assert with_settings({}, ["a.b=1", "a.c=x", "d=[1]"]) == {"a": {"b": 1, "c": "x"}, "d": [1]}

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (["gain"], "gain: a setting is `key=value`, such as `gain=1.5` or `baseline.order=3`."),
            (["=3"], "=3: a setting is `key=value`, such as `gain=1.5` or `baseline.order=3`."),
            (["baseline.=3"], "baseline.=3: a setting is `key=value`, such as `gain=1.5` or `baseline.order=3`."),
            (["gian=3"], "gian: the config of the step has no such parameter. Did you mean `gain`?"),
            (
                ["baseline.ordre=3"],
                "baseline.ordre: the config of the step has no such parameter. Did you mean `baseline.order`?",
            ),
            (["gain=1", "gain=2"], "gain: it is set twice."),
            (['gain="\\u0000"'], "gain: it has a character that cannot be kept."),
            (['gain="\\ud800"'], "gain: it has a character that cannot be kept."),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, settings: list[str], message: str) -> None:
        with pytest.raises(InvalidSetting) as refused:
            with_settings(NESTED, settings)
        assert str(refused.value) == f"--set {message} No run was created."

    def test_what_is_set_to_a_value_holds_no_others(self) -> None:
        with pytest.raises(InvalidSetting) as refused:
            with_settings({}, ["a=1", "a.b=2"])
        assert (
            str(refused.value) == "--set a.b: `a` is set to a value, and holds no other parameters. No run was created."
        )

    @pytest.mark.parametrize(("text", "hours"), [("1h", 1), ("14d", 336), ("2w", 336), ("366d", 8784)])
    def test_how_long_products_are_kept(self, text: str, hours: int) -> None:
        assert parse_keep(text) == timedelta(hours=hours)

    @pytest.mark.parametrize("text", ["", "14", "0d", "-1d", "367d", "1.5d", "14 d", "d", "99999w"])
    def test_what_is_no_time_to_keep_them_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidKeep) as refused:
            parse_keep(text)
        assert str(refused.value) == (
            f"--keep {text}: hours, days or weeks are written `36h`, `14d` or `2w`, from one hour to 366 days. "
            "No run was created."
        )
