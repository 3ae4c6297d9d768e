"""What its step makes again may be deleted though others take it: no gap, and whoever needs it has it made again."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.plan.retention import Obstacle
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.queries.retention import obstacles
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import PhysicalCopyStatus, ProductState, RunReason, RunStatus, Verdict
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.test_retention import make_room
from tests.workflow.verbs.works import LOCATION_NAME, MERGE, Works, eventually

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"], "retention_days": 0, "recompute": True}
MAP = {"key": "map", "group_by": ["source"], "depends_on": ["calibrate"]}
CLEAN = {**CALIBRATE, "key": "clean", "depends_on": ["calibrate"]}
MAP_OF_CLEAN = {**MAP, "depends_on": ["clean"]}
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
    works.observe("one ")
    works.observe("two ")
    works.define(CALIBRATE, MAP)
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


def test_what_lies_elsewhere_is_brought_and_not_made_again(works: Works) -> None:
    works.observe("one ")
    works.define(CALIBRATE, MAP)
    works.settle()
    second, [product] = works.add_location("second"), works.runs()[0].products
    [copy] = works.all(models.PhysicalCopy, data_product_id=product.id)
    place = works.root / "cologne/second" / copy.path
    place.parent.mkdir(parents=True)
    (works.root / "cologne/ramses" / copy.path).rename(place)
    works.execute(sa.update(models.PhysicalCopy).filter_by(id=copy.id).values(data_location_id=second))
    works.observe("two ")
    works.settle()
    assert map_of(works) == "one two "
    assert works.runs(reason=RunReason.RECOMPUTE) == []


def test_what_it_takes_itself_is_made_again_before_as_far_up_as_it_is_gone(works: Works, say: Say) -> None:
    works.define(CALIBRATE, CLEAN, MAP_OF_CLEAN)
    works.observe("one ")
    works.settle()
    assert make_room(works) == 2
    works.observe("two ")
    told = json.loads(say("plan", "toy", "--json").stdout)
    assert [(one["step"], one["reason"]) for one in told["runs"]] == [
        ("calibrate", "recompute"),
        ("clean", "recompute"),
        ("calibrate", "missing"),
        ("clean", None),
        ("map", None),
    ]
    works.settle()
    assert map_of(works) == "one two "
    again = [run for run in works.runs() if run.reason is RunReason.RECOMPUTE]
    assert [run.reduction_step.key for run in again] == ["clean", "calibrate"], "who needs something asks for it"
    assert len(works.runs()) == 3 + len(told["runs"])
    assert {one.verdict for one in works.gap().values()} == {Verdict.UP_TO_DATE}


def test_until_it_was_used_nothing_that_was_made_again_is_deleted(mapped: Works) -> None:
    mapped.observe("three ")

    def is_ready() -> bool:
        mapped.round()
        again = mapped.runs(reason=RunReason.RECOMPUTE)
        return len(again) == 2 and all(run.status is RunStatus.COMPLETED for run in again)

    eventually(is_ready)
    products = [run.products[0].id for run in mapped.runs(reason=RunReason.RECOMPUTE)]
    kept = [copy.id for one in products for copy in mapped.all(models.PhysicalCopy, data_product_id=one)]
    found = mapped.session(lambda session: obstacles(session, kept))
    assert found == dict.fromkeys(kept, Obstacle.AWAITED)
    assert make_room(mapped) == 0
    mapped.settle()
    assert map_of(mapped) == "one two three "
    assert make_room(mapped) == 3
    assert mapped.create() == 0


def test_where_other_bytes_are_made_these_count_and_what_took_the_others_is_made_anew_once(works: Works) -> None:
    works.define(CALIBRATE, MAP, {**MAP, "key": "other"}, scripts={"calibrate": DIFFERENT})
    works.observe("one ")
    works.settle()
    first = works.runs()[0]
    assert make_room(works) == 1
    works.apply(
        {"software": [{"name": "toy-map", "versions": [works.version(), works.version(version="2.0", series="2")]}]}
    )
    works.settle()
    done = RunStatus.COMPLETED
    assert story(works)[3:] == [
        ("map", RunReason.RECIPE_CHANGED, done),
        ("calibrate", RunReason.RECOMPUTE, done),
        ("other", RunReason.UPSTREAM_CHANGED, done),
    ]
    again = works.run(reason=RunReason.RECOMPUTE)
    assert first.made_digest != again.made_digest
    assert [one.state for run in (works.runs()[0], again) for one in run.products] == ["superseded", "current"]
    assert works.runs()[3].products[0].checksum == works.runs()[5].products[0].checksum
    assert works.create() == 0


# Trouble


def test_who_waits_says_for_what_and_what_failed_is_tried_again(works: Works, say: Say) -> None:
    works.define(
        {**CALIBRATE, "max_retries": 0}, MAP, scripts={"calibrate": f"test ! -e {works.root}/broken && {MERGE}"}
    )
    works.observe("one ")
    works.settle()
    assert make_room(works) == 1
    (works.root / "broken").touch()
    works.apply(
        {"software": [{"name": "toy-map", "versions": [works.version(), works.version(version="2.0", series="2")]}]}
    )
    again = works.until(RunStatus.FAILED)
    works.let_leases_end()
    works.advance()
    waiting = works.run(status=RunStatus.PENDING)
    path = again.sub_group_path
    assert waiting.waiting_for == (
        f"waits for products to be made again: calibrate {path}; calibrate {path}: run {again.id} failed "
        f"({again.failure}), and `ccat run retry {again.id}` tries it again"
    )
    assert f"it {waiting.waiting_for}" in say("run", "why", waiting.id).stdout
    assert len(works.runs(reason=RunReason.RECOMPUTE)) == 1, "what failed for good is not created anew"
    late = datetime.now(UTC) - timedelta(hours=12)
    [alert] = works.session(lambda session: list(conditions(session, late=late)))
    assert alert.sentence.startswith("1 sub-group of toy/calibrate failed for good: ")
    (works.root / "broken").unlink()
    assert say("run", "retry", again.id, "--because", "mended").exit_code == 0
    works.settle()
    assert works.run(id=again.id).status is RunStatus.COMPLETED
    assert works.run(id=waiting.id).status is RunStatus.COMPLETED


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


# Retention


def test_the_plan_of_retention_says_that_it_is_made_again_and_a_full_disk_brings_it_forward(
    works: Works, say: Say
) -> None:
    works.observe("one ")
    works.define({**CALIBRATE, "retention_days": 30}, MAP)
    works.settle()

    def told() -> list[str]:
        lines = say("retention", "plan", "--location", LOCATION_NAME).stdout.splitlines()
        return [" ".join(line.split()) for line in lines if "recomputable" in line]

    assert told() == ["cologne/ramses recomputable 1 4 bytes stays its time is not over"]
    works.execute(sa.update(table_of(models.DataProduct)).values(created_at=datetime.now(UTC) - timedelta(days=31)))
    why = "its step makes it again when a run takes it"
    assert told() == [f"cologne/ramses recomputable 1 4 bytes goes {why}, and its time is over"]
    works.execute(sa.update(table_of(models.DataProduct)).values(created_at=datetime.now(UTC)))
    full = {"free_bytes": 1_000, "total_bytes": 100_000, "space_checked_at": datetime.now(UTC)}
    works.execute(sa.update(models.DataLocation).where(models.DataLocation.id == works.location_id).values(**full))
    assert told() == [f"cologne/ramses recomputable 1 4 bytes goes {why}, and the disk is above its high mark"]
    works.execute(sa.update(models.ReductionSoftwareVersion).values(state="retired"))
    assert told() == [], "what nothing may make again is kept as before"
