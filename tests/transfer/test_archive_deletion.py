"""What archives have too much of goes when a person said so, from disks and from object stores; the last copy stays."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.managers import TransferContext, tick
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_data_transfer.verbs.scrubbing import scrub
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.retention import Obstacle
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.queries.retention import forecast, places
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, PhysicalCopyStatus, ProductState
from ccat_ops_db.verbs.pausing import pause
from ccat_ops_db.verbs.retention import (
    LevelUnknown,
    forget_retention,
    retry_deletions,
    set_data_class,
    set_retention,
)
from ccat_service.servers import RedisSettings
from tests.transfer.object_store import BUCKET, ObjectStore, Road
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory, say
from tests.transfer.test_managers import messages
from tests.transfer.test_products import archived
from tests.transfer.test_retention import see
from tests.transfer.test_scrubbing import TREE

FILES = {"a.fits": b"a" * 3000, "b.txt": b"cloudy"}
DISK, STORE = "cologne/lta", "cologne/s3"

pytestmark = pytest.mark.usefixtures("s3_archive")


@pytest.fixture
def reductions(observatory: Observatory, s3_archive: Road) -> Iterator[Reductions]:
    del s3_archive  # it comes first, so that it ends last
    made = Reductions(observatory)
    yield made
    made.end()


def want(observatory: Observatory, copies: int) -> None:
    with transaction(observatory.engine) as session:
        set_data_class(session, "raw", copies=copies, instruments=[])


def twice(observatory: Observatory) -> int:
    """A package with a copy on disk and another in the store, one more than it needs."""
    want(observatory, 2)
    package_id = observatory.observe(FILES)
    observatory.do_all()
    assert observatory.copies(package_id).keys() >= {DISK, STORE}
    want(observatory, 1)
    return package_id


def status(observatory: Observatory, location: str) -> PhysicalCopyStatus:
    return observatory.one(models.PhysicalCopy, data_location_id=observatory.location_id(location)).status


def failure(observatory: Observatory) -> str:
    return observatory.one(models.PhysicalCopy, data_location_id=observatory.location_id(STORE)).failure or ""


def hindered(observatory: Observatory, location: str) -> list[Obstacle | None]:
    with transaction(observatory.engine) as session:
        [found] = forecast(session, places(session, [observatory.location_id(location)]), now=datetime.now(UTC))
    return [one.obstacle for one in found.groups]


@pytest.mark.parametrize(("where", "other"), [(DISK, STORE), (STORE, DISK)])
def test_a_copy_that_others_have_enough_of_goes_with_its_sidecar_and_no_other(
    observatory: Observatory, object_store: ObjectStore, where: str, other: str
) -> None:
    package_id = twice(observatory)
    assert observatory.make_room(where) == 0, "nobody has said for how long an archive keeps it"
    observatory.keep(where, days=0)
    assert observatory.make_room(where) == 1
    assert status(observatory, where) is PhysicalCopyStatus.DELETED
    files = observatory.files(DISK)
    assert (len(object_store.list_keys()), len(files)) == ((2, 0) if where == DISK else (0, 2))
    assert observatory.make_room(where) == 0
    observatory.keep(other, days=0)
    assert observatory.make_room(other) == 0
    assert hindered(observatory, other) == [Obstacle.TOO_FEW_COPIES]

    observatory.request_staging([package_id])
    observatory.do_all()
    assert observatory.copies(package_id)["cologne/ramses"].status is PhysicalCopyStatus.STAGED


def test_of_two_archives_that_would_each_rely_on_the_other_none_or_one_deletes(observatory: Observatory) -> None:
    package_id = twice(observatory)
    for location in (DISK, STORE):
        observatory.keep(location, days=0)
    both = [observatory.copies(package_id)[location].id for location in (DISK, STORE)]
    with transaction(observatory.engine) as session:
        for to in (PhysicalCopyStatus.DELETION_POSSIBLE, PhysicalCopyStatus.DELETION_SCHEDULED):
            advance(session, models.PhysicalCopy, both, to=to, because="each looked alone", by="two managers")
    delete_copies(observatory.worker, both)
    kept = [one for one in (DISK, STORE) if status(observatory, one) is PhysicalCopyStatus.PRESENT]
    assert kept == [DISK, STORE]
    assert observatory.make_room(DISK) + observatory.make_room(STORE) == 1


def test_what_its_class_of_data_needs_and_what_is_being_read_stays(observatory: Observatory) -> None:
    package_id = twice(observatory)
    observatory.keep(STORE, days=0)
    want(observatory, 2)
    assert (observatory.make_room(STORE), hindered(observatory, STORE)) == (0, [Obstacle.TOO_FEW_COPIES])
    want(observatory, 1)
    observatory.request_staging([package_id])
    assert (observatory.make_room(STORE), hindered(observatory, STORE)) == (0, [Obstacle.BEING_READ])


def in_doubt(observatory: Observatory, how: str) -> None:
    """Have something in the way of reading the copy on disk."""
    where, long_ago = observatory.location_id(DISK), datetime.now(UTC) - timedelta(days=211)
    with transaction(observatory.engine) as session:
        disk = session.get_one(models.DataLocation, where)
        match how:
            case "read long ago":
                verified = sa.update(models.PhysicalCopy).where(models.PhysicalCopy.data_location_id == where)
                session.execute(verified.values(verified_at=long_ago))
            case "away":
                disk.space_checked_at, disk.free_bytes, disk.total_bytes = long_ago, 1, 1
            case "out of use":
                disk.active = False
            case "paused":
                pause(session, pipeline=None, location=DISK, because="its disks are exchanged", by="Ann")
            case "troubled":
                disk.trouble, disk.space_checked_at = "has no free inodes on lta1", datetime.now(UTC)


@pytest.mark.parametrize("how", ["read long ago", "away", "out of use", "paused", "troubled"])
def test_no_archive_relies_on_a_copy_in_another_that_may_not_be_readable(observatory: Observatory, how: str) -> None:
    package_id = twice(observatory)
    observatory.keep(STORE, days=0)
    in_doubt(observatory, how)
    assert (observatory.make_room(STORE), hindered(observatory, STORE)) == (0, [Obstacle.NOT_READ_LATELY])
    assert status(observatory, STORE) is PhysicalCopyStatus.PRESENT
    if how == "read long ago":
        scrub(observatory.worker, [observatory.copies(package_id)[DISK].id])
        assert observatory.make_room(STORE) == 1


def test_a_copy_that_was_to_go_stays_where_the_archive_that_it_relies_on_goes_away_meanwhile(
    observatory: Observatory,
) -> None:
    twice(observatory)
    observatory.keep(STORE, days=0)
    observatory.mark(STORE)
    scheduled = observatory.schedule_deletions(STORE)
    in_doubt(observatory, "away")
    delete_copies(observatory.worker, scheduled)
    assert (len(scheduled), status(observatory, STORE)) == (1, PhysicalCopyStatus.PRESENT)


def test_an_archive_that_nothing_is_put_into_any_more_lets_go_of_what_others_have_read(
    observatory: Observatory,
) -> None:
    twice(observatory)
    in_doubt(observatory, "out of use")
    observatory.keep(DISK, days=0)
    assert observatory.make_room(DISK) == 1
    assert status(observatory, STORE) is PhysicalCopyStatus.PRESENT


def test_what_was_to_go_stays_when_the_archive_keeps_everything_again(observatory: Observatory) -> None:
    twice(observatory)
    observatory.keep(STORE, days=0)
    assert observatory.mark(STORE) == 1
    with transaction(observatory.engine) as session:
        forget_retention(session, STORE, by="Ann")
        assert STORE not in {one.name for one in places(session)}
    assert status(observatory, STORE) is PhysicalCopyStatus.PRESENT


def test_a_full_disk_of_an_archive_lets_surplus_go_before_its_time_and_nothing_else(observatory: Observatory) -> None:
    twice(observatory)
    see(observatory, DISK, free=1)
    assert observatory.make_room(DISK) == 0
    with transaction(observatory.engine) as session:
        set_retention(session, DISK, days=None, high=0.9, low=None, by="Ann")
        set_data_class(session, "raw", copies=2, instruments=[])
    assert observatory.make_room(DISK) == 0
    want(observatory, 1)
    assert observatory.make_room(DISK) == 1
    assert status(observatory, STORE) is PhysicalCopyStatus.PRESENT


def test_the_manager_tells_the_workers_of_the_store(
    observatory: Observatory, context: TransferContext, redis_settings: RedisSettings
) -> None:
    twice(observatory)
    tick(context)
    observatory.keep(STORE, days=0)
    assert tick(context) == 2, "one is marked, and scheduled"
    assert messages(redis_settings) == {"transfer.cologne_s3_deletion": 1}


# What cannot be removed


def test_a_store_that_goes_away_in_the_middle_is_tried_again_and_what_is_gone_is_gone(
    observatory: Observatory, object_store: ObjectStore, s3_archive: Road
) -> None:
    twice(observatory)
    observatory.keep(STORE, days=0)
    s3_archive.lose_answer_to = rb"DELETE /archive/fyst/raw/\S+\.tar "
    assert observatory.make_room(STORE) == 1
    assert status(observatory, STORE) is PhysicalCopyStatus.DELETION_FAILED
    assert failure(observatory).startswith(f"Location cologne/s3 (s3://{BUCKET}/fyst) fails: ")
    assert [key[-5:] for key in object_store.list_keys()] == [".json"]
    assert observatory.make_room(STORE) == 1
    assert status(observatory, STORE) is PhysicalCopyStatus.DELETION_FAILED

    s3_archive.mend()
    assert observatory.make_room(STORE) == 1
    assert (status(observatory, STORE), failure(observatory)) == (PhysicalCopyStatus.DELETED, "")
    assert object_store.list_keys() == []


def test_a_store_that_refuses_is_told_and_asked_again_when_somebody_says_that_it_is_mended(
    observatory: Observatory, object_store: ObjectStore
) -> None:
    twice(observatory)
    observatory.keep(STORE, days=0)
    with object_store.refusing_deletions():
        assert observatory.make_room(STORE) == 1
        assert status(observatory, STORE) is PhysicalCopyStatus.DELETION_FAILED
        assert "refuses access (403: Forbidden)" in failure(observatory)
        assert observatory.make_room(STORE) == 0, "asking again is no use"
        with transaction(observatory.engine) as session:
            [told] = [one for one in conditions(session, late=START) if one.kind is AlertKind.FAILED_FOR_GOOD]
        assert told.sentence.startswith(f"1 copy cannot be deleted at {STORE}: Location {STORE} ")
        assert told.sentence.endswith(f"`ccat retention retry {STORE}` tries again at once")
        assert len(object_store.list_keys()) == 2

    with transaction(observatory.engine) as session:
        assert retry_deletions(session, STORE) == 1
    assert observatory.make_room(STORE) == 1
    assert (status(observatory, STORE), object_store.list_keys()) == (PhysicalCopyStatus.DELETED, [])


def lose(observatory: Observatory, package_id: int, location: str) -> None:
    """Have the copy there found damaged by whoever reads it again."""
    bad, to = [observatory.copies(package_id)[location].id], PhysicalCopyStatus.CORRUPT
    with transaction(observatory.engine) as session:
        advance(session, models.PhysicalCopy, bad, to=to, because="it rots", by="a scrubber")


def cannot_be_removed(observatory: Observatory, store: ObjectStore, location: str) -> None:
    """Let an archive keep nothing, and try to remove what it has while nobody can."""
    observatory.keep(location, days=0)
    place = observatory.directory(DISK)
    with store.refusing_deletions():
        place.rename(place.with_name("away"))
        assert observatory.make_room(location) == 1
        place.with_name("away").rename(place)
    assert status(observatory, location) is PhysicalCopyStatus.DELETION_FAILED


def try_again(observatory: Observatory, location: str) -> None:
    with transaction(observatory.engine) as session:
        assert retry_deletions(session, location) == 1
    delete_copies(observatory.worker, observatory.schedule_deletions(location))


@pytest.mark.parametrize(("where", "other"), [(DISK, STORE), (STORE, DISK)])
def test_a_copy_that_could_not_be_deleted_and_is_the_last_sound_one_is_a_copy_again_and_counts_once_it_was_read(
    observatory: Observatory, object_store: ObjectStore, where: str, other: str
) -> None:
    package_id = twice(observatory)
    cannot_be_removed(observatory, object_store, where)
    lose(observatory, package_id, other)
    try_again(observatory, where)

    copy = observatory.copies(package_id)[where]
    assert (copy.status, copy.verified_at, copy.failure) == (PhysicalCopyStatus.PRESENT, None, None)
    assert observatory.make_room(where) == 0
    observatory.request_staging([package_id])
    observatory.do(Operation.STAGING)
    assert observatory.copies(package_id)["cologne/ramses"].status is PhysicalCopyStatus.STAGED
    assert hindered(observatory, "ccat/chai_raw_data") == [Obstacle.TOO_FEW_COPIES]
    scrub(observatory.worker, [copy.id])
    assert observatory.copies(package_id)[where].verified_at is not None
    assert hindered(observatory, "ccat/chai_raw_data") == [None]


def half_removed(observatory: Observatory, path: str) -> Path:
    """What becomes of a copy whose worker dies, or whose disk fails, once it has lost its name."""
    place = observatory.directory(DISK) / path
    return place.rename(place.with_name(f"{place.name}.removed-7-0a1b2c3d"))


def test_one_that_has_only_lost_its_name_gets_it_back(observatory: Observatory, object_store: ObjectStore) -> None:
    package_id = twice(observatory)
    cannot_be_removed(observatory, object_store, DISK)
    path = observatory.copies(package_id)[DISK].path
    half_removed(observatory, path)
    lose(observatory, package_id, STORE)
    try_again(observatory, DISK)
    copy = observatory.copies(package_id)[DISK]
    assert (copy.status, copy.verified_at) == (PhysicalCopyStatus.PRESENT, None)
    scrub(observatory.worker, [copy.id])
    assert observatory.copies(package_id)[DISK].verified_at is not None
    assert observatory.leftovers() == []


def test_of_several_that_have_lost_the_name_none_is_taken_for_the_copy(
    observatory: Observatory, object_store: ObjectStore
) -> None:
    package_id = twice(observatory)
    cannot_be_removed(observatory, object_store, DISK)
    left = half_removed(observatory, observatory.copies(package_id)[DISK].path)
    left.with_name(left.name.replace("-7-", "-8-")).write_bytes(b"of an earlier one")
    lose(observatory, package_id, STORE)
    try_again(observatory, DISK)
    assert status(observatory, DISK) is PhysicalCopyStatus.MISSING


@pytest.mark.parametrize("is_halved", [False, True], ids=["whole", "halved"])
def test_a_directory_that_has_only_lost_its_name_gets_it_back_and_is_damaged_where_a_part_is_gone(
    reductions: Reductions, *, is_halved: bool
) -> None:
    observatory = reductions.observatory
    run_id = reductions.make(TREE)
    reductions.archive()
    [home] = reductions.copies(run_id, "cologne/ramses").values()
    with transaction(reductions.engine) as session:
        to_failed = [one for one in PhysicalCopyStatus if one.value.startswith("deletion")]
        for to in to_failed:
            advance(session, models.PhysicalCopy, [home.id], to=to, because="a test", by="a test")
        bad = [copy.id for copy in reductions.copies(run_id, STORE).values()]
        advance(session, models.PhysicalCopy, bad, to=PhysicalCopyStatus.CORRUPT, because="it rots", by="a scrubber")
    place = observatory.directory("cologne/ramses") / home.path
    left = place.rename(place.with_name(f"{place.name}.removed-7-0a1b2c3d"))
    if is_halved:
        (left / "0.0").unlink()
    delete_copies(observatory.worker, observatory.schedule_deletions("cologne/ramses"))
    found = observatory.one(models.PhysicalCopy, id=home.id).status
    assert found is (PhysicalCopyStatus.CORRUPT if is_halved else PhysicalCopyStatus.PRESENT)
    assert place.is_dir()
    assert observatory.leftovers() == []


@pytest.mark.parametrize(("where", "other"), [(DISK, STORE), (STORE, DISK)])
def test_one_that_is_gone_by_then_is_called_missing(
    observatory: Observatory, object_store: ObjectStore, where: str, other: str
) -> None:
    package_id = twice(observatory)
    cannot_be_removed(observatory, object_store, where)
    path = observatory.copies(package_id)[where].path
    object_store.s3.delete_object(Bucket=BUCKET, Key=f"fyst/{path}")
    (observatory.directory(DISK) / path).unlink()
    lose(observatory, package_id, other)
    try_again(observatory, where)
    assert status(observatory, where) is PhysicalCopyStatus.MISSING


def test_who_sleeps_while_removing_leaves_alone_what_has_to_stay_by_then(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_id = twice(observatory)
    observatory.keep(DISK, days=0)
    observatory.mark(DISK)
    scheduled = observatory.schedule_deletions(DISK)
    remove = Disk.remove

    def sleep_before(*args: Any, **options: Any) -> None:
        monkeypatch.undo()
        lose(observatory, package_id, STORE)
        with transaction(observatory.engine) as session:
            session.execute(sa.update(models.PhysicalCopy).values(lease_until=sa.func.now() - timedelta(hours=1)))
        assert observatory.recover() == 1
        delete_copies(observatory.worker, scheduled)
        assert status(observatory, DISK) is PhysicalCopyStatus.PRESENT
        remove(*args, **options)

    monkeypatch.setattr(Disk, "remove", sleep_before)
    delete_copies(observatory.worker, scheduled)
    assert status(observatory, DISK) is PhysicalCopyStatus.PRESENT
    scrub(observatory.worker, [observatory.copies(package_id)[DISK].id])
    assert status(observatory, DISK) is PhysicalCopyStatus.PRESENT


def test_what_is_gone_already_is_deleted_and_what_is_unfinished_goes_with_it(
    observatory: Observatory, object_store: ObjectStore
) -> None:
    package_id = twice(observatory)
    observatory.keep(STORE, days=0)
    key = f"fyst/{observatory.copies(package_id)[STORE].path}"
    object_store.s3.delete_object(Bucket=BUCKET, Key=key)
    object_store.begin_upload(key, b"a part that nobody goes on with")
    assert observatory.make_room(STORE) == 1
    assert status(observatory, STORE) is PhysicalCopyStatus.DELETED
    assert (object_store.list_keys(), object_store.unfinished()) == ([], [])


def test_a_bucket_that_is_gone_is_not_one_where_everything_is_deleted(
    observatory: Observatory, object_store: ObjectStore
) -> None:
    twice(observatory)
    observatory.keep(STORE, days=0)
    for key in object_store.all_keys():
        object_store.s3.delete_object(Bucket=BUCKET, Key=key)
    object_store.s3.delete_bucket(Bucket=BUCKET)
    assert observatory.make_room(STORE) == 1
    assert status(observatory, STORE) is PhysicalCopyStatus.DELETION_FAILED
    assert "has no such bucket" in failure(observatory)
    object_store.make_bucket()


# Products


@pytest.mark.parametrize("where", [DISK, STORE])
def test_products_that_do_not_count_any_more_go_with_what_lists_and_describes_them(
    reductions: Reductions, object_store: ObjectStore, where: str
) -> None:
    observatory = reductions.observatory
    with transaction(observatory.engine) as session:
        other = session.get_one(models.DataLocation, observatory.location_id(STORE if where == DISK else DISK))
        other.active = False
    run_id = reductions.make({**TREE, "science/map.fits": b"map"})
    reductions.archive()
    observatory.keep(where, days=0)
    assert observatory.make_room(where) == 0
    assert set(hindered(observatory, where)) == {Obstacle.COUNTS}

    top, products = archived(reductions, run_id), reductions.copies(run_id, where)
    with transaction(reductions.engine) as session:
        tree = session.scalars(sa.select(models.DataProduct).filter_by(relative_path="science/cube.zarr")).one()
        to = ProductState.WITHDRAWN
        advance(session, models.DataProduct, [tree.id], to=to, because="it is wrong", by="an operator")
    assert observatory.make_room(where) == 1
    there = names(observatory, object_store, where)
    assert there == [f"{run_id}.json", f"{run_id}/science/map.fits"]

    reductions.withdraw(run_id)
    assert observatory.make_room(where) == 1
    assert (names(observatory, object_store, where), top.with_suffix(".json").exists()) == ([], False)
    assert {reductions.copies(run_id, where).get(path) for path in products} == {None}


def test_products_and_trees_that_count_again_are_copies_again(
    reductions: Reductions, object_store: ObjectStore
) -> None:
    observatory = reductions.observatory
    with transaction(observatory.engine) as session:
        session.get_one(models.DataLocation, observatory.location_id(DISK)).active = False
    run_id = reductions.make({**TREE, "science/map.fits": b"map"})
    reductions.archive()
    reductions.withdraw(run_id)
    observatory.keep(STORE, days=0)
    with object_store.refusing_deletions():
        assert observatory.make_room(STORE) == 2
    with transaction(reductions.engine) as session:
        products, to = session.scalars(sa.select(models.DataProduct.id)).all(), ProductState.CURRENT
        advance(session, models.DataProduct, products, to=to, because="it was right", by="an operator")
        assert retry_deletions(session, STORE) == 2
    delete_copies(observatory.worker, observatory.schedule_deletions(STORE))
    copies = reductions.copies(run_id, STORE)
    assert {(copy.status, copy.verified_at) for copy in copies.values()} == {(PhysicalCopyStatus.PRESENT, None)}
    scrub(observatory.worker, [copy.id for copy in copies.values()])
    assert {copy.status for copy in reductions.copies(run_id, STORE).values()} == {PhysicalCopyStatus.PRESENT}
    assert all(copy.verified_at for copy in reductions.copies(run_id, STORE).values())


def names(observatory: Observatory, store: ObjectStore, where: str) -> list[str]:
    """What there is of products, below their sub-group."""
    if where == STORE:
        return sorted(key.removeprefix("fyst/products/maps/grid/source=M17/") for key in store.list_keys())
    top = observatory.directory(where) / "products/maps/grid/source=M17"
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())


# What people are told


def test_a_store_has_no_level_to_go_by_and_says_so(observatory: Observatory) -> None:
    twice(observatory)
    with transaction(observatory.engine) as session, pytest.raises(LevelUnknown, match="go by time only"):
        set_retention(session, STORE, days=None, high=0.9, low=None, by="Ann")
    plan = say(observatory, "retention", "plan", "--location", STORE)
    assert f"{STORE} keeps copies for ever, by time only: an object store does not tell how full it is" in plan
    assert f"`ccat retention set {STORE} --days N` says for how long" in plan
    observatory.keep(STORE, days=0)
    plan = say(observatory, "retention", "plan")
    assert "other archives have as many verified copies as it needs, and its time is over" in " ".join(plan.split())
    assert "of ours" in say(observatory, "transfer", "status")
    assert "0 copies are tried again" in say(observatory, "retention", "retry")
