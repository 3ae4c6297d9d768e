"""Runs that wait for a tick or a wish, and what follows from them; pauses."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.lookup import UnknownName
from ccat_ops_db.states import RunReason, RunStatus, TriggerType, Verdict
from ccat_ops_db.verbs.pausing import pause, resume
from ccat_ops_db.verbs.planning import make_plan
from ccat_workflow_manager.verbs.launching import launch
from ccat_workflow_manager.verbs.requesting import PipelineDisabled
from tests.engine.database import initialized
from tests.engine.history import History
from tests.reference import keep_rows, restore_rows

SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
MAP: dict[str, Any] = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"], "cooldown_seconds": 7200}
FLAT_MAP = {**MAP, "depends_on": []}
EVENING: dict[str, Any] = {
    "trigger": "cron",
    "trigger_config": {"cron": "30 18 * * *", "time_zone": "America/Santiago"},
}


@pytest.fixture(scope="module")
def installation(postgresql_url: str, template_database: str) -> Iterator[sa.Engine]:
    with initialized(postgresql_url, template=template_database, storage=Path("/storage")) as engine:
        keep_rows(engine)
        yield engine


@pytest.fixture
def history(installation: sa.Engine) -> Iterator[History]:
    yield History(installation)
    restore_rows(installation)


def say(history: History, *words: str) -> str:
    """What a command says."""
    environment = {"CCAT_OPS_DB_URL": history.engine.url.render_as_string(hide_password=False)}
    said = CliRunner().invoke(app, [*words], env=environment)
    return said.stdout + said.stderr


def at(history: History, moment: datetime) -> None:
    """Let it be that moment."""
    history.offset = moment - datetime.now(UTC)


class TestManual:
    """Nothing runs by itself."""

    def test_nothing_is_created_until_somebody_wants_it_and_then_what_follows_too(self, history: History) -> None:
        history.define(SCAN, MAP, trigger="manual")
        history.archive()
        history.archive()
        assert history.settle() == []
        assert history.wish().requested == 2 + 1
        assert history.settle() == ["calibrate", "calibrate", "grid"]
        [trigger] = history.triggers()
        assert (trigger.type, trigger.requested, trigger.runs) == (TriggerType.MANUAL, 0, {RunStatus.COMPLETED: 3})
        assert trigger.closed_at is not None

    def test_the_map_of_a_wish_waits_for_all_that_was_there_when_it_was_wanted(self, history: History) -> None:
        history.define(SCAN, {**MAP, "cooldown_seconds": 0}, trigger="manual")
        history.archive()
        history.wish()
        assert history.settle() == ["calibrate", "grid"]
        history.offset = timedelta(hours=6)
        for hours_ago in (5, 3):
            history.archive(hours_ago=hours_ago)
        history.wish()
        history.create()
        for run_id in sorted(history.start().started):
            assert len(history.runs_of("grid")) == 1
            history.complete(run_id)
            history.create()
            history.start()
        history.complete(history.runs_of("grid")[-1].id)
        assert history.settle() == []
        assert set(history.verdicts().values()) == {Verdict.UP_TO_DATE}
        assert history.open_triggers() == []

    def test_a_map_does_not_wait_for_what_came_after_the_wish_it_follows_from(self, history: History) -> None:
        history.define(SCAN, {**MAP, "cooldown_seconds": 0}, trigger="manual")
        history.archive()
        history.wish()
        history.create()
        history.offset = timedelta(hours=1)
        history.archive()
        assert history.settle() == ["calibrate", "grid"]

    def test_what_comes_after_the_wish_waits_for_the_next_one(self, history: History) -> None:
        history.define(SCAN, MAP, trigger="manual")
        history.archive()
        history.wish()
        history.create()
        history.archive(source="Saturn")
        assert history.settle() == ["calibrate", "grid"]
        assert history.settle() == []
        history.wish()
        assert history.settle() == ["calibrate", "grid"]

    def test_a_wish_does_not_let_a_sub_group_rest_first(self, history: History) -> None:
        history.define({**SCAN, "cooldown_seconds": 3600})
        history.archive()
        assert history.settle() == []
        assert history.verdicts() == {next(iter(history.verdicts())): Verdict.COOLING}
        history.wish()
        assert history.settle() == ["calibrate"]

    def test_only_the_step_that_is_named_runs_and_what_follows_from_it(self, history: History) -> None:
        history.define(SCAN, MAP, {"key": "all", "group_by": [], "depends_on": ["grid"]}, trigger="manual")
        history.archive()
        history.wish()
        assert history.settle() == ["calibrate", "grid", "all"]
        history.wish(step="grid", force=True)
        assert history.settle() == ["grid"]  # the same bytes: nothing follows

    def test_only_the_sub_groups_that_are_named_run(self, history: History) -> None:
        history.define({"key": "grid", "group_by": ["source"]}, trigger="manual")
        history.archive(source="M17")
        history.archive(source="Saturn")
        history.wish(sub_groups=[history.gap()["grid Saturn"].path])
        assert history.settle() == ["grid"]
        assert history.verdicts() == {"grid M17": Verdict.WANTED, "grid Saturn": Verdict.UP_TO_DATE}

    def test_force_runs_what_is_up_to_date_and_says_so(self, history: History) -> None:
        history.define(SCAN)
        history.archive()
        history.settle()
        assert history.wish().requested == 0
        assert history.settle() == []
        assert history.wish(force=True).requested == 1
        assert history.settle() == ["calibrate"]
        _, run = history.runs()
        assert (run.reason, run.because) == (
            RunReason.REQUESTED,
            f"wanted all the same: nothing changed since run {run.id - 1}",
        )
        assert history.create() == 0
        assert history.triggers()[0].closed_at is not None

    @pytest.mark.parametrize("end", ["fail", "cancel"])
    def test_a_wish_reopens_what_was_given_up(self, history: History, end: str) -> None:
        history.define(SCAN)
        history.archive()
        history.create()
        history.start()
        getattr(history, end)(history.runs()[0].id)
        assert history.settle() == []
        assert history.wish().requested == 1
        assert history.settle() == ["calibrate"]

    def test_a_wish_whose_run_fails_again_ends(self, history: History) -> None:
        history.define(SCAN, MAP, trigger="manual")
        history.archive()
        history.wish()
        history.create()
        history.start()
        history.fail(history.runs()[0].id)
        assert history.settle() == []
        assert history.triggers()[0].closed_at is not None

    def test_what_was_asked_for_before_is_told(self, history: History) -> None:
        history.define(SCAN, trigger="manual")
        history.archive()
        history.wish()
        told = "1 sub-group was asked for before: `ccat triggers` shows how far that is.\n"
        assert say(history, "trigger", "it") == told
        history.create()
        assert say(history, "trigger", "it") == told
        history.start()
        assert say(history, "trigger", "it") == told

    def test_of_two_wishes_for_the_same_each_sub_group_runs_once(self, history: History) -> None:
        history.define(SCAN, trigger="manual")
        history.archive()
        assert (history.wish().requested, history.wish().requested) == (1, 0)
        assert history.settle() == ["calibrate"]
        assert [one.closed_at is not None for one in history.triggers()] == [True]

    @pytest.mark.parametrize(
        ("what", "message"),
        [
            ({"step": "gird"}, "There is no step `gird` of pipeline it. Did you mean `grid`?"),
            (
                {"step": "grid", "sub_groups": ["M17"]},
                "There is no sub-group `M17` of grid. Known: `M17-8b2d1efd`.",
            ),
        ],
    )
    def test_what_is_not_there_cannot_be_wanted(self, history: History, what: dict[str, Any], message: str) -> None:
        history.define(SCAN, MAP)
        history.archive()
        with pytest.raises(UnknownName) as refused:
            history.wish(**what)
        assert str(refused.value) == message.replace("M17-8b2d1efd", history.gap()["grid M17"].path)
        assert history.triggers() == []

    def test_nothing_can_be_wanted_of_a_pipeline_that_is_disabled(self, history: History) -> None:
        history.define(SCAN, enabled=False)
        with pytest.raises(PipelineDisabled, match="Pipeline it is disabled, so its runs would not start"):
            history.wish()
        assert history.triggers() == []

    def test_nothing_can_be_wanted_of_what_nothing_is_released_for(self, history: History) -> None:
        history.define(SCAN, trigger="manual")
        history.archive()
        history.set_state("calibrate", "1.0", "retired")
        for words in ([], ["--force"]):
            assert say(history, "trigger", "it", *words) == (
                "error: No version of calibrate is released, so none of these runs could start: release one in its "
                "definition, apply it, and say the same again. No run was created.\n"
            )
        assert history.triggers() == []

    def test_steps_that_nothing_is_released_for_are_told(self, history: History) -> None:
        history.define(SCAN, MAP, trigger="manual")
        history.archive()
        history.set_state("grid", "1.0", "retired")
        assert say(history, "trigger", "it").partition(": ")[2] == (
            "1 sub-group is run. `ccat triggers` shows how far it is. "
            "Not run, as no version of their software is released, or their config was withdrawn: grid.\n"
        )
        assert history.settle() == ["calibrate"]

    def test_somebody_who_wants_what_is_paused_is_told(self, history: History) -> None:
        history.define(SCAN, trigger="manual")
        history.archive()
        history.session(lambda session: pause(session, pipeline="it", location=None, because="typhoon", by="Ann"))
        said = say(history, "trigger", "it")
        assert "Nothing of it starts before `ccat resume`: it is paused by Ann since " in said
        assert said.endswith(": typhoon.\n")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["trigger"], "name a pipeline, or with --plan a plan"),
        (["trigger", "it", "--plan", "0123456789abcdef"], "name a pipeline, or with --plan a plan"),
        (
            ["trigger", "--plan", "0123456789abcdef", "--force"],
            "--step, --sub-group, --force and --because do not go with --plan",
        ),
        (["trigger", "--plan", "0123456789abcdef", "--because", "x"], "--force and --because do not go with --plan"),
        (["trigger", "it", "--strict"], "--strict goes with --plan only"),
        (["pause", "--because", "wind"], "name one of --pipeline, --location and --all"),
        (
            ["plan", "0123456789abcdef", "--step", "nonsense"],
            "0123456789abcdef is a plan, which was made already: --step goes with a pipeline only",
        ),
        (["resume", "--all", "--pipeline", "it"], "name one of --pipeline, --location and --all"),
    ],
)
def test_words_that_contradict_each_other_are_refused(words: list[str], problem: str) -> None:
    ended = CliRunner().invoke(app, words, terminal_width=200)
    assert ended.exit_code == 2
    assert problem in " ".join(ended.output.replace("│", "").split())


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        (["trigger", "it"], "No run was created."),
        (["trigger", "it", "--trial", "--sub-group", "M17"], "No run was created."),
        (["pause", "--all"], "Nothing was paused."),
        (["pause", "--pipeline", "it"], "Nothing was paused."),
    ],
)
@pytest.mark.parametrize("because", ["", " "])
def test_a_decision_needs_a_reason(history: History, words: list[str], outcome: str, because: str) -> None:
    history.define(SCAN, MAP, trigger="manual")
    history.archive()
    environment = {"CCAT_OPS_DB_URL": history.engine.url.render_as_string(hide_password=False)}
    ended = CliRunner().invoke(app, [*words, "--because", because], env=environment)
    told = f"error: Say why, for those who read it later: `--because` is empty. {outcome}\n"
    assert (ended.exit_code, ended.stderr) == (1, told)
    assert (history.triggers(), history.runs()) == ([], [])
    assert not history.session(lambda session: session.scalars(sa.select(models.Pause)).all())


class TestCron:
    """18:30 in Santiago is 21:30 UTC in November."""

    def test_a_tick_runs_what_is_missing_and_what_follows_and_nothing_before(self, history: History) -> None:
        history.define(SCAN, MAP, **EVENING)
        at(history, datetime(2026, 11, 25, 20, 0, tzinfo=UTC))
        history.archive()
        assert history.settle() == []
        at(history, datetime(2026, 11, 25, 21, 29, tzinfo=UTC))
        assert history.settle() == []
        at(history, datetime(2026, 11, 25, 21, 31, tzinfo=UTC))
        assert history.settle() == ["calibrate", "grid"]
        [trigger] = history.triggers()
        assert trigger.because == "tick of 30 18 * * * (America/Santiago) at 2026-11-25 21:30 UTC"
        assert trigger.closed_at is not None

    def test_downtime_over_three_ticks_runs_once(self, history: History) -> None:
        history.define(SCAN, **EVENING)
        at(history, datetime(2026, 11, 25, 20, 0, tzinfo=UTC))
        history.create()
        at(history, datetime(2026, 11, 28, 9, 0, tzinfo=UTC))
        history.archive()
        assert history.settle() == ["calibrate"]
        assert [one.because[-20:] for one in history.triggers()] == ["2026-11-27 21:30 UTC"]
        assert history.settle() == []

    def test_ticks_during_a_run_and_its_retries_are_that_run(self, history: History) -> None:
        history.define(FLAT_MAP, trigger="cron", trigger_config={"cron": "* * * * *"})
        history.archive()
        history.create()
        for is_last in (False, False, True):
            history.offset += timedelta(hours=2)
            history.create()
            history.retry()
            [run_id] = history.start().started
            history.offset += timedelta(minutes=10)
            history.create()
            history.fail(run_id, retried=not is_last)
        history.create()
        history.offset += timedelta(hours=2)
        assert (history.settle(), len(history.runs())) == ([], 1)

    def test_what_a_failure_lets_go_on_without_it_belongs_to_the_tick(self, history: History) -> None:
        history.define(SCAN, {**MAP, "on_failed_input": "omit"}, **EVENING)
        at(history, datetime(2026, 11, 25, 20, 0, tzinfo=UTC))
        history.archive()
        history.archive()
        history.create()
        at(history, datetime(2026, 11, 25, 21, 31, tzinfo=UTC))
        history.create()
        first, second = sorted(history.start().started)
        history.complete(first)
        history.create()
        history.fail(second)
        assert history.settle() == ["grid"]

    def test_the_manager_is_woken_for_the_next_tick(self, history: History) -> None:
        history.define(SCAN, **EVENING)
        at(history, datetime(2026, 11, 25, 20, 0, tzinfo=UTC))
        history.create()
        due = sa.select(models.PipelineEvaluation.due_at)
        assert history.session(lambda session: session.scalar(due)) == datetime(2026, 11, 25, 21, 30, tzinfo=UTC)


class TestPause:
    """Nothing new, and what is under way goes on."""

    @pytest.mark.parametrize(
        "what",
        [
            {"pipeline": "it", "location": None},
            {"pipeline": None, "location": "cologne/ramses"},
            {"pipeline": None, "location": None},
        ],
    )
    def test_nothing_is_created_or_started_and_nothing_is_missed(self, history: History, what: dict[str, Any]) -> None:
        history.define(SCAN)
        history.archive()
        history.create()
        assert history.session(lambda session: pause(session, **what, because="typhoon", by="Ann"))
        assert not history.session(lambda session: pause(session, **what, because="again", by="Ann"))
        history.archive()
        assert (history.create(), history.start().started) == (0, ())
        [run] = history.runs()
        assert (run.waiting_for or "").startswith("paused by Ann since ")
        assert (run.waiting_for or "").endswith("UTC: typhoon")
        assert history.session(lambda session: resume(session, **what))
        assert history.settle() == ["calibrate", "calibrate"]

    def test_of_another_pipeline_it_holds_nothing(self, history: History) -> None:
        history.define(SCAN, name="other")
        history.keys = {}
        history.apply()
        history.session(lambda session: pause(session, pipeline="other", location=None, because="x", by="Ann"))
        history.archive()
        assert history.settle() == ["calibrate"]

    def test_what_runs_comes_to_its_end(self, history: History) -> None:
        history.define(SCAN)
        history.archive()
        history.create()
        [run_id] = history.start().started
        history.session(lambda session: pause(session, pipeline=None, location=None, because="x", by="Ann"))
        history.complete(run_id)
        assert history.runs()[0].status is RunStatus.COMPLETED


def test_a_plan_of_a_pipeline_that_waits_for_triggers_is_carried_to_its_end(history: History) -> None:
    history.define(SCAN, MAP, trigger="manual")
    history.archive()
    made = history.session(lambda session: make_plan(session, "it", step=None, now=history.now, by="a test"))
    assert made.plan
    plan_id = made.plan.id
    assert history.session(lambda session: launch(session, plan_id, now=history.now, by="a test")).created == 1
    assert history.settle() == ["calibrate", "grid"]
    [trigger] = history.triggers()
    assert (trigger.because, trigger.closed_at is not None) == (f"plan {plan_id}", True)
