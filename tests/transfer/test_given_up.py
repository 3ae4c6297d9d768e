"""What a staging leaves that failed for good, or that nobody wants any more: nothing, and staging again later works."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer import retention
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import CopyInTheWay
from ccat_data_transfer.managers import TransferContext
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs import discarding, staging
from ccat_data_transfer.verbs.copies import announce_copy
from ccat_data_transfer.verbs.discarding import choose_given_up, discard, with_given_up
from ccat_data_transfer.verbs.readdressing import readdress
from ccat_data_transfer.verbs.retrying import retry_package
from ccat_data_transfer.verbs.staging import stage
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PhysicalCopyStatus, Status
from ccat_service.servers import RedisSettings
from tests.transfer.object_store import ObjectStore
from tests.transfer.support import Observatory, eventually

FILES = {"night/a.fits": b"a" * 300_000, "night/b.fits": b"b" * 1000}
RAMSES = "cologne/ramses"


@pytest.fixture
def package_id(observatory: Observatory) -> int:
    """An archived package, of which nothing else is left, and that is wanted where runs are."""
    package_id = observatory.observe(FILES)
    observatory.do_all()
    observatory.lose_all_but_archives(package_id)
    observatory.request_staging([package_id])
    return package_id


def damage(observatory: Observatory, package_id: int) -> Path:
    tar = observatory.directory("cologne/lta") / observatory.copies(package_id)["cologne/lta"].path
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    return tar


def cancel(observatory: Observatory) -> None:
    with transaction(observatory.engine) as session:
        jobs = session.scalars(sa.select(models.StagingJob.id)).all()
        advance(session, models.StagingJob, jobs, to=Status.CANCELLED, because="no run wants it", by="a test")


def tidy_up(observatory: Observatory) -> int:
    """What a manager and a worker do about what was given up; how many copies that was."""
    chosen: list[int] = []
    with transaction(observatory.engine) as session:
        for location_id in with_given_up(session):
            chosen += choose_given_up(session, location_id, by="manager", lease=timedelta(minutes=1))
    discard(observatory.worker, chosen)
    return len(chosen)


def check_that_nothing_is_left(observatory: Observatory, package_id: int) -> None:
    assert RAMSES not in observatory.copies(package_id)
    assert [path for path in observatory.directory(RAMSES).rglob("*") if path.name != "raw"] == []
    assert tidy_up(observatory) == 0


def check_it_is_staged_again(observatory: Observatory, package_id: int) -> None:
    observatory.request_staging([package_id])
    observatory.do_all()
    copy = observatory.copies(package_id)[RAMSES]
    directory = observatory.directory(RAMSES) / copy.path
    assert copy.status is PhysicalCopyStatus.STAGED
    assert {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()} == FILES
    assert observatory.leftovers() == []


def leave_what_is_unfinished(observatory: Observatory, package_id: int) -> Path:
    """Files of a worker that died in the middle."""
    directory = observatory.directory(RAMSES) / f"raw/{observatory.package(package_id).name}.partial-1-dead/night"
    directory.mkdir(parents=True)
    (directory / "a.fits").write_bytes(b"half")
    return directory.parent


def test_a_staging_that_failed_for_good_leaves_neither_a_row_nor_files(
    observatory: Observatory, package_id: int
) -> None:
    tar = damage(observatory, package_id)
    sound = tar.read_bytes()[:-1] + b"\0"
    observatory.do(Operation.STAGING)
    assert observatory.one(models.StagingJob).status is Status.FAILED
    leave_what_is_unfinished(observatory, package_id)

    assert tidy_up(observatory) == 1
    check_that_nothing_is_left(observatory, package_id)
    tar.write_bytes(sound)
    with transaction(observatory.engine) as session:
        retry_package(session, package_id, by="an operator")
    check_it_is_staged_again(observatory, package_id)


def test_a_staging_that_was_cancelled_between_two_tries_leaves_neither_a_row_nor_files(
    observatory: Observatory, package_id: int
) -> None:
    with transaction(observatory.engine) as session:
        find(session, LOCATION, RAMSES).free_space_reserve_bytes = 10**18
    leave_what_is_unfinished(observatory, package_id)
    observatory.do(Operation.STAGING)
    assert tidy_up(observatory) == 0
    cancel(observatory)

    assert tidy_up(observatory) == 1
    check_that_nothing_is_left(observatory, package_id)
    with transaction(observatory.engine) as session:
        find(session, LOCATION, RAMSES).free_space_reserve_bytes = 0
    check_it_is_staged_again(observatory, package_id)


@pytest.mark.parametrize(("whose", "when"), [(staging, "_unpack"), (Disk, "published_tree")])
def test_a_staging_that_is_cancelled_while_it_is_done_leaves_neither_a_row_nor_files(
    observatory: Observatory, package_id: int, monkeypatch: pytest.MonkeyPatch, whose: object, when: str
) -> None:
    def cancelled_before(*args: object, **options: object) -> object:
        cancel(observatory)
        assert tidy_up(observatory) == 0, "nothing is removed while somebody may be at it"
        found: object = go_on(*args, **options)
        return found

    go_on = getattr(whose, when)
    monkeypatch.setattr(whose, when, cancelled_before)
    [job_id] = observatory.schedule(Operation.STAGING)
    stage(replace(observatory.worker, lease=timedelta(milliseconds=300)), job_id)
    monkeypatch.undo()

    assert eventually(lambda: tidy_up(observatory)) == 1
    check_that_nothing_is_left(observatory, package_id)
    check_it_is_staged_again(observatory, package_id)


def given_up(observatory: Observatory, package_id: int) -> list[int]:
    """A copy that a worker is told to discard."""
    damage(observatory, package_id)
    observatory.do(Operation.STAGING)
    leave_what_is_unfinished(observatory, package_id)
    location_id = observatory.location_id(RAMSES)
    with transaction(observatory.engine) as session:
        return choose_given_up(session, location_id, by="manager", lease=timedelta(minutes=1))


def test_who_dies_between_the_files_and_the_row_is_followed_by_another(
    observatory: Observatory, package_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    chosen = given_up(observatory, package_id)
    mortal = replace(observatory.worker, lease=timedelta(milliseconds=1))
    with monkeypatch.context() as patched:
        patched.setattr(discarding, "_record", die)
        with pytest.raises(KeyboardInterrupt):
            discard(mortal, chosen)
    assert observatory.copies(package_id)[RAMSES].status is PhysicalCopyStatus.WRITING

    assert eventually(lambda: tidy_up(observatory)) == 1
    check_that_nothing_is_left(observatory, package_id)


def test_what_cannot_be_removed_is_tried_again_when_the_lease_on_it_is_over(
    observatory: Observatory, package_id: int
) -> None:
    chosen = given_up(observatory, package_id)
    place = observatory.directory(RAMSES)
    place.rename(place.with_name("unmounted"))
    discard(replace(observatory.worker, lease=timedelta(milliseconds=200)), chosen)
    assert tidy_up(observatory) == 0
    place.with_name("unmounted").rename(place)

    assert eventually(lambda: tidy_up(observatory)) == 1
    check_that_nothing_is_left(observatory, package_id)


def test_nobody_writes_where_something_is_being_removed_and_what_is_wanted_again_is_not_removed(
    observatory: Observatory, package_id: int
) -> None:
    chosen = given_up(observatory, package_id)
    with transaction(observatory.engine) as session:
        package = session.get_one(models.RawDataPackage, package_id)
        with pytest.raises(CopyInTheWay, match="that is unfinished, and being removed; it is waited for"):
            announce_copy(session, package, find(session, LOCATION, RAMSES), path="raw/x", by="a worker")
    observatory.request_staging([package_id])
    discard(observatory.worker, chosen)

    assert observatory.copies(package_id)[RAMSES].status is PhysicalCopyStatus.WRITING
    assert len(observatory.leftovers()) == 1


def test_a_manager_tells_the_workers_of_the_location_once(
    observatory: Observatory, package_id: int, context: TransferContext, redis_settings: RedisSettings
) -> None:
    damage(observatory, package_id)
    observatory.do(Operation.STAGING)
    lease = timedelta(minutes=1)

    assert retention.tend(observatory.engine, context.app, by="manager", lease=lease) == 1
    assert retention.tend(observatory.engine, context.app, by="manager", lease=lease) == 0
    with redis_settings.client("tests") as client:
        assert client.llen("transfer.cologne_ramses_deletion") == 1


# On the way into an archive


def test_what_goes_to_another_archive_leaves_nothing_unfinished_where_it_was_to_go(far: Observatory) -> None:
    far.add_location("us/buffer", LocationType.BUFFER)
    far.add_location("us/lta", LocationType.LONG_TERM_ARCHIVE)
    far.add_route("cologne", "us")
    package_id = far.observe(FILES)
    assert [far.do(Operation.PACKING), far.ship()] == [1, 1]
    assert [far.do(Operation.TRANSFERRING), far.do(Operation.UNPACKING)] == [1, 1]
    with transaction(far.engine) as session:
        find(session, LOCATION, "cologne/lta").free_space_reserve_bytes = 10**18
    assert far.do(Operation.ARCHIVING) == 1
    [name] = {one.name for one in far.directory("cologne/buffer").rglob("*.tar")}
    night = far.directory("cologne/lta") / "raw/2026-03-31"
    night.mkdir(parents=True, exist_ok=True)
    unfinished, whole = night / f"{name}.partial-1-dead", night / name
    unfinished.write_bytes(b"half")
    whole.write_bytes(b"what somebody put there")
    assert tidy_up(far) == 0
    with transaction(far.engine) as session:
        find(session, LOCATION, "cologne/lta").active = False
        assert readdress(session, by="manager") == 1
    assert tidy_up(far) == 1
    assert [one.name for one in night.iterdir()] == [name]
    assert "cologne/lta" not in far.copies(package_id)
    far.do_all()
    assert far.copies(package_id)["us/lta"].status is PhysicalCopyStatus.PRESENT
    assert tidy_up(far) == 0


def test_what_came_to_a_buffer_that_is_out_of_use_is_removed_there(far: Observatory) -> None:
    package_id = far.observe(FILES)
    assert [far.do(Operation.PACKING), far.ship()] == [1, 1]
    with transaction(far.engine) as session:
        find(session, LOCATION, "cologne/buffer").free_space_reserve_bytes = 10**18
    assert far.do(Operation.TRANSFERRING) == 1
    parcel = far.directory("cologne/buffer") / far.one(models.PhysicalCopy, type="data_transfer_package").path
    parcel.mkdir(parents=True)
    (parcel / "half.tar").write_bytes(b"half")
    far.add_location("cologne/second", LocationType.BUFFER)
    with transaction(far.engine) as session:
        buffer = find(session, LOCATION, "cologne/buffer")
        buffer.active, buffer.free_space_reserve_bytes = False, 0
        session.execute(sa.update(models.DataTransfer).values(trouble_count=1))
        readdress(session, by="manager")
    assert tidy_up(far) == 1
    assert not parcel.exists()
    far.do_all()
    assert far.copies(package_id)["cologne/lta"].status is PhysicalCopyStatus.PRESENT


def test_what_came_damaged_to_a_buffer_that_is_out_of_use_by_now_is_removed_there(far: Observatory) -> None:
    package_id = far.observe(FILES)
    assert [far.do(Operation.PACKING), far.ship(), far.do(Operation.TRANSFERRING)] == [1, 1, 1]
    came = far.one(models.PhysicalCopy, type="data_transfer_package")
    parcel = far.directory("cologne/buffer") / came.path
    [tar] = parcel.iterdir()
    tar.chmod(0o644)
    tar.write_bytes(b"damaged")
    assert far.do(Operation.UNPACKING) == 1
    assert far.one(models.PhysicalCopy, id=came.id).status is PhysicalCopyStatus.CORRUPT
    assert tidy_up(far) == 0, "it is sent again, and goes on with what is there"
    far.add_location("cologne/second", LocationType.BUFFER)
    with transaction(far.engine) as session:
        find(session, LOCATION, "cologne/buffer").active = False
        readdress(session, by="manager")
    assert tidy_up(far) == 1
    assert far.one(models.PhysicalCopy, id=came.id).status is PhysicalCopyStatus.DELETED
    assert not parcel.exists()
    assert tidy_up(far) == 0
    far.do_all()
    assert far.copies(package_id)["cologne/lta"].status is PhysicalCopyStatus.PRESENT


@pytest.mark.usefixtures("s3_archive")
def test_an_upload_that_nobody_is_to_finish_is_aborted(observatory: Observatory, object_store: ObjectStore) -> None:
    package_id = observatory.observe(FILES)
    observatory.do(Operation.PACKING)
    key = f"fyst/raw/2026-03-31/{observatory.package(package_id).name}.tar"
    with transaction(observatory.engine) as session:
        [way] = session.scalars(sa.select(models.LongTermArchiveTransfer))
        package = session.get_one(models.RawDataPackage, package_id)
        archive = session.get_one(models.DataLocation, way.destination_id)
        announce_copy(session, package, archive, path=key.removeprefix("fyst/"), by="a worker")
    object_store.begin_upload(key, b"half")
    assert tidy_up(observatory) == 0
    with transaction(observatory.engine) as session:
        gone = Status.CANCELLED
        advance(session, models.LongTermArchiveTransfer, [way.id], to=gone, because="a test", by="a test")
    assert tidy_up(observatory) == 1
    assert object_store.unfinished() == []


def test_who_gave_up_an_archive_once_never_writes_over_what_somebody_else_has_there(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    observatory.do(Operation.PACKING)
    tar = observatory.directory("ccat/buffer") / observatory.copies(package_id)["ccat/buffer"].path
    there = observatory.directory("cologne/lta") / tar.relative_to(observatory.directory("ccat/buffer"))
    there.parent.mkdir(parents=True)
    there.write_bytes(b"of somebody else")
    observatory.do(Operation.ARCHIVING)
    assert "is something else, and is not known here" in (observatory.package(package_id).failure or "")
    with transaction(observatory.engine) as session:
        retry_package(session, package_id, by="an operator")
        [way] = session.scalars(sa.select(models.LongTermArchiveTransfer.id))
        gone = Status.CANCELLED
        advance(session, models.LongTermArchiveTransfer, [way], to=gone, because="a test", by="a test")
    assert tidy_up(observatory) == 1
    with transaction(observatory.engine) as session:
        ways = {
            "origin_id": observatory.location_id("ccat/buffer"),
            "destination_id": observatory.location_id("cologne/lta"),
        }
        session.add(models.LongTermArchiveTransfer(raw_data_package_id=package_id, **ways))
    observatory.do(Operation.ARCHIVING)
    assert "is something else, and is not known here" in (observatory.package(package_id).failure or "")
    assert there.read_bytes() == b"of somebody else"


def test_nothing_is_called_removed_at_an_archive_whose_disk_is_away(far: Observatory) -> None:
    package_id = far.observe(FILES)
    with transaction(far.engine) as session:
        package, archive = session.get_one(models.RawDataPackage, package_id), find(session, LOCATION, "cologne/lta")
        announce_copy(session, package, archive, path="raw/night/a.tar", by="a worker")
        ways = session.scalars(sa.select(models.LongTermArchiveTransfer.id)).all()
        advance(session, models.LongTermArchiveTransfer, ways, to=Status.CANCELLED, because="a test", by="a test")
    assert tidy_up(far) == 1
    assert far.copies(package_id)["cologne/lta"].status is PhysicalCopyStatus.WRITING
