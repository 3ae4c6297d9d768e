"""Runs and retention never both win, and nothing that goes is made again for it."""

import json
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_data_transfer.verbs.retaining import mark, schedule_deletions
from ccat_ops_db import models
from ccat_ops_db.plan.retention import Obstacle
from ccat_ops_db.queries.retention import obstacles
from ccat_ops_db.session import transaction
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import PhysicalCopyStatus, RunStatus, Verdict
from ccat_ops_db.verbs.retention import set_retention
from ccat_workflow_manager.verbs.starting import start_runs
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import LOCATION_NAME, Works

GRID = {"key": "grid", "group_by": ["source"]}
CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"], "retention_days": 0}
MAP = {"key": "map", "group_by": ["source"], "depends_on": ["calibrate"]}
LONG_AGO = datetime.now(UTC) - timedelta(days=8)


def keep_nothing(works: Works) -> None:
    works.session(lambda session: set_retention(session, LOCATION_NAME, days=0, high=None, low=None, by="Ann"))


def marked(works: Works) -> int:
    return works.session(lambda session: mark(session, works.location_id, by="transfer-manager"))


def scheduled(works: Works) -> list[int]:
    return works.session(
        lambda session: schedule_deletions(session, works.location_id, by="manager", lease=timedelta(minutes=1))
    )


def make_room(works: Works) -> int:
    marked(works)
    found = scheduled(works)
    delete_copies(works.worker, found)
    return len(found)


def staged(works: Works) -> list[models.PhysicalCopy]:
    return works.all(models.PhysicalCopy, type="raw_data_package", data_location_id=works.location_id)


def statuses(works: Works) -> list[PhysicalCopyStatus]:
    return [copy.status for copy in staged(works)]


# Staged packages


def test_what_an_active_run_takes_stays_until_it_is_over(works: Works) -> None:
    works.define(GRID)
    works.observe("one ")
    works.create()
    works.start()
    works.transfer()
    keep_nothing(works)
    assert make_room(works) == 0
    [copy] = staged(works)
    assert works.session(lambda session: obstacles(session, [copy.id])) == {copy.id: Obstacle.IN_USE}
    works.settle()
    assert make_room(works) == 1
    assert statuses(works) == [PhysicalCopyStatus.DELETED]
    assert works.create() == 0, "what is deleted is no gap"


def test_a_run_takes_back_what_was_to_go_and_nothing_is_staged_anew(works: Works) -> None:
    works.define(GRID)
    works.observe("one ")
    works.settle()
    keep_nothing(works)
    marked(works)
    found = scheduled(works)
    works.observe("two ")
    works.create()
    works.start()
    delete_copies(works.worker, found)
    assert statuses(works) == [PhysicalCopyStatus.STAGED]
    assert len(works.all(models.StagingJob)) == 2, "one for each package"
    works.settle()
    assert works.runs()[-1].status is RunStatus.COMPLETED
    change = works.all(models.StatusChange, noun="physical_copy", object_id=staged(works)[0].id)[-1]
    assert (change.to_status, change.because) == ("staged", "a run takes it")


def test_a_run_notes_that_it_uses_what_was_staged_long_ago(works: Works) -> None:
    works.define(GRID)
    works.observe("one ")
    works.settle()
    works.execute(sa.update(table_of(models.PhysicalCopy)).values(verified_at=LONG_AGO))
    works.observe("two ")
    works.create()
    works.start()
    used = [copy.used_at for copy in staged(works)]
    assert used[0] is not None
    assert used[0] > LONG_AGO
    works.settle()


def test_while_a_run_fixes_its_inputs_nobody_marks_them_and_afterwards_it_is_found(works: Works) -> None:
    works.define(GRID)
    works.observe("one ")
    works.settle()
    works.observe("two ")
    works.create()
    [run] = works.runs(status=RunStatus.PENDING)
    keep_nothing(works)
    is_fixed, begun = threading.Event(), time.monotonic()

    def fix() -> None:
        with transaction(works.engine) as session:
            start_runs(session, [run.id], now=datetime.now(UTC), by="workflow-manager")
            is_fixed.set()
            time.sleep(0.4)

    with ThreadPoolExecutor() as pool:
        fixing = pool.submit(fix)
        assert is_fixed.wait(10)
        assert marked(works) == 0
        fixing.result()
    assert time.monotonic() - begun >= 0.4, "it waited for the run"
    assert statuses(works) == [PhysicalCopyStatus.STAGED]
    works.settle()


def test_whoever_is_first_a_run_that_starts_and_the_removal_of_its_data_never_both_win(works: Works) -> None:
    works.define(GRID)
    works.observe("0")
    works.settle()
    keep_nothing(works)
    chance = random.Random(0)  # noqa: S311 - no secret
    for number in range(1, 5):
        marked(works)
        going = scheduled(works)
        works.observe(str(number))
        works.create()
        [run] = works.runs(status=RunStatus.PENDING)
        race(works, run.id, going, chance)
        check_that_a_run_has_its_data_or_waits_for_them(works, run.id)
        works.settle()
        done = works.run(id=run.id)
        assert done.status is RunStatus.COMPLETED, done.failure
        assert sorted(works.text(done.products[0])) == [str(one) for one in range(number + 1)]


def race(works: Works, run_id: int, going: Sequence[int], chance: random.Random) -> None:
    both = threading.Barrier(2)
    first, second = chance.uniform(0, 0.03), chance.uniform(0, 0.03)

    def start() -> None:
        both.wait(10)
        time.sleep(first)
        works.start(run_id)

    def delete() -> None:
        both.wait(10)
        time.sleep(second)
        delete_copies(works.worker, going)

    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(start), pool.submit(delete)]:
            one.result()


def check_that_a_run_has_its_data_or_waits_for_them(works: Works, run_id: int) -> None:
    wanted = {one.raw_data_package_id for one in works.all(models.RunInput, run_id=run_id)}
    there = {one.raw_data_package_id for one in staged(works) if one.status is PhysicalCopyStatus.STAGED}
    asked = {one.raw_data_package_id for one in works.all(models.StagingJob, status="pending")}
    assert (wanted & there) | asked == wanted
    for copy in staged(works):
        path = works.root / LOCATION_NAME / copy.path
        assert path.exists() == (copy.raw_data_package_id in there)


# Products


def test_an_intermediate_product_is_kept_while_an_enabled_step_takes_it_and_its_going_is_no_gap(works: Works) -> None:
    works.define(CALIBRATE, MAP)
    works.observe("one ")
    works.settle()
    calibrated, mapped = (run.products[0] for run in works.runs())
    file = works.root / LOCATION_NAME / works.all(models.PhysicalCopy, data_product_id=calibrated.id)[0].path
    assert make_room(works) == 0
    works.execute(sa.update(models.Pipeline).values(enabled=False))
    assert make_room(works) == 1
    assert not file.exists()
    assert works.text(mapped) == "one ", "what is final is kept for ever"
    works.execute(sa.update(models.Pipeline).values(enabled=True))
    assert {one.verdict for one in works.gap().values()} == {Verdict.UP_TO_DATE}
    assert works.create() == 0


def test_an_intermediate_product_that_a_newer_one_took_the_place_of_goes(works: Works) -> None:
    works.define(CALIBRATE, MAP)
    works.observe("one ")
    works.settle()
    works.execute(sa.update(table_of(models.DataProduct)).values(state="withdrawn"))
    works.settle()
    assert [run.reduction_step.key for run in works.runs()] == ["calibrate", "map", "calibrate", "map"]
    assert make_room(works) == 1
    gone, *kept = [works.all(models.PhysicalCopy, data_product_id=run.products[0].id)[0] for run in works.runs()]
    assert gone.status is PhysicalCopyStatus.DELETED
    assert {copy.status for copy in kept} == {PhysicalCopyStatus.PRESENT}


def test_products_of_a_trial_go_when_it_expires(works: Works) -> None:
    works.define(GRID)
    works.observe("one ")
    works.settle()
    run = works.run()
    works.execute(sa.update(table_of(models.DataProduct)).values(state="trial"))
    works.execute(sa.update(models.ExecutedReductionStep).values(is_trial=True, expires_at=LONG_AGO))
    assert make_room(works) == 1
    assert works.all(models.PhysicalCopy, data_product_id=run.products[0].id)[0].status is PhysicalCopyStatus.DELETED


# Commands


def test_the_plan_says_what_goes_and_what_stays_and_why(works: Works, say: Say) -> None:
    works.define(GRID)
    works.observe("one ")
    works.settle()
    assert say("retention", "set", LOCATION_NAME, "--staged-days", 0, "--high", 0.9, "--low", 0.8).stdout == (
        "cologne/ramses keeps copies for 0 days, and makes room above 90% of its disk down to 80%\n"
    )
    lines = [" ".join(line.split()) for line in say("retention", "plan").stdout.splitlines()]
    assert (
        "ccat/chai_raw_data keeps copies for ever, however full its disk is; "
        "`ccat retention set ccat/chai_raw_data --days N` says for how long" in lines
    )
    assert "1 copy goes, 4 bytes; 3 stay, 10248 bytes" in lines
    assert "cologne/ramses staged 1 4 bytes goes nobody uses it, and an archive has it, and its time is over" in lines
    assert "ccat/chai_raw_data source 1 4 bytes stays it is kept for ever" in lines
    told = json.loads(say("retention", "plan", "--location", LOCATION_NAME, "--json").stdout)
    assert (told["total"]["copies"], told["total"]["bytes"], told["total"]["kept_copies"]) == (1, 4, 1)
    assert say("retention", "pause", "--because", "the disk is copied").stdout.startswith("deleting is paused at ")
    paused = say("retention", "plan", "--location", LOCATION_NAME).stdout
    assert "deleting is paused there: the disk is copied" in paused
    assert say("retention", "resume", LOCATION_NAME).stdout == "deleting goes on at 1 location\n"
    assert say("retention", "set", LOCATION_NAME, "--usual").stdout.startswith("cologne/ramses keeps copies for 7 days")
    assert say("retention", "set", LOCATION_NAME).exit_code == 2


def test_classes_of_data_are_listed_and_made(say: Say) -> None:
    made = say("retention", "class", "precious", "--copies", 2, "--instrument", "CHAI")
    assert made.exit_code == 0
    found = json.loads(say("retention", "classes", "--json").stdout)
    assert found[0] == {"name": "precious", "min_copies": 2, "instruments": ["CHAI"]}
    assert (found[1]["name"], found[1]["min_copies"], "CHAI" in found[1]["instruments"]) == ("raw", 1, False)
    assert "class precious is made; with 1 active archive, nothing of it will have 2 copies" in made.stdout
    assert "class rwa is made; no instrument is in it" in say("retention", "class", "rwa").stdout
    assert "no instrument `CHAY`" in say("retention", "class", "precious", "--instrument", "CHAY").stderr
