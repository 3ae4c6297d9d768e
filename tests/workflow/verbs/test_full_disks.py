"""The free-space reserve of a location: visible, and nothing starts below it."""

import json
import platform
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from errno import EDQUOT
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.plan.spaces import FRESH, SpaceState, short_sentence, size, space_state
from ccat_ops_db.queries.spaces import short_locations
from ccat_ops_db.states import RunStatus
from ccat_ops_db.verbs.limiting import LIMITS_CHANGED
from ccat_ops_db.verbs.spaces import record_space
from ccat_service import spaces
from ccat_service.spaces import measure_space, watching_space
from ccat_service.stop import Stop
from tests.needs import do_without
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import LOCATION_NAME, Works, eventually, prepare_attempts

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
NOW = datetime(2026, 4, 5, tzinfo=UTC)
EXABYTE = 10**18


def reserve(works: Works, number: int) -> None:
    """Have so much left free at the processing location, and a worker look at its disk."""
    location = models.DataLocation
    works.execute(sa.update(location).where(location.id == works.location_id).values(free_space_reserve_bytes=number))
    measure_space(works.engine, works.location_id, works.root / LOCATION_NAME)


def located(say: Say) -> dict[str, Any]:
    found = json.loads(say("locations", "--json").stdout)
    return next(one for one in found if one["name"] == LOCATION_NAME)


def test_below_the_reserve_nothing_starts_and_why_says_so_until_there_is_room(works: Works, say: Say) -> None:
    works.define(CALIBRATE)
    works.observe("one")
    reserve(works, EXABYTE)
    works.create()
    works.advance()
    run = works.run()
    assert run.status is RunStatus.PENDING
    assert run.held_by_limit
    told = json.loads(say("run", "why", run.id, "--json").stdout)["waiting_for"]
    assert told.startswith(f"location {LOCATION_NAME} has ")
    assert told.endswith("free, its reserve is 1000000 TB: nothing is staged or submitted there until more is free")
    assert located(say)["state"] == "below reserve"
    reserve(works, 0)
    works.settle()
    assert works.run().status is RunStatus.COMPLETED
    assert located(say)["state"] == "ok"


@pytest.mark.parametrize("is_prepared", [False, True])
def test_what_was_started_is_neither_prepared_nor_submitted(works: Works, *, is_prepared: bool) -> None:
    works.define(CALIBRATE)
    works.observe("one")
    works.create()
    works.advance()
    works.transfer()
    if is_prepared:
        prepare_attempts(works.workplace, [works.run().id])
    reserve(works, EXABYTE)
    works.let_leases_end()
    works.advance()
    assert works.deliver() == 0
    run = works.run()
    assert run.status is RunStatus.STAGING_DATA
    assert f"location {LOCATION_NAME} has" in str(run.waiting_for)
    reserve(works, 0)
    works.settle()
    assert works.run().status is RunStatus.COMPLETED
    assert len(works.run().attempts) == 1


def test_a_disk_is_written_down_while_others_hold_its_key(works: Works) -> None:
    with works.engine.begin() as other:
        other.execute(sa.text("SELECT FROM data_location WHERE id = :id FOR KEY SHARE"), {"id": works.location_id})
        works.session(partial(impatient, works.location_id))
    assert works.all_of(sa.select(models.DataLocation.free_bytes).filter_by(id=works.location_id)) == [5]


def impatient(location_id: int, session: Session) -> None:
    session.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
    record_space(session, location_id, free=5, total=9, now=NOW)


@pytest.fixture
def without_inodes(tmp_path: Path) -> Iterator[Path]:
    """A file system that has room, and takes no more files."""
    root = tmp_path / "small"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=3", "tmpfs", str(root)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        do_without(f"nothing can be mounted here, run as root to have this tested: {done.stderr.strip()}")
    for name in ("one", "two"):
        (root / name).touch()
    yield root
    subprocess.run(["umount", root], check=True)


def test_a_disk_without_inodes_takes_nothing_though_it_has_room_and_says_why(
    works: Works, without_inodes: Path
) -> None:
    for base in (None, without_inodes):
        measure_space(works.engine, works.location_id, without_inodes, base=base)
        [seen] = works.all_of(sa.select(models.DataLocation).filter_by(id=works.location_id))
        assert (seen.free_bytes, seen.total_bytes) == (0, 2 * 2**20)  # to delete something helps
        told = works.session(short_locations)[works.location_id]
        assert told.startswith(f"location {LOCATION_NAME} has no free inodes on {platform.node()}: its file system ")
        assert told.endswith("have it made with more inodes: nothing is staged or submitted there until then")
    (without_inodes / "two").unlink()
    measure_space(works.engine, works.location_id, without_inodes, base=without_inodes)
    assert works.session(short_locations) == {}


def test_a_quota_that_is_used_up_is_told_and_room_is_made_as_on_a_full_disk(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_root: Path, base: Path) -> None:
        raise OSError(EDQUOT, "Disk quota exceeded", str(base))

    monkeypatch.setattr(spaces, "try_to_write", refuse)
    measure_space(works.engine, works.location_id, works.root / LOCATION_NAME, base=works.base)
    assert works.all_of(sa.select(models.DataLocation.free_bytes).filter_by(id=works.location_id)) == [0]
    told = works.session(short_locations)[works.location_id]
    assert told.startswith(f"location {LOCATION_NAME} has no disk quota left on {platform.node()}: Disk quota ")


def test_what_was_seen_long_ago_is_said_to_be_so(works: Works) -> None:
    works.session(partial(record_space, location_id=works.location_id, free=0, total=9, now=NOW))
    told = works.session(short_locations)[works.location_id]
    assert " has 0 bytes free (as seen at 2026-04-05 00:00 UTC: no worker has looked since), nothing can be " in told
    works.session(partial(record_space, location_id=works.location_id, free=0, total=9, now=datetime.now(UTC)))
    assert "as seen at" not in works.session(short_locations)[works.location_id]


def test_who_looks_at_disks_stops_when_what_it_accompanies_fails(works: Works) -> None:
    stop = Stop()
    with pytest.raises(LookupError), watching_space(works.engine, dict, stop=stop):
        raise LookupError
    assert stop.requested
    stop.close()


def test_who_starts_runs_is_woken_when_a_disk_fills_up_and_when_it_has_room_again(works: Works) -> None:
    stop = Stop()
    with works.database.listen(stop=stop) as wakeups:
        wakeups.wait(timedelta(seconds=5))  # connects
        for free, heard in ((5, set()), (0, {LIMITS_CHANGED}), (0, set()), (9, {LIMITS_CHANGED})):
            see = partial(record_space, location_id=works.location_id, free=free, total=9, now=NOW)
            works.session(see)
            assert wakeups.wait(timedelta(seconds=0.2)) == heard
    stop.close()


def test_a_worker_looks_at_its_disks_while_nothing_runs_and_says_which_it_cannot_see(works: Works, say: Say) -> None:
    assert located(say)["state"] == "unknown"
    away = works.add_location("away")
    stop, roots = Stop(), {works.location_id: works.root / LOCATION_NAME}
    with watching_space(works.engine, lambda: dict(roots), stop=stop, interval=timedelta(seconds=0.05)):
        eventually(lambda: located(say)["checked_at"])
        first = located(say)["checked_at"]
        eventually(lambda: located(say)["checked_at"] > first)
        roots[away] = Path("/nowhere")
        eventually(lambda: works.all_of(sa.select(models.DataLocation.trouble).filter_by(id=away)) != [None])
        stop.request()
    stop.close()
    assert located(say)["state"] == "ok"
    assert located(say)["total_bytes"] >= located(say)["free_bytes"] > 0
    [unseen] = [one for one in json.loads(say("locations", "--json").stdout) if one["id"] == away]
    assert (unseen["state"], unseen["free_bytes"]) == ("unusable", None)
    assert unseen["trouble"].endswith("/nowhere; mount or make it")


def test_disks_that_are_added_or_moved_while_a_worker_runs_are_looked_at_where_they_are(works: Works) -> None:
    def checked(one: int) -> datetime | None:
        return works.session(lambda session: session.get_one(models.DataLocation, one).space_checked_at)

    first, late = works.location_id, works.add_location("late")
    stop, roots = Stop(), {first: works.root / LOCATION_NAME}
    try:
        with watching_space(works.engine, lambda: dict(roots), stop=stop, interval=timedelta(seconds=0.05)):
            eventually(lambda: checked(first))
            assert checked(late) is None
            roots |= {late: works.root, first: works.root / "away"}
            eventually(lambda: checked(late))
            is_left = datetime.now(UTC) + timedelta(seconds=0.3)
            eventually(lambda: (checked(late) or is_left) > is_left)
    finally:
        stop.close()
    assert (checked(first) or is_left) < is_left


def test_the_list_of_locations_says_what_is_known_of_each(works: Works, say: Say) -> None:
    reserve(works, 5 * 10**9)
    said = say("locations").stdout
    assert LOCATION_NAME in said
    assert "5.0 GB" in said
    assert "unknown" in said


@pytest.mark.parametrize(
    ("free", "kept", "age", "state"),
    [
        (10, 5, timedelta(), SpaceState.OK),
        (5, 5, timedelta(), SpaceState.OK),
        (4, 5, timedelta(), SpaceState.BELOW_RESERVE),
        (0, 0, timedelta(), SpaceState.BELOW_RESERVE),
        (4, 5, FRESH + timedelta(seconds=1), SpaceState.UNKNOWN),
        (None, 5, timedelta(), SpaceState.UNKNOWN),
    ],
)
def test_the_state_of_a_disk_is_what_was_seen_lately(
    free: int | None, kept: int, age: timedelta, state: SpaceState
) -> None:
    checked_at = None if free is None else NOW - age
    assert space_state(free, reserve=kept, checked_at=checked_at, now=NOW) is state


def test_sizes_are_told_in_two_digits_and_a_full_disk_without_a_reserve_is_told_too() -> None:
    assert [size(one) for one in (12, 3_400_000, 56_000_000_000, 9_900_000_000_000)] == [
        "12 bytes",
        "3.4 MB",
        "56 GB",
        "9.9 TB",
    ]
    assert short_sentence("cologne/ramses", free=0, reserve=0).startswith(
        "location cologne/ramses has 0 bytes free, nothing can be written there: "
    )
