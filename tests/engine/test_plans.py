"""`ccat plan` and `ccat trigger --plan`: what would be created, and exactly that is."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.queries.plans import planned_runs
from ccat_ops_db.verbs.pausing import pause
from ccat_ops_db.verbs.planning import make_plan
from tests.engine.happenings import DEFINED, EVENTS, RECENT, undergo
from tests.engine.history import History

CALIBRATE: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID: dict[str, Any] = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}
ALL: dict[str, Any] = {"key": "all", "group_by": [], "depends_on": ["grid"]}
NOTHING_YET = "no run has completed yet"


@dataclass
class Desk:
    """Where somebody plans and launches, beside what happens."""

    history: History

    def run(self, *words: str, code: int = 0) -> Any:
        url = self.history.engine.url.render_as_string(hide_password=False)
        result = CliRunner().invoke(app, [*words], env={"CCAT_OPS_DB_URL": url})
        assert result.exit_code == code, result.output
        return result

    def json(self, *words: str, code: int = 0) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.run(*words, "--json", code=code).stdout)
        return told

    def plan(self, *options: str) -> dict[str, Any]:
        return self.json("plan", "it", *options)

    def launch(self, plan_id: str, *options: str, code: int = 0) -> dict[str, Any]:
        return self.json("trigger", "--plan", plan_id, *options, code=code)

    def refusal(self, *words: str) -> str:
        """What a person reads who asked for what cannot be; nothing was created."""
        before = len(self.history.runs())
        told: str = self.run(*words, code=1).stderr
        assert len(self.history.runs()) == before
        return told


@pytest.fixture
def desk(ops_db: sa.Engine) -> Desk:
    """A desk beside an installation in which nothing has happened."""
    return Desk(History(ops_db))


@pytest.fixture
def busy(desk: Desk) -> Desk:
    """The same with three scans, two of them of M17, that are to be calibrated and gridded."""
    desk.history.define(CALIBRATE, GRID, ALL)
    for source in ("M17", "M17", "Orion A"):
        desk.history.archive(source=source)
    return desk


def counted(planned: dict[str, Any]) -> list[tuple[str, str | None, int]]:
    return [(one["step"], one["reason"], one["runs"]) for one in planned["counts"]]


def held(planned: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(one["step"], one["verdict"], one["sub_groups"]) for one in planned["held"]]


def because(planned: dict[str, Any], step: str) -> dict[str, str]:
    """Labels → sentence, of the planned runs of a step."""
    runs = [one for one in planned["runs"] if one["step"] == step]
    return {" ".join(one["sub_group"].values()): one["because"] for one in runs}


def test_at_first_everything_is_missing_and_the_rest_follows(busy: Desk) -> None:
    planned = busy.plan()
    assert counted(planned) == [("calibrate", "missing", 3), ("grid", None, 2), ("all", None, 1)]
    assert held(planned) == []
    assert [one["because"] for one in planned["runs"][:3]] == [NOTHING_YET] * 3
    assert busy.history.runs() == []


def test_nothing_to_do_is_no_plan(busy: Desk) -> None:
    busy.history.settle()
    planned = busy.plan()
    assert (planned["plan"], planned["counts"], planned["runs"], planned["next"]) == (None, [], [], None)
    assert busy.run("plan", "it").stdout == "pipeline it: no run would be created now\n"


def test_what_people_read(busy: Desk) -> None:
    lines = [" ".join(line.split()) for line in busy.run("plan", "it", "--limit", "1").stdout.splitlines()]
    plan_id = lines[0].split()[1]
    made = lines[0].removeprefix(f"plan {plan_id} of pipeline it: ")
    assert made.startswith(
        f"3 runs would be created now, 3 would follow. `ccat trigger --plan {plan_id}` creates them, until "
    )
    assert lines[1:7] == [
        "step reason runs",
        "calibrate missing 3",
        "grid follows 2",
        "all follows 1",
        "",
        "runs",
    ]
    assert lines[8].endswith(f"missing {NOTHING_YET}")
    assert lines[-1] == f"more: ccat plan {plan_id} --after 1"


def test_what_follows_names_what_it_follows_from(busy: Desk) -> None:
    planned = busy.plan()
    grids, all_data = because(planned, "grid"), because(planned, "all")
    path = r"calibrate [0-9-]+\.[0-9]+\+00-[0-9a-f]{8}"
    assert re.fullmatch(f"follows from {path}, {path}", grids["M17"])
    assert re.fullmatch(f"follows from {path}", grids["Orion A"])
    assert re.fullmatch("follows from grid M17-[0-9a-f]{8}, grid Orion-A-[0-9a-f]{8}", all_data[""])
    assert [one["reason"] for one in planned["runs"]] == ["missing"] * 3 + [None] * 3


def test_what_waits_for_something_that_failed_does_not_follow(busy: Desk) -> None:
    busy.history.create()
    busy.history.start()
    failed, *others = busy.history.runs()
    busy.history.fail(failed.id)
    for run in others:
        busy.history.cancel(run.id)
    busy.history.archive(source="Orion A")
    planned = busy.plan()
    assert counted(planned) == [("calibrate", "missing", 1)]
    assert sorted(held(planned)) == [
        ("all", "blocked", 1),
        ("calibrate", "cancelled", 2),
        ("calibrate", "failed", 1),
        ("grid", "blocked", 2),
    ]
    said = {(one["step"], one["verdict"]): (one["reason"], one["because"]) for one in planned["held"]}
    expected = f"run {failed.id} with this recipe and these inputs failed: exit code 1"
    assert said["calibrate", "failed"] == ("missing", expected)
    assert said["grid", "blocked"][1].startswith("waits for calibrate ")


def test_what_rests_is_told_with_the_end_of_its_rest(desk: Desk) -> None:
    desk.history.define({**GRID, "depends_on": [], "cooldown_seconds": 3600})
    desk.history.archive()
    planned = desk.plan()
    assert (planned["plan"], held(planned)) == (None, [("grid", "cooling", 1)])
    assert re.fullmatch(f"{NOTHING_YET}; rests until [0-9:]+", planned["held"][0]["because"])
    title, _, _, heads, row = [" ".join(line.split()) for line in desk.run("plan", "it").stdout.splitlines()]
    assert (title, heads) == (
        "pipeline it: no run would be created now",
        "step verdict reason sub_groups such as because",
    )
    assert row.startswith("grid cooling missing 1 M17 ")


def test_of_one_step_only_its_runs_are_planned_and_what_follows(busy: Desk) -> None:
    busy.history.settle()
    for step in ("calibrate", "all"):
        busy.history.configure(step, 1)
    assert counted(busy.plan("--step", "all")) == []
    planned = busy.plan("--step", "calibrate")
    assert counted(planned) == [("calibrate", "recipe_changed", 3), ("grid", None, 2), ("all", None, 1)]
    assert busy.launch(planned["plan"])["created"] == 3


def test_the_same_runs_are_the_same_plan_and_others_are_another(busy: Desk) -> None:
    first = busy.plan()["plan"]
    assert busy.plan()["plan"] == first
    busy.history.configure("calibrate", 1)
    second = busy.plan()["plan"]
    busy.history.archive()
    assert len({first, second, busy.plan()["plan"]}) == 3


def test_planning_creates_nothing_and_the_trigger_manager_creates_the_same(busy: Desk) -> None:
    planned = busy.plan()
    assert busy.history.runs() == []
    assert busy.history.create() == sum(one["runs"] for one in planned["counts"] if one["reason"])


@pytest.mark.parametrize("keys", [{"enabled": False}, {"trigger": "manual"}])
def test_pipelines_that_do_not_run_by_themselves_are_planned_as_they_are_now(desk: Desk, keys: dict[str, Any]) -> None:
    desk.history.define(CALIBRATE, **keys)
    for number in (1, 2):
        desk.history.archive()
        assert counted(desk.plan()) == [("calibrate", "missing", number)]


def test_pages_cover_the_plan_once(busy: Desk) -> None:
    whole = busy.plan()
    page = busy.plan("--limit", "4")
    seen = page["runs"]
    while page["next"]:
        page = busy.json("plan", whole["plan"], "--limit", "1", "--after", str(page["next"]))
        seen += page["runs"]
    assert seen == whole["runs"]
    assert [one["number"] for one in seen] == [1, 2, 3, 4, 5, 6]


def test_a_page_beyond_the_end_says_so(busy: Desk) -> None:
    plan_id = busy.plan()["plan"]
    told = f"plan {plan_id} of pipeline it has 6 runs; there is none after number"
    assert busy.run("plan", plan_id, "--after", "6").stdout == f"{told} 6\n"
    assert busy.run("plan", "it", "--after", "99").stdout == f"{told} 99\n"
    busy.history.settle()
    assert busy.run("plan", "it", "--after", "99").stdout == "pipeline it: no run would be created now\n"


# Launching


def test_launching_creates_exactly_what_was_planned(busy: Desk) -> None:
    planned = busy.plan()
    assert busy.launch(planned["plan"]) == {
        "plan": planned["plan"],
        "created": 3,
        "lapsed": {},
        "first_lapsed": [],
        "later": 0,
    }
    assert created(busy) == listed(planned)
    assert busy.history.create() == 0


def test_what_came_after_the_plan_is_not_launched(busy: Desk) -> None:
    planned = busy.plan()
    busy.history.archive()
    assert busy.launch(planned["plan"])["created"] == 3
    assert created(busy) == listed(planned)
    assert busy.history.create() == 1


def created(desk: Desk, *, after: int = 0) -> set[tuple[str, str, str, str]]:
    """Step, sub-group, reason and sentence of all runs of the pipeline that were created after one."""
    history, pipeline_id = desk.history, desk.history.pipeline_id
    runs = [run for run in history.runs() if run.pipeline_id == pipeline_id and run.id > after]
    return {(history.step_of(run), run.sub_group_key, run.reason, run.because) for run in runs}


def listed(planned: dict[str, Any]) -> set[tuple[str, str, str, str]]:
    """The same of what a plan would create at once."""
    fields = ("step", "sub_group_key", "reason", "because")
    return {tuple(one[field] for field in fields) for one in planned["runs"] if one["reason"]}


def start_one(history: History) -> None:
    history.create()
    history.start(history.runs()[0].id)


def complete_one(history: History) -> None:
    start_one(history)
    history.complete(history.runs()[0].id)


def fail_one(history: History) -> None:
    start_one(history)
    history.fail(history.runs()[0].id)


def cancel_one(history: History) -> None:
    history.create()
    history.cancel(history.runs()[0].id)


LAPSES: dict[str, tuple[Callable[[History], object], dict[str, int]]] = {
    "nothing": (lambda _: None, {}),
    "all are under way": (History.create, {"running": 3}),
    "one was done": (complete_one, {"done": 1, "running": 2}),
    "one failed": (fail_one, {"failed": 1, "running": 2}),
    "one was cancelled": (cancel_one, {"cancelled": 1, "running": 2}),
    "one is gone": (lambda history: history.exclude(history.packages[0]), {"gone": 1}),
    "another config": (lambda history: history.configure("calibrate", 1), {"recipe_changed": 3}),
    "no version is released": (lambda history: history.set_state("calibrate", "1.0", "retired"), {"recipe_changed": 3}),
    "the step is gone": (lambda history: history.define({**GRID, "depends_on": []}), {"gone": 3}),
}


@pytest.mark.parametrize("what", LAPSES)
def test_what_does_not_hold_any_more_is_listed_with_the_reason(busy: Desk, what: str) -> None:
    happens, lapsed = LAPSES[what]
    plan_id = busy.plan()["plan"]
    happens(busy.history)
    before = len(busy.history.runs())
    answer = busy.launch(plan_id, "--strict", code=1 if lapsed else 0)
    number = sum(lapsed.values())
    assert (answer["created"], answer["lapsed"]) == (0 if number else 3, lapsed)
    again = busy.launch(plan_id)
    expected = lapsed if number else {"running": 3}
    assert (again["created"], again["lapsed"]) == (3 - number if number else 0, expected)
    assert len(again["first_lapsed"]) == sum(expected.values())
    assert len(busy.history.runs()) == before + (3 - number)


def test_a_map_whose_inputs_changed_is_not_launched(desk: Desk) -> None:
    desk.history.define({**GRID, "depends_on": []})
    for source in ("M17", "Orion A"):
        desk.history.archive(source=source)
    plan_id = desk.plan()["plan"]
    desk.history.archive(source="M17")
    lines = [" ".join(line.split()) for line in desk.run("trigger", "--plan", plan_id).stdout.splitlines()]
    assert lines == [
        f"plan {plan_id}: 1 run was created; 1 does not hold any more",
        "step sub_group because",
        "grid M17 its inputs changed",
    ]


def test_a_planned_run_whose_sub_group_is_gone_is_told_by_its_key(desk: Desk) -> None:
    desk.history.define({**GRID, "depends_on": []})
    package = desk.history.archive()
    key = desk.history.gap()["grid M17"].key
    plan_id = desk.plan()["plan"]
    desk.history.exclude(package)
    said = " ".join(desk.run("trigger", "--plan", plan_id).stdout.split())
    assert said.endswith(
        f"0 runs were created; 1 does not hold any more step sub_group because grid {key} its sub-group is gone"
    )


# What is refused


def test_an_unknown_plan_is_refused_with_the_nearest_one(busy: Desk) -> None:
    hint = "A plan is kept for 24 hours; `ccat plan PIPELINE` makes one."
    unknown = "0123456789abcdef"
    assert (
        busy.refusal("trigger", "--plan", unknown)
        == f"error: There is no plan `{unknown}`. There is none yet. {hint}\n"
    )
    plan_id = busy.plan()["plan"]
    almost = plan_id[:-1] + ("0" if plan_id[-1] != "0" else "1")
    expected = f"error: There is no plan `{almost}`. Did you mean `{plan_id}`? {hint}\n"
    assert busy.refusal("trigger", "--plan", almost) == busy.refusal("plan", almost) == expected


def test_an_expired_plan_is_refused_and_goes_when_the_next_one_is_made(busy: Desk) -> None:
    plan_id = busy.plan()["plan"]
    moment = datetime(2026, 4, 6, 1, tzinfo=UTC)
    busy.history.execute(sa.update(models.Plan).values(expires_at=moment))
    assert busy.refusal("trigger", "--plan", plan_id) == (
        f"error: Plan {plan_id} of pipeline it expired at 2026-04-06 01:00:00 UTC; `ccat plan it` makes a new one.\n"
    )
    busy.history.configure("calibrate", 1)
    busy.plan()
    assert busy.refusal("trigger", "--plan", plan_id).startswith(f"error: There is no plan `{plan_id}`.")


def test_a_plan_is_kept_for_a_day(busy: Desk) -> None:
    kept = datetime.fromisoformat(busy.plan()["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < kept <= timedelta(hours=24)


def test_runs_that_could_not_start_are_not_created(busy: Desk) -> None:
    plan_id = busy.plan()["plan"]
    busy.history.keys = {"enabled": False}
    busy.history.apply()
    assert busy.refusal("trigger", "--plan", plan_id) == (
        "error: Pipeline it is disabled, so its runs would not start: set `enabled: true` in its definition, "
        "apply it, and say the same again. No run was created.\n"
    )


def test_nothing_is_launched_while_nothing_is_created(busy: Desk) -> None:
    plan_id = busy.plan()["plan"]
    busy.history.session(lambda session: pause(session, pipeline="it", location=None, because="typhoon", by="Ann"))
    said = busy.refusal("trigger", "--plan", plan_id)
    assert said.startswith("error: Nothing of pipeline it is created now: it is paused by Ann since ")
    assert said.endswith(" UTC: typhoon. Say the same again after `ccat resume`. No run was created.\n")
    assert busy.history.runs() == []


def test_a_plan_says_that_nothing_is_created_now(busy: Desk) -> None:
    busy.history.session(lambda session: pause(session, pipeline="it", location=None, because="typhoon", by="Ann"))
    for words in (["it"], [busy.plan()["plan"]]):
        said = busy.run("plan", *words).stdout
        assert "3 runs would be created, 3 would follow\n" in said
        assert "ccat trigger" not in said
        last = said.splitlines()[-1]
        assert last.startswith("nothing of it is created now: paused by Ann since ")
        assert last.endswith(": typhoon")


KEPT = "A plan is kept for 24 hours; `ccat plan PIPELINE` makes one."


@pytest.mark.parametrize(
    ("meant", "hint"),
    [
        (str.upper, "Did you mean `{plan}`?"),
        (lambda plan: plan[:15], "Did you mean `{plan}`?"),
        (lambda plan: plan + "0", "Did you mean `{plan}`?"),
        (lambda _: "", "Known: `{plan}`."),
        (lambda _: " ", "Known: `{plan}`."),
        (lambda _: "../../etc/passwd", "Known: `{plan}`."),
        (lambda plan: f"./{plan}", "Did you mean `{plan}`?"),
        (lambda plan: f"{plan}/", "Did you mean `{plan}`?"),
        (lambda plan: f"{plan}\n", "Did you mean `{plan}`?"),
        (lambda _: "it", "Known: `{plan}`."),
        (lambda _: "' OR true; --", "Known: `{plan}`."),
        (lambda _: "☄", "Known: `{plan}`."),
    ],
)
def test_what_is_no_id_of_a_plan_is_refused_with_the_nearest_one(
    busy: Desk, meant: Callable[[str], str], hint: str
) -> None:
    plan_id = busy.plan()["plan"]
    said = meant(plan_id)
    told = f"error: There is no plan `{said}`. {hint.format(plan=plan_id)} {KEPT}\n".replace("\n`", " `")
    assert busy.refusal("trigger", "--plan", said) == told


@pytest.mark.parametrize("meant", [str.upper, lambda plan: plan[:15], lambda plan: plan + "0"])
def test_what_looks_like_the_id_of_a_plan_is_looked_for_among_plans(busy: Desk, meant: Callable[[str], str]) -> None:
    plan_id = busy.plan()["plan"]
    said = meant(plan_id)
    assert busy.refusal("plan", said) == f"error: There is no plan `{said}`. Did you mean `{plan_id}`? {KEPT}\n"


def test_a_pipeline_whose_name_looks_like_the_id_of_a_plan_is_one(desk: Desk) -> None:
    assert (
        desk.refusal("plan", "202604011200") == f"error: There is no plan `202604011200`. There is none yet. {KEPT}\n"
    )
    desk.history.define(CALIBRATE, CALIBRATE | {"key": "other", "pipeline": "202604011200"})
    assert desk.run("plan", "202604011200").stdout == "pipeline 202604011200: no run would be created now\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ti",), "There is no pipeline `ti`. Known: `it`."),
        (("",), "There is no pipeline ``. Known: `it`."),
        ((" it",), "There is no pipeline ` it`. Did you mean `it`?"),
        (("IT",), "There is no pipeline `IT`. Did you mean `it`?"),
        (("../../etc",), "There is no pipeline `../../etc`. Known: `it`."),
        (("it", "--step", ""), "There is no step `` of pipeline it. Known: `all`, `calibrate`, `grid`."),
        (("it", "--step", "Grid"), "There is no step `Grid` of pipeline it. Did you mean `grid`?"),
        (("it", "--step", "girds"), "There is no step `girds` of pipeline it. Did you mean `grid`?"),
        (("it", "--step", "maps"), "There is no step `maps` of pipeline it. Known: `all`, `calibrate`, `grid`."),
    ],
)
def test_unknown_names_are_refused(busy: Desk, words: tuple[str, ...], message: str) -> None:
    assert busy.refusal("plan", *words) == f"error: {message}\n"


# Whatever happened before


@pytest.mark.timeout(1800)
@settings(max_examples=200, derandomize=True)
@given(st.sampled_from(sorted(DEFINED)), st.sampled_from([[], [RECENT]]), st.lists(EVENTS, min_size=1, max_size=6))
def test_what_is_planned_is_what_is_created(
    fresh_history: Callable[[], History], shape: str, rules: list[dict[str, Any]], events: list[tuple[Any, ...]]
) -> None:
    history = fresh_history()
    desk = Desk(history)
    history.rules = rules
    undergo(history, shape, events)
    last = max((run.id for run in history.runs()), default=0)
    planned = history.session(lambda session: make_plan(session, "it", now=history.now, by="a test"))
    plan = planned.plan
    runs = history.session(lambda session: planned_runs(session, plan, limit=99)) if plan else []
    history.create()
    at_once = {(one.step, one.sub_group_key, one.reason, one.because) for one in runs if one.reason}
    assert created(desk, after=last) == at_once
    assert planned.at_once == len(at_once)
    assert planned.at_once + planned.later == len(runs)
