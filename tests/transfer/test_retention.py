"""Copies go when they may, as files and as rows; what anybody needs, or is the last, stays."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from time import time
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.managers import TransferContext, due, tick
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_data_transfer.verbs.retaining import with_deletions
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.retention import AWAY_AFTER, Group, Kind, Obstacle, Term
from ccat_ops_db.queries.retention import forecast, obstacles, places
from ccat_ops_db.session import transaction
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import LocationType, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.retention import (
    MarksCrossed,
    forget_retention,
    pause_retention,
    resume_retention,
    set_data_class,
    set_retention,
)
from ccat_service.servers import RedisSettings
from ccat_service.spaces import NothingThere, measure_space
from tests.transfer.support import Observatory, eventually, say
from tests.transfer.test_managers import messages

SOURCE, BUFFER, STAGED, ARCHIVE = "ccat/chai_raw_data", "ccat/buffer", "cologne/ramses", "cologne/lta"
LONG_AGO = datetime.now(UTC) - timedelta(days=8)


def archived(observatory: Observatory, name: str = "a", *, size: int = 1000) -> int:
    """A package that went all the way."""
    package_id = observatory.observe(
        {f"2026-04-01/{name}-1.fits": b"1" * size, f"2026-04-01/{name}-2.fits": b"2" * size}
    )
    observatory.do_all()
    return package_id


def staged(observatory: Observatory, name: str = "a") -> int:
    package_id = archived(observatory, name)
    observatory.request_staging([package_id])
    observatory.do_all()
    return package_id


def change(observatory: Observatory, noun: type[models.Base], where: Mapping[str, Any], **values: Any) -> None:
    with transaction(observatory.engine) as session:
        table = table_of(noun)
        rows = sa.and_(*(table.c[column] == value for column, value in where.items()))
        session.execute(sa.update(table).where(rows).values(**values))


def see(observatory: Observatory, location: str, *, free: int, total: int = 1_000_000) -> None:
    """What a worker sees of a disk just now."""
    now = datetime.now(UTC)
    values = {"free_bytes": free, "total_bytes": total, "space_checked_at": now}
    change(observatory, models.DataLocation, {"id": observatory.location_id(location)}, **values)


def files(observatory: Observatory, location: str) -> list[str]:
    top = observatory.directory(location)
    return [str(path.relative_to(top)) for path in observatory.files(location)]


def statuses(observatory: Observatory, location: str) -> list[PhysicalCopyStatus]:
    with transaction(observatory.engine) as session:
        found = sa.select(models.PhysicalCopy).filter_by(data_location_id=observatory.location_id(location))
        return [one.status for one in session.scalars(found.order_by(models.PhysicalCopy.id))]


def told(observatory: Observatory, location: str) -> list[Group]:
    with transaction(observatory.engine) as session:
        [found] = forecast(session, places(session, [observatory.location_id(location)]), now=datetime.now(UTC))
    return list(found.groups)


# What an instrument wrote


def test_raw_files_go_from_their_source_once_their_package_is_verified_in_an_archive(observatory: Observatory) -> None:
    observatory.keep(SOURCE, days=0)
    waiting = observatory.observe({"2026-04-01/w.fits": b"waiting"})
    archived_one = [one.obstacle for one in told(observatory, SOURCE)]
    assert archived_one == [Obstacle.NOT_ARCHIVED]
    assert observatory.make_room(SOURCE) == 0
    observatory.do_all()
    assert observatory.package(waiting).archived_at
    assert observatory.make_room(SOURCE) == 1
    assert (files(observatory, SOURCE), statuses(observatory, SOURCE)) == ([], [PhysicalCopyStatus.DELETED])
    observatory.check_that_rows_tell_what_is_there()
    with transaction(observatory.engine) as session:
        last = session.scalars(
            sa.select(models.StatusChange).filter_by(noun="physical_copy", to_status="deletion_possible")
        ).one()
        assert last.because == "its package is archived and verified, and its time is over"


def test_of_a_source_nothing_goes_before_a_person_has_said_for_how_long_it_is_kept(observatory: Observatory) -> None:
    archived(observatory)
    see(observatory, SOURCE, free=1)
    assert observatory.make_room(SOURCE) == 0
    assert [(one.term, one.copies) for one in told(observatory, SOURCE)] == [(Term.NEVER, 2)]
    with transaction(observatory.engine) as session:
        set_retention(session, SOURCE, days=None, high=0.9, low=None, by="Ann")
    assert observatory.make_room(SOURCE) == 2


def test_a_class_of_data_that_wants_two_archive_copies_keeps_the_source_while_there_is_one(
    observatory: Observatory,
) -> None:
    observatory.keep(SOURCE, days=0)
    with transaction(observatory.engine) as session:
        set_data_class(session, "raw", copies=2, instruments=[])
    archived(observatory)
    assert observatory.make_room(SOURCE) == 0
    assert [(one.obstacle, one.copies) for one in told(observatory, SOURCE)] == [(Obstacle.TOO_FEW_COPIES, 2)]


def test_an_archive_copy_that_was_never_read_back_does_not_count(observatory: Observatory) -> None:
    observatory.keep(SOURCE, days=0)
    package_id = archived(observatory)
    copy = observatory.copies(package_id)[ARCHIVE]
    change(observatory, models.PhysicalCopy, {"id": copy.id}, verified_at=None)
    assert observatory.make_room(SOURCE) == 0
    change(observatory, models.PhysicalCopy, {"id": copy.id}, verified_at=LONG_AGO, checksum=f"sha256:{'0' * 64}")
    assert observatory.make_room(SOURCE) == 0


@pytest.mark.parametrize("wrong", [timedelta(hours=3), timedelta(hours=-3)], ids=["ahead", "behind"])
def test_when_a_disk_was_seen_is_said_by_the_clock_of_the_database(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch, wrong: timedelta
) -> None:
    """That of a host may be wrong: an archive whose disk is away would be believed for longer, or never."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Wrong":
            return cls.fromtimestamp(time() + wrong.total_seconds(), tz)

    monkeypatch.setattr("ccat_service.spaces.datetime", Wrong, raising=False)
    measure_space(observatory.engine, observatory.location_id(ARCHIVE), observatory.directory(ARCHIVE))
    with transaction(observatory.engine) as session:
        location = find(session, LOCATION, ARCHIVE)
        age = session.scalars(sa.select(sa.func.clock_timestamp() - location.space_checked_at)).one()
    assert timedelta() < age < timedelta(hours=1)


def test_nothing_of_raw_data_goes_while_the_disk_of_the_only_archive_that_has_it_is_away(
    observatory: Observatory,
) -> None:
    staged(observatory)
    disk, lta, here = observatory.directory(ARCHIVE), observatory.location_id(ARCHIVE), (SOURCE, BUFFER, STAGED)
    measure_space(observatory.engine, lta, disk)
    disk.rename(disk.with_name("elsewhere"))
    disk.mkdir()
    with pytest.raises(NothingThere, match="nothing is mounted"):
        measure_space(observatory.engine, lta, disk)
    change(observatory, models.DataLocation, {"id": lta}, space_checked_at=datetime.now(UTC) - 2 * AWAY_AFTER)
    for location in here:
        observatory.keep(location, days=0)
        assert observatory.make_room(location) == 0
        assert {one.obstacle for one in told(observatory, location)} == {Obstacle.ARCHIVES_AWAY}
    disk.rmdir()
    disk.with_name("elsewhere").rename(disk)
    measure_space(observatory.engine, lta, disk)
    assert [observatory.make_room(location) for location in here] == [2, 1, 1]


def test_a_path_that_another_file_was_written_to_meanwhile_is_not_removed(observatory: Observatory) -> None:
    observatory.keep(SOURCE, days=0)
    archived(observatory)
    again = observatory.start_scan()
    observatory.write(again, {"2026-04-01/a-1.fits": b"the same name again"})
    assert observatory.make_room(SOURCE) == 1
    assert files(observatory, SOURCE) == ["2026-04-01/a-1.fits"]
    assert {one.obstacle for one in told(observatory, SOURCE)} == {Obstacle.SHARED_PATH, Obstacle.UNPACKED}


@pytest.mark.parametrize("written", [b"1" * 999 + b"2", b"longer" * 1000])
def test_what_an_instrument_wrote_anew_under_a_path_that_is_archived_is_kept_until_it_is_moved_away(
    observatory: Observatory, written: bytes
) -> None:
    """Nobody has these bytes but the source, and nobody has told of them."""
    archived(observatory)
    observatory.keep(SOURCE, days=0)
    anew = observatory.directory(SOURCE) / "2026-04-01/a-1.fits"
    old = anew.stat()
    anew.write_bytes(written)
    os.utime(anew, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert observatory.make_room(SOURCE) == 2
    assert anew.read_bytes() == written
    copy = observatory.one(models.PhysicalCopy, path="2026-04-01/a-1.fits")
    assert copy.status is PhysicalCopyStatus.DELETION_FAILED
    assert copy.failure == (
        f"{anew} at location {SOURCE} is not what was registered and archived, and is kept: move it away, and register "
        "it under another name if it counts."
    )
    anew.rename(anew.with_name("a-3.fits"))
    assert observatory.make_room(SOURCE) == 1
    assert files(observatory, SOURCE) == ["2026-04-01/a-3.fits"]
    assert set(statuses(observatory, SOURCE)) == {PhysicalCopyStatus.DELETED}


def test_a_raw_file_that_was_only_touched_or_copied_back_goes(observatory: Observatory) -> None:
    archived(observatory)
    observatory.keep(SOURCE, days=0)
    touched, copied = (observatory.directory(SOURCE) / f"2026-04-01/a-{number}.fits" for number in (1, 2))
    touched.chmod(0o444)
    data = copied.read_bytes()
    copied.unlink()
    copied.write_bytes(data)
    assert observatory.make_room(SOURCE) == 2
    assert files(observatory, SOURCE) == []


# What an archive has too


def test_a_tar_in_a_buffer_goes_a_week_after_it_was_archived_unless_a_transfer_reads_it(
    observatory: Observatory,
) -> None:
    package_id = archived(observatory)
    assert observatory.make_room(BUFFER) == 0
    change(observatory, models.RawDataPackage, {"id": package_id}, archived_at=LONG_AGO)
    place = {"origin_id": observatory.location_id(BUFFER), "destination_id": observatory.location_id(ARCHIVE)}
    with transaction(observatory.engine) as session:
        second = models.LongTermArchiveTransfer(raw_data_package_id=package_id, status=Status.PENDING, **place)
        session.add(second)
    assert observatory.make_room(BUFFER) == 0
    assert [one.obstacle for one in told(observatory, BUFFER)] == [Obstacle.BEING_READ]
    with transaction(observatory.engine) as session:
        advance(
            session, models.LongTermArchiveTransfer, [second.id], to=Status.CANCELLED, because="a test", by="a test"
        )
    assert observatory.make_room(BUFFER) == 1
    assert files(observatory, BUFFER) == []
    observatory.check_that_rows_tell_what_is_there()


def test_a_staged_package_goes_a_week_after_its_last_use_and_is_staged_anew_when_it_is_wanted(
    observatory: Observatory,
) -> None:
    package_id = staged(observatory)
    assert observatory.make_room(STAGED) == 0
    copy = observatory.copies(package_id)[STAGED]
    change(observatory, models.PhysicalCopy, {"id": copy.id}, used_at=LONG_AGO)
    assert observatory.make_room(STAGED) == 1
    assert not (observatory.directory(STAGED) / copy.path).exists()
    observatory.request_staging([package_id])
    observatory.do_all()
    assert observatory.copies(package_id)[STAGED].id != copy.id
    observatory.check_that_rows_tell_what_is_there()


def test_what_is_to_go_and_asked_for_again_stays_and_is_not_staged_anew(observatory: Observatory) -> None:
    package_id = staged(observatory)
    observatory.keep(STAGED, days=0)
    observatory.mark(STAGED)
    assert observatory.request_staging([package_id]) == []
    assert observatory.copies(package_id)[STAGED].status is PhysicalCopyStatus.STAGED
    observatory.mark(STAGED)
    scheduled = observatory.schedule_deletions(STAGED)
    assert observatory.request_staging([package_id]) == []
    delete_copies(observatory.worker, scheduled)
    assert observatory.copies(package_id)[STAGED].status is PhysicalCopyStatus.STAGED
    observatory.check_that_rows_tell_what_is_there()


def test_a_worker_that_is_told_to_remove_something_looks_once_more_whether_anybody_needs_it(
    observatory: Observatory,
) -> None:
    package_id = staged(observatory)
    observatory.keep(STAGED, days=0)
    observatory.mark(STAGED)
    scheduled = observatory.schedule_deletions(STAGED)
    with transaction(observatory.engine) as session:
        where = observatory.location_id(STAGED)
        session.add(models.StagingJob(raw_data_package_id=package_id, data_location_id=where))
    delete_copies(observatory.worker, scheduled)
    assert observatory.copies(package_id)[STAGED].status is PhysicalCopyStatus.STAGED
    with transaction(observatory.engine) as session:
        newest = sa.select(models.StatusChange).filter_by(noun="physical_copy").order_by(models.StatusChange.id.desc())
        assert session.scalars(newest).first().because == "a staging job asks for it"  # type: ignore[union-attr]  # there is one


def test_what_is_asked_for_while_it_is_removed_is_waited_for_and_staged_anew(observatory: Observatory) -> None:
    package_id = staged(observatory)
    copy = observatory.copies(package_id)[STAGED]
    with transaction(observatory.engine) as session:
        for to in ("deletion_possible", "deletion_scheduled", "deletion_in_progress"):
            advance(session, models.PhysicalCopy, [copy.id], to=PhysicalCopyStatus(to), because="a test", by="a test")
    [job] = observatory.request_staging([package_id])
    observatory.do(Operation.STAGING)
    assert "is deletion_in_progress; it is waited for" in (observatory.one(models.StagingJob, id=job).failure or "")
    assert observatory.recover() == 1
    assert observatory.make_room(STAGED) == 1
    observatory.do_all()
    assert observatory.one(models.StagingJob, id=job).status is Status.COMPLETED
    observatory.check_that_rows_tell_what_is_there()


def test_a_staged_directory_that_was_exchanged_goes_all_the_same(observatory: Observatory) -> None:
    package_id = staged(observatory)
    observatory.keep(STAGED, days=0)
    directory = observatory.directory(STAGED) / observatory.copies(package_id)[STAGED].path
    directory.rename(directory.with_name("another"))
    directory.mkdir()
    assert observatory.make_room(STAGED) == 1
    assert not directory.exists()
    assert statuses(observatory, STAGED) == [PhysicalCopyStatus.DELETED]


# What cannot be removed


def test_a_disk_that_is_away_is_not_one_where_everything_is_gone(observatory: Observatory) -> None:
    archived(observatory)
    observatory.keep(SOURCE, days=0)
    disk = observatory.directory(SOURCE)
    disk.rename(disk.with_name("elsewhere"))
    disk.mkdir()
    assert observatory.make_room(SOURCE) == 2
    assert set(statuses(observatory, SOURCE)) == {PhysicalCopyStatus.DELETION_FAILED}
    with transaction(observatory.engine) as session:
        [going] = forecast(session, places(session, [observatory.location_id(SOURCE)]), now=datetime.now(UTC))[0].going
    assert (going.copies, going.bytes, "nothing is mounted" in (going.failure or "")) == (2, 2000, True)
    disk.rmdir()
    disk.with_name("elsewhere").rename(disk)
    assert observatory.make_room(SOURCE) == 2
    assert (files(observatory, SOURCE), set(statuses(observatory, SOURCE))) == ([], {PhysicalCopyStatus.DELETED})
    assert observatory.one(models.PhysicalCopy, path="2026-04-01/a-1.fits").failure is None


def test_what_is_gone_already_is_deleted(observatory: Observatory) -> None:
    archived(observatory)
    observatory.keep(SOURCE, days=0)
    (observatory.directory(SOURCE) / "2026-04-01/a-1.fits").unlink()
    assert observatory.make_room(SOURCE) == 2
    assert set(statuses(observatory, SOURCE)) == {PhysicalCopyStatus.DELETED}


def test_the_removal_of_a_source_is_not_gone_on_with_when_the_archive_copy_is_lost_meanwhile(
    observatory: Observatory,
) -> None:
    package_id = archived(observatory)
    observatory.keep(SOURCE, days=0)
    observatory.mark(SOURCE)
    [first, _] = scheduled = observatory.schedule_deletions(SOURCE)
    to = PhysicalCopyStatus.DELETION_IN_PROGRESS
    with transaction(observatory.engine) as session:
        advance(session, models.PhysicalCopy, [first], to=to, because="of a worker that died", by="a worker")
        lost = [observatory.copies(package_id)[ARCHIVE].id]
        advance(session, models.PhysicalCopy, lost, to=PhysicalCopyStatus.CORRUPT, because="it rots", by="a scrubber")
    change(observatory, models.PhysicalCopy, {"id": first}, lease_until=None)
    assert observatory.recover() == 1
    delete_copies(observatory.worker, scheduled)
    assert len(files(observatory, SOURCE)) == 2
    assert statuses(observatory, SOURCE) == [PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.PRESENT]
    assert observatory.one(models.PhysicalCopy, id=first).failure is None


# Disks that fill


def test_a_full_disk_is_made_room_on_down_to_its_low_mark_the_oldest_and_least_needed_first(
    observatory: Observatory,
) -> None:
    packages = [staged(observatory, f"n{number}") for number in range(4)]
    copies = [observatory.copies(one)[STAGED] for one in packages]
    for age, copy in zip((3, 1, 2, 4), copies, strict=True):
        used = datetime.now(UTC) - timedelta(days=age)
        change(observatory, models.PhysicalCopy, {"id": copy.id}, used_at=used, size_bytes=40_000)
    see(observatory, STAGED, free=101_000)
    assert observatory.make_room(STAGED) == 0
    see(observatory, STAGED, free=99_000, total=1_000_000)
    with transaction(observatory.engine) as session:
        set_retention(session, STAGED, days=None, high=0.9, low=0.85, by="Ann")
    with transaction(observatory.engine) as session:
        [found] = forecast(session, places(session, [observatory.location_id(STAGED)]), now=datetime.now(UTC))
    assert (found.room_bytes, [(one.kind, one.copies) for one in found.for_room]) == (51_000, [(Kind.STAGED, 2)])
    assert observatory.make_room(STAGED) == 2
    left = [observatory.one(models.PhysicalCopy, id=copy.id).status for copy in copies]
    gone = PhysicalCopyStatus.DELETED
    assert left == [gone, PhysicalCopyStatus.STAGED, PhysicalCopyStatus.STAGED, gone]
    assert observatory.make_room(STAGED) == 0, "nobody has looked at the disk since"
    see(observatory, STAGED, free=99_000)
    assert observatory.make_room(STAGED) == 2


def test_a_look_that_is_long_ago_makes_no_room(observatory: Observatory) -> None:
    staged(observatory)
    see(observatory, STAGED, free=1)
    change(observatory, models.DataLocation, {"id": observatory.location_id(STAGED)}, space_checked_at=LONG_AGO)
    assert observatory.make_room(STAGED) == 0


# What people say


def test_what_is_paused_stays_and_goes_when_it_is_resumed(observatory: Observatory) -> None:
    staged(observatory)
    observatory.keep(STAGED, days=0)
    observatory.mark(STAGED)
    with transaction(observatory.engine) as session:
        assert pause_retention(session, STAGED, because="the disk is copied", by="Ann") == 1
    assert statuses(observatory, STAGED) == [PhysicalCopyStatus.STAGED]
    with transaction(observatory.engine) as session:
        assert resume_retention(session, None, by="Ann") == 1
    assert observatory.make_room(STAGED) == 1


@pytest.mark.parametrize("what", [["--location", STAGED], ["--all"]])
def test_what_workers_were_told_to_remove_stays_once_its_location_is_paused(
    observatory: Observatory, what: list[str]
) -> None:
    staged(observatory)
    observatory.keep(STAGED, days=0)
    observatory.mark(STAGED)
    scheduled = observatory.schedule_deletions(STAGED, lease=timedelta())
    say(observatory, "pause", *what, "--because", "the disk is looked into")
    delete_copies(observatory.worker, scheduled)
    assert statuses(observatory, STAGED) == [PhysicalCopyStatus.DELETION_SCHEDULED]
    assert len(files(observatory, STAGED)) == 2
    with transaction(observatory.engine) as session:
        [place] = places(session, [observatory.location_id(STAGED)])
        assert (place.paused, with_deletions(session)) == ("the disk is looked into", [])
    say(observatory, "resume", *what)
    assert observatory.make_room(STAGED) == 1
    assert statuses(observatory, STAGED) == [PhysicalCopyStatus.DELETED]


def test_an_archive_keeps_everything_that_nobody_spoke_of_and_marks_that_cross_are_refused(
    observatory: Observatory,
) -> None:
    with transaction(observatory.engine) as session, pytest.raises(MarksCrossed, match="Nothing was changed"):
        set_retention(session, BUFFER, days=None, high=0.5, low=0.6, by="Ann")
    with transaction(observatory.engine) as session:
        forget_retention(session, BUFFER, by="Ann")
        assert ARCHIVE not in {one.name for one in places(session)}


# The manager


def test_the_manager_sends_what_is_to_go_to_the_workers_of_its_location_and_again_when_the_message_is_lost(
    observatory: Observatory, context: TransferContext, redis_settings: RedisSettings
) -> None:
    archived(observatory)
    tick(context)
    observatory.keep(SOURCE, days=0)
    assert tick(context) == 4, "two are marked, and two scheduled"
    assert messages(redis_settings) == {"transfer.ccat_chai_raw_data_deletion": 1}
    moment = due(context)
    assert moment is not None
    with redis_settings.client("tests") as client:
        client.flushdb()
    eventually(lambda: tick(context))
    assert messages(redis_settings) == {"transfer.ccat_chai_raw_data_deletion": 1}


def test_removing_leaves_nothing_of_what_others_left_half_removed(observatory: Observatory) -> None:
    package_id = staged(observatory)
    observatory.keep(STAGED, days=0)
    directory = observatory.directory(STAGED) / observatory.copies(package_id)[STAGED].path
    directory.rename(directory.with_name(f"{directory.name}.removed-1-dead"))
    assert observatory.make_room(STAGED) == 1
    observatory.check_that_rows_tell_what_is_there()


def test_a_copy_stays_where_a_later_trip_of_its_package_leads(far: Observatory) -> None:
    lta = LocationType.LONG_TERM_ARCHIVE
    for name, kind in (("us/buffer", LocationType.BUFFER), ("us/lta", lta), ("us/tapes", lta)):
        far.add_location(name, kind)
    far.add_route("cologne", "us")
    far.add_route("ccat", "us")
    change(far, models.DataClass, {"name": "raw"}, min_verified_archive_copies=2)
    package_id = archived(far)
    there = far.copies(package_id)["us/buffer"].id
    with transaction(far.engine) as session:
        assert obstacles(session, [there]) == {}
        row = {"raw_data_package_id": package_id, "destination_id": far.location_id("us/tapes")}
        session.add(models.LongTermArchiveTransfer(origin_id=far.location_id("cologne/buffer"), **row))
    assert far.ship() == 1
    with transaction(far.engine) as session:
        assert obstacles(session, [there]) == {there: Obstacle.BEING_READ}
