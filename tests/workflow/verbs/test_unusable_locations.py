"""A location that is missing or cannot be written: it holds its runs, says so, and costs them no retry."""

import json
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat.wiring import roots_of
from ccat_ops_db import models
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.states import AlertKind, FailureClass, RunStatus
from ccat_ops_db.verbs.limiting import LIMITS_CHANGED
from ccat_service.spaces import measure_space, watching_space
from ccat_service.stop import Stop
from ccat_workflow_manager.verbs.describing import run_directory
from tests.needs import do_without
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import LOCATION_NAME, Works, eventually, prepare_attempts

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
ON = f" on {platform.node()}: "
Trouble = Callable[[Works], AbstractContextManager[object]]


def root_of(works: Works) -> Path:
    return works.root / LOCATION_NAME


def look(works: Works) -> None:
    """Have a worker look at the location."""
    measure_space(works.engine, works.location_id, root_of(works), base=works.base)


@contextmanager
def moved(path: Path) -> Iterator[None]:
    """Have something not lie where it should; what was made there meanwhile is lost."""
    away = path.with_name(f"{path.name}-away")
    path.rename(away)
    try:
        yield
    finally:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)
        away.rename(path)


@contextmanager
def missing(works: Works) -> Iterator[None]:
    with moved(root_of(works)):
        yield


@contextmanager
def not_mounted(works: Works) -> Iterator[None]:
    with moved(root_of(works)):
        root_of(works).mkdir()
        yield


@contextmanager
def a_file(works: Works) -> Iterator[None]:
    with moved(root_of(works)):
        root_of(works).write_text("where a directory should be")
        yield


@contextmanager
def not_for_us(works: Works) -> Iterator[None]:
    """Runs lie where nobody may make a file, whoever he is."""
    with moved(works.base):
        works.base.symlink_to("/sys")
        yield


@contextmanager
def read_only(works: Works) -> Iterator[None]:
    """The location is mounted once more over itself, as one whose disk turned read-only."""
    root = str(root_of(works))
    for command in (["mount", "--bind", root, root], ["mount", "-o", "remount,ro,bind", root]):
        if subprocess.run(command, check=False, capture_output=True).returncode:
            subprocess.run(["umount", root], check=False, capture_output=True)
            do_without("this container may not mount: start it with CAP_SYS_ADMIN (`--cap-add SYS_ADMIN`)")
    try:
        yield
    finally:
        subprocess.run(["umount", root], check=True)


@dataclass(frozen=True)
class Case:
    """A trouble, and how it is told."""

    trouble: Trouble
    what: str
    then: str


CASES = {
    "missing": Case(missing, f"is missing{ON}No such file or directory: ", "; mount or make it"),
    "not-mounted": Case(
        not_mounted, f"is missing{ON}it is empty, as a directory where nothing is mounted: ", "; mount or make it"
    ),
    "a-file": Case(a_file, f"is missing{ON}Not a directory: ", "; mount or make it"),
    "not-for-us": Case(not_for_us, f"cannot be written{ON}", "; make it writable"),
    "read-only": Case(read_only, f"cannot be written{ON}Read-only file system: ", "; make it writable"),
}
every_trouble = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@pytest.fixture
def staged(works: Works) -> Works:
    """An installation with one run whose data are there, and a base directory."""
    works.base.mkdir(parents=True)
    works.define(CALIBRATE)
    works.observe("one")
    works.create()
    works.advance()
    works.transfer()
    return works


def why(say: Say, run: models.ExecutedReductionStep) -> str:
    return str(json.loads(say("run", "why", run.id, "--json").stdout)["waiting_for"])


def located(say: Say) -> dict[str, Any]:
    found = json.loads(say("locations", "--json").stdout)
    return next(one for one in found if one["name"] == LOCATION_NAME)


def alerts(works: Works) -> list[tuple[AlertKind, str]]:
    late = datetime.now(UTC) - timedelta(days=1)
    found = works.session(lambda session: list(conditions(session, late=late)))
    return [(one.kind, one.sentence) for one in found]


@every_trouble
def test_it_takes_nothing_says_so_and_goes_on_by_itself(staged: Works, say: Say, case: Case) -> None:
    works = staged
    with case.trouble(works):
        look(works)
        works.archived("two")
        works.create()
        works.let_leases_end()
        works.advance()
        assert works.deliver() == 0
        first, second = works.runs()
        assert (first.status, second.status, second.held_by_limit) == (RunStatus.STAGING_DATA, RunStatus.PENDING, True)
        for told in (why(say, first), why(say, second)):
            assert told.startswith(f"location {LOCATION_NAME} {case.what}")
            assert told.endswith(f"{case.then}: nothing is staged or submitted there until then")
        [alert] = alerts(works)
        assert alert == (AlertKind.UNUSABLE_LOCATION, why(say, first))
        here = located(say)
        assert (here["state"], here["free_bytes"]) == ("unusable", None)
        assert here["trouble"].startswith(case.what)
        assert here["trouble"].endswith(case.then)
        assert case.what.split(ON)[0].split()[-1] in say("locations").stdout.split()
    look(works)
    assert (located(say)["state"], located(say)["trouble"], alerts(works)) == ("ok", None, [])
    works.advance()
    works.deliver()
    assert works.until(RunStatus.COMPLETED, first.id).retry_count == 0
    assert len(works.run(id=first.id).attempts) == 1


@every_trouble
@pytest.mark.parametrize("is_prepared", [False, True])
def test_before_anybody_looked_it_costs_no_retry(staged: Works, say: Say, case: Case, *, is_prepared: bool) -> None:
    works, run = staged, staged.run()
    if is_prepared:
        assert prepare_attempts(works.workplace, [run.id]) == [run.id]
    with case.trouble(works):
        for _ in range(3):
            works.let_leases_end()
            works.advance()
            assert works.deliver() == 1
        assert works.run().status is RunStatus.STAGING_DATA
        told = why(say, run)
        assert told.startswith(f"its location {case.what}")
        assert told.endswith(case.then)
    works.let_leases_end()
    works.settle()
    found = works.run()
    assert (found.status, found.trouble_count, len(found.attempts)) == (RunStatus.COMPLETED, 0, 1)


def test_what_only_one_run_meets_fails_its_attempt(staged: Works) -> None:
    works, run = staged, staged.run()
    directory = run_directory(run, works.base).directory
    directory.parent.mkdir(parents=True)
    directory.write_text("a file where a directory should be")
    works.let_leases_end()
    works.advance()
    assert works.deliver() == 1
    found = works.run()
    assert (found.status, found.failure_class) == (RunStatus.FAILED, FailureClass.INFRASTRUCTURE)
    assert found.retry_at


def test_a_new_location_that_is_empty_yet_is_no_trouble(works: Works) -> None:
    fresh = works.add_location("fresh")
    root = works.root / "cologne/fresh"
    measure_space(works.engine, fresh, root, base=root / "pipelines")
    location = models.DataLocation
    assert works.all_of(sa.select(location.free_bytes > 0).filter_by(id=fresh)) == [True]
    assert works.all_of(sa.select(location.trouble).filter_by(id=fresh)) == [None]


def test_a_look_leaves_nothing_behind_and_takes_away_what_one_left_that_died(staged: Works) -> None:
    look(staged)
    assert list(staged.base.glob(".*")) == []
    (staged.base / ".ccat-can-be-written").touch()
    look(staged)
    assert list(staged.base.glob(".*")) == []


def test_where_no_inode_is_left_people_are_told_of_it_and_nothing_is_begun(works: Works, say: Say) -> None:
    root = root_of(works)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=3", "tmpfs", str(root)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        do_without("this container may not mount a file system: start it with CAP_SYS_ADMIN (`--cap-add SYS_ADMIN`)")
    try:
        for name in ("one", "two"):
            (root / name).touch()
        assert shutil.disk_usage(root).free
        look(works)
        here = located(say)
        assert (here["state"], here["free_bytes"]) == ("unusable", 0)
        assert here["trouble"].startswith("has no free inodes on ")
        assert [kind for kind, _ in alerts(works)] == [AlertKind.UNUSABLE_LOCATION]
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_a_worker_notices_it_wakes_who_starts_runs_and_wakes_them_again_when_it_is_over(works: Works, say: Say) -> None:
    works.base.mkdir(parents=True)
    roots, bases = {works.location_id: root_of(works)}, {works.location_id: works.base}
    ear, stop = Stop(), Stop()
    with works.database.listen(stop=ear) as wakeups:
        wakeups.wait(timedelta(seconds=5))  # connects
        with watching_space(works.engine, lambda: roots, bases=bases, stop=stop, interval=timedelta(seconds=0.05)):
            eventually(lambda: located(say)["state"] == "ok")
            with not_for_us(works):
                assert wakeups.wait(timedelta(seconds=20)) == {LIMITS_CHANGED}
                assert located(say)["state"] == "unusable"
            assert wakeups.wait(timedelta(seconds=20)) == {LIMITS_CHANGED}
            assert located(say)["state"] == "ok"
            stop.request()
    stop.close()
    ear.close()


def test_trouble_that_was_seen_long_ago_is_said_to_be_so(staged: Works, say: Say) -> None:
    with missing(staged):
        look(staged)
    location, then = models.DataLocation, datetime(2026, 4, 5, tzinfo=UTC)
    staged.execute(sa.update(location).where(location.trouble.is_not(None)).values(space_checked_at=then))
    staged.let_leases_end()
    staged.advance()
    assert why(say, staged.run()).endswith(" (as seen at 2026-04-05 00:00 UTC: no worker has looked since)")
    assert located(say)["state"] == "unknown"
    assert "2026-04-05" in say("locations").stdout.split()


def test_a_transfer_worker_leaves_it_to_those_who_work_there(works: Works) -> None:
    locations = works.all(models.DataLocation)
    watched = roots_of(locations)
    assert works.location_id not in watched
    assert watched.keys() < {one.id for one in locations}
    assert watched
