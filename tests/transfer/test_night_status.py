"""What `ccat transfer status` says in the middle of a night: numbers that somebody acts on at three in the morning."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ccat_data_transfer.backends.errors import BadFile
from ccat_data_transfer.backends.movers import Parcel, Rsync
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.rates import WINDOW, per_hour, worse_per_hour
from ccat_data_transfer.verbs.transferring import transfer
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import Mover
from tests.transfer.support import Observatory, say

GB, TB = 10**9, 10**12
NOW = datetime(2026, 4, 1, 3, tzinfo=UTC)
SOURCE = "ccat/chai_raw_data"
SIZES = st.integers(0, 10**15)
AGES = st.timedeltas(timedelta(), WINDOW)


def told(observatory: Observatory) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(say(observatory, "transfer", "status", "--json"))
    return found


def level(observatory: Observatory, location: str = SOURCE) -> Mapping[str, Any]:
    [found] = [one for one in told(observatory)["levels"] if one["location"] == location]
    return dict(found)


def shown(observatory: Observatory, begins: str) -> str:
    """A line of what people see, its columns apart by one space."""
    lines = [" ".join(line.split()) for line in say(observatory, "transfer", "status").splitlines()]
    [line] = [one for one in lines if one.startswith(begins)]
    return line


def record(observatory: Observatory, *, minutes_ago: float, size_bytes: int) -> None:
    """An instrument has registered a file of this size, so long ago."""
    scan_id = observatory.start_scan()
    observatory.register(scan_id, {f"{scan_id}.fits": b""})
    file, copy, at = models.RawDataFile, models.PhysicalCopy, sa.func.now() - timedelta(minutes=minutes_ago)
    with transaction(observatory.engine) as session:
        of_scan = sa.select(file.id).filter_by(executed_obs_unit_id=scan_id)
        session.execute(sa.update(copy).where(copy.raw_data_file_id.in_(of_scan)).values(created_at=at))
        of_file = sa.update(file).where(file.executed_obs_unit_id == scan_id)
        session.execute(of_file.values(created_at=at, size_bytes=size_bytes))


def see(observatory: Observatory, *, free: int, total: int, ago: timedelta = timedelta()) -> None:
    """A worker looked at the disk of the instrument so long ago."""
    values = {"free_bytes": free, "total_bytes": total, "space_checked_at": sa.func.now() - ago}
    here = models.DataLocation.id == observatory.location_id(SOURCE)
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.DataLocation).where(here).values(values))


def delete(observatory: Observatory, *, minutes_ago: float, size_bytes: int) -> None:
    """A file that was recorded the night before is deleted, as the history of its copy tells."""
    record(observatory, minutes_ago=20 * 60, size_bytes=size_bytes)
    copy, change = models.PhysicalCopy, models.StatusChange
    with transaction(observatory.engine) as session:
        [newest] = session.scalars(sa.select(copy).order_by(copy.id.desc()).limit(1))
        history = {"noun": copy.__tablename__, "object_id": newest.id, "from_status": "deletion_in_progress"}
        at = sa.func.now() - timedelta(minutes=minutes_ago)
        session.execute(sa.insert(change).values(**history, to_status="deleted", by="a test", because="a test", at=at))


def test_forty_minutes_into_a_night_the_disk_of_a_fast_instrument_is_full_in_six_hours_and_not_in_36(
    far: Observatory,
) -> None:
    for minutes in range(1, 41):
        record(far, minutes_ago=minutes, size_bytes=round(333 * GB / 60))
    see(far, free=2 * TB, total=10 * TB)
    found = level(far)
    assert 330 * GB <= found["filled_per_hour"] <= 345 * GB
    assert found["hours_left"] in {5.8, 5.9, 6.0}
    assert 325 * GB <= told(far)["registered_per_hour"] <= 340 * GB


def test_what_became_faster_just_now_decides_how_long_there_is_room(far: Observatory) -> None:
    for hours in range(1, 6):
        record(far, minutes_ago=60 * hours, size_bytes=10 * GB)
    record(far, minutes_ago=10, size_bytes=100 * GB)
    see(far, free=400 * GB, total=10 * TB)
    assert (level(far)["filled_per_hour"], level(far)["hours_left"]) == (200 * GB, 2.0)


def test_room_that_was_made_before_the_night_began_does_not_hide_that_the_disk_fills(far: Observatory) -> None:
    delete(far, minutes_ago=300, size_bytes=5 * TB)
    record(far, minutes_ago=60, size_bytes=100 * GB)
    see(far, free=TB, total=10 * TB)
    assert 99 * GB <= level(far)["filled_per_hour"] <= 100 * GB
    delete(far, minutes_ago=50, size_bytes=60 * GB)
    assert 39 * GB <= level(far)["filled_per_hour"] <= 40 * GB


def test_a_source_that_nobody_has_seen_for_two_days_has_no_level_and_no_hours(far: Observatory) -> None:
    record(far, minutes_ago=60, size_bytes=100 * GB)
    see(far, free=TB, total=10 * TB, ago=timedelta(days=2))
    found = level(far)
    assert (found["state"], found["hours_left"]) == ("unknown", None)
    assert datetime.fromisoformat(found["seen_at"]) < datetime.now(UTC) - timedelta(hours=47)
    line = shown(far, SOURCE)
    assert line.startswith(
        f"{SOURCE} source unknown since {found['seen_at'][:10]} {found['seen_at'][11:16]} UTC 1.0 TB"
    )
    assert line.endswith("then 100 GB/h unknown")
    assert shown(far, "ccat/buffer") == "ccat/buffer buffer unknown: no worker has ever looked"


def test_a_transfer_that_took_nine_hours_is_among_what_arrived_of_late(far: Observatory) -> None:
    far.observe({"a.fits": b"a" * 100})
    far.do_all()
    trip = models.DataTransfer
    with transaction(far.engine) as session:
        session.execute(sa.update(trip).values(created_at=sa.func.now() - timedelta(hours=9)))
    [crossed] = told(far)["crossed"]
    assert (crossed["transfers"], crossed["destination"]) == (1, "cologne/buffer")
    with transaction(far.engine) as session:
        moves = sa.update(models.StatusChange).filter_by(noun=trip.__tablename__)
        session.execute(moves.values(at=sa.func.now() - timedelta(hours=7)))
    assert told(far)["crossed"] == []


@dataclass(frozen=True)
class OneByOne(Rsync):
    """Rsync that is started for each file, with a look at the work in between."""

    look: Callable[[], object] = dict

    def __call__(self, parcel: Parcel, into: Path, *, progress: Callable[[], None]) -> Mapping[str, BadFile]:
        for one in parcel.files:
            super().__call__(replace(parcel, files=[one]), into, progress=progress)
            progress()
            self.look()
        return {}


def test_of_a_transfer_between_sites_it_is_told_how_much_of_it_has_come(far: Observatory) -> None:
    for size in (100_000, 300_000):
        far.observe({f"{size}.fits": bytes(size)})
    far.do(Operation.PACKING)
    with transaction(far.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(method=Mover.RSYNC))
    far.ship()
    [transfer_id] = far.schedule(Operation.TRANSFERRING)
    [before] = told(far)["crossings"]
    total = before["size_bytes"]
    assert (before["arrived_bytes"], before["packages"]) == (None, 2)
    assert "bytes, not seen to move yet 0 of 2" in shown(far, f"{transfer_id} ccat/buffer")
    seen: list[int] = []
    mover = OneByOne(look=lambda: seen.append(told(far)["crossings"][0]["arrived_bytes"]))
    transfer(replace(far.worker, rsync=mover, lease=timedelta()), transfer_id)
    assert 100_000 < seen[0] < 200_000
    assert seen[1] == total
    [after] = told(far)["crossings"]
    assert (after["arrived_bytes"], after["arrived"]) == (total, 0)
    far.do(Operation.UNPACKING)
    assert told(far)["crossings"] == []


def test_the_rate_of_archiving_counts_from_when_there_was_something_to_archive(far: Observatory) -> None:
    package_id = far.observe({"a.fits": b"a" * 100})
    far.do_all()
    ago, package = sa.func.now() - timedelta(minutes=30), models.RawDataPackage
    values = {"created_at": ago, "size_bytes": 50 * GB}
    with transaction(far.engine) as session:
        session.execute(sa.update(package).filter_by(id=package_id).values(values))
    record(far, minutes_ago=10, size_bytes=200 * GB)
    found = told(far)
    assert 99 * GB <= found["archived_per_hour"] <= 100 * GB
    assert found["backlog_hours"] == 2.0
    assert " UTC" in shown(far, "200 GB not archived yet, 2 h at the rate of late; ").partition("the last at ")[2]


def test_what_failed_is_not_said_to_be_archived_by_waiting(far: Observatory) -> None:
    far.observe({"a.fits": b"a" * 100})
    far.do_all()
    record(far, minutes_ago=10, size_bytes=200 * GB)
    failed = far.observe({"b.fits": b"b" * 100})
    with transaction(far.engine) as session:
        session.execute(sa.update(models.RawDataPackage).filter_by(id=failed).values(state="failed", failure="it is"))
    before = told(far)
    with transaction(far.engine) as session:
        of_package = sa.update(models.RawDataFile).filter_by(raw_data_package_id=failed)
        session.execute(of_package.values(size_bytes=900 * GB))
    after = told(far)
    assert after["backlog_bytes"] > 1000 * GB
    assert abs(after["backlog_hours"] - before["backlog_hours"]) < before["backlog_hours"] / 100


@given(size=SIZES, age=AGES)
def test_a_rate_is_never_below_that_of_the_whole_window_nor_above_that_of_a_quarter_of_an_hour(
    size: int, age: timedelta
) -> None:
    rate = per_hour(size, NOW - age, now=NOW)
    assert size / 6 - 1 <= rate <= size * 4
    assert rate >= per_hour(size, None, now=NOW)


@given(of_late=SIZES, just_now=SIZES, age=AGES)
def test_a_disk_fills_at_least_as_fast_as_just_now(of_late: int, just_now: int, age: timedelta) -> None:
    rate = worse_per_hour(of_late, just_now, NOW - age, now=NOW)
    assert rate >= 2 * just_now
    assert rate >= per_hour(of_late, NOW - age, now=NOW)
