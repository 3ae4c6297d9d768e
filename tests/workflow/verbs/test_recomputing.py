"""What its step makes again may be deleted though others take it: no gap, and whoever needs it has it made again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.plan.retention import Obstacle
from ccat_ops_db.queries.retention import obstacles
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import PhysicalCopyStatus, ProductState, RunReason, RunStatus, Verdict
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.test_retention import make_room
from tests.workflow.verbs.works import LOCATION_NAME, MERGE, Works

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"], "retention_days": 0, "recompute": True}
MAP = {"key": "map", "group_by": ["source"], "depends_on": ["calibrate"]}
ONE_BY_ONE: dict[str, Any] = {
    "key": "calibrate",
    "group_by": ["executed_obs_unit"],
    "retention_days": 0,
    "recompute": True,
}
DIFFERENT = f'{MERGE}; date +%N >>"$WORKFLOW_OUTPUT_DIR/out.txt"'
"""Software that never makes the same twice."""


def story(works: Works) -> list[tuple[str, RunReason, RunStatus]]:
    """Every run in the order of their creation."""
    return [(run.reduction_step.key, run.reason, run.status) for run in works.runs()]


def map_of(works: Works) -> str:
    return works.text(next(run for run in reversed(works.runs()) if run.reduction_step.key == "map").products[0])


def copies(works: Works, run: models.ExecutedReductionStep) -> list[PhysicalCopyStatus]:
    return [works.all(models.PhysicalCopy, data_product_id=one.id)[0].status for one in run.products]


@pytest.fixture
def mapped(works: Works) -> Works:
    """Two scans that are calibrated and in a map; what was calibrated is deleted."""
    works.define(CALIBRATE, MAP)
    works.observe("one ")
    works.observe("two ")
    works.settle()
    assert map_of(works) == "one two "
    assert make_room(works) == 2
    return works


def test_what_is_made_again_may_go_though_a_step_takes_it_and_its_going_is_no_gap(mapped: Works) -> None:
    first, second, _ = mapped.runs()
    assert copies(mapped, first) == copies(mapped, second) == [PhysicalCopyStatus.DELETED]
    assert [one.products[0].state for one in (first, second)] == [ProductState.CURRENT] * 2
    assert {one.verdict for one in mapped.gap().values()} == {Verdict.UP_TO_DATE}
    assert mapped.create() == 0


def test_a_run_has_what_it_takes_made_again_and_nothing_else_is_done_again(mapped: Works) -> None:
    mapped.observe("three ")
    mapped.settle()
    assert map_of(mapped) == "one two three "
    done = RunStatus.COMPLETED
    assert sorted(story(mapped)[3:]) == [
        ("calibrate", RunReason.MISSING, done),
        ("calibrate", RunReason.RECOMPUTE, done),
        ("calibrate", RunReason.RECOMPUTE, done),
        ("map", RunReason.INPUTS_CHANGED, done),
    ]
    assert {one.verdict for one in mapped.gap().values()} == {Verdict.UP_TO_DATE}
    before, after = mapped.runs()[0], next(run for run in mapped.runs() if run.reason is RunReason.RECOMPUTE)
    assert (after.recipe_digest, after.input_digest, after.made_digest) == (
        before.recipe_digest,
        before.input_digest,
        before.made_digest,
    )
    assert after.because == f"products of run {before.id} were deleted, and run {mapped.runs()[-3].id} takes them"


# Plans


def test_a_plan_names_first_what_is_made_again_and_exactly_that_is_created(mapped: Works, say: Say) -> None:
    mapped.observe("three ")
    told = json.loads(say("plan", "toy", "--json").stdout)
    planned = [(one["number"], one["step"], one["reason"]) for one in told["runs"]]
    assert planned == [
        (1, "calibrate", "recompute"),
        (2, "calibrate", "recompute"),
        (3, "calibrate", "missing"),
        (4, "map", None),
    ]
    assert told["runs"][0]["because"] == "its products were deleted, and others of these runs take them"
    shown = say("plan", "toy").stdout
    assert "1 run would be created now, 1 would follow, and 2 would make again first what was deleted" in shown
    assert say("plan", told["plan"], "--limit", 1, "--after", 3).stdout.count("follows from") == 1
    launched = json.loads(say("trigger", "--plan", told["plan"], "--json").stdout)
    assert (launched["created"], launched["lapsed"]) == (1, {})
    mapped.settle()
    made = [(run.reduction_step.key, run.sub_group_key) for run in mapped.runs()[3:]]
    assert sorted(made) == sorted((one["step"], one["sub_group_key"]) for one in told["runs"])
    assert map_of(mapped) == "one two three "
    assert json.loads(say("plan", "toy", "--json").stdout)["plan"] is None
