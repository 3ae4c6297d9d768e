"""Archives have enough copies, each is read again in time, and what is damaged is made anew from what is not."""

import tarfile
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer import archives
from ccat_data_transfer.managers import TransferContext
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.replication import Archive, Holding, Wish, next_copy
from ccat_data_transfer.routing import Place
from ccat_data_transfer.verbs import replicating, surveying
from ccat_data_transfer.verbs.copies import announce_copy
from ccat_data_transfer.verbs.replicating import replicate
from ccat_data_transfer.verbs.retrying import retry_package
from ccat_data_transfer.verbs.scrubbing import due_for_scrubbing, scrub
from ccat_data_transfer.verbs.surveying import look_through
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, LocationType, PackageState, PhysicalCopyStatus, Status
from tests.transfer.support import START, Observatory, digest

FILES = {"a.fits": b"a" * 300_000, "b.txt": b"cloudy"}
LTA = LocationType.LONG_TERM_ARCHIVE
CCAT, COLOGNE, US = 1, 2, 3


def place(number: int) -> Place:
    site = number // 10
    return Place(location_id=number, site_id=site, site=f"site {site}")


ARCHIVES = [Archive(place=place(21), priority=0), Archive(place=place(31), priority=5)]
BUFFERS = {CCAT: 10, COLOGNE: 20, US: 30}
IN_BUFFER = Holding(place=place(10), type=LocationType.BUFFER)
AT_COLOGNE = Holding(place=place(20), type=LocationType.BUFFER)
ARCHIVED = Holding(place=place(21), type=LTA)


def wish(
    *holdings: Holding, taken: set[int], lost: set[int] | None = None, sources: set[int] | None = None
) -> Wish | None:
    return next_copy(
        ARCHIVES,
        holdings,
        taken=taken,
        lost=lost or set(),
        buffers=BUFFERS,
        sources=sources or set(),
        leads=lambda _origin, _archive: True,
    )


def test_a_second_copy_is_fed_from_the_site_of_the_first_and_not_from_the_observatory() -> None:
    assert wish(IN_BUFFER, AT_COLOGNE, ARCHIVED, taken={21}) == Wish(origin_id=20, archive_id=31)


def test_where_no_buffer_has_it_any_more_it_is_restored_into_that_of_an_archives_site() -> None:
    assert wish(IN_BUFFER, ARCHIVED, taken={21}) == Wish(origin_id=20, archive_id=31)


def test_what_was_lost_comes_first_and_is_read_at_its_own_site_where_that_can_be() -> None:
    assert wish(AT_COLOGNE, taken=set(), lost={21}) == Wish(origin_id=20, archive_id=21)
    elsewhere = Holding(place=place(31), type=LTA)
    assert wish(elsewhere, taken={31}, lost={21}) == Wish(origin_id=30, archive_id=21)


def test_where_only_raw_files_are_left_it_is_packed_anew() -> None:
    assert wish(taken=set(), lost={21}, sources={CCAT}) == Wish(origin_id=10, archive_id=21)


def test_what_nothing_can_be_made_of_is_not_asked_for() -> None:
    assert wish(taken=set(), lost={21}) is None
    assert wish(AT_COLOGNE, ARCHIVED, taken={21, 31}) is None


# With real files


def check_copy(observatory: Observatory, package_id: int, at: str) -> None:
    package, copy = observatory.package(package_id), observatory.copies(package_id)[at]
    assert (package.state, copy.status) == (PackageState.ARCHIVED, PhysicalCopyStatus.PRESENT)
    tar = observatory.directory(at) / copy.path
    assert digest(tar.read_bytes()) == copy.checksum == package.checksum


def tar_of(observatory: Observatory, package_id: int, at: str = "cologne/lta") -> Path:
    return observatory.directory(at) / observatory.copies(package_id)[at].path


def damage(tar: Path) -> None:
    tar.chmod(0o600)
    with tar.open("r+b") as file:
        file.seek(5000)
        file.write(b"rot")


def trips(observatory: Observatory) -> int:
    with transaction(observatory.engine) as session:
        return len(session.scalars(sa.select(models.DataTransfer.id)).all())


def read_again(observatory: Observatory, *package_ids: int, at: str = "cologne/lta") -> None:
    scrub(observatory.worker, [observatory.copies(one)[at].id for one in package_ids])


def test_a_package_leaves_the_observatory_once_and_the_second_archive_is_fed_from_the_first(
    two_archives: Observatory,
) -> None:
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    check_copy(two_archives, package_id, "cologne/lta")
    check_copy(two_archives, package_id, "us/lta")
    assert trips(two_archives) == 2
    with transaction(two_archives.engine) as session:
        assert look_through(session, by="a test") == 0


def test_a_further_copy_is_asked_for_anew_where_nothing_leads_to_it_from_what_is_left(
    two_archives: Observatory,
) -> None:
    package_id = two_archives.observe(FILES)
    assert [two_archives.do(Operation.PACKING), two_archives.ship()] == [1, 1]
    for one in (Operation.TRANSFERRING, Operation.UNPACKING, Operation.ARCHIVING):
        assert two_archives.do(one) == 1
    for at in ("cologne/buffer", "cologne/lta", "ccat/buffer"):
        tar_of(two_archives, package_id, at).unlink()
        with transaction(two_archives.engine) as session:
            gone = [two_archives.copies(package_id)[at].id]
            advance(session, models.PhysicalCopy, gone, to=PhysicalCopyStatus.MISSING, because="a test", by="a test")
    two_archives.do_all()
    with transaction(two_archives.engine) as session:
        look_through(session, by="a test")
    two_archives.do_all()
    for at in ("cologne/lta", "us/lta"):
        check_copy(two_archives, package_id, at)


def test_more_copies_are_made_of_what_was_archived_before_they_were_wanted(two_archives: Observatory) -> None:
    with transaction(two_archives.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=1))
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    two_archives.lose_all_but_archives(package_id)
    with transaction(two_archives.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=2))
        assert look_through(session, by="a test") == 1
    assert two_archives.do(Operation.RESTORING) == 1
    two_archives.do_all()
    check_copy(two_archives, package_id, "us/lta")


def test_an_archive_is_asked_again_where_a_transfer_was_cancelled_in_the_middle(two_archives: Observatory) -> None:
    with transaction(two_archives.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=1))
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    with transaction(two_archives.engine) as session:
        place = session.get_one(models.DataLocation, two_archives.location_id("us/lta"))
        package = session.get_one(models.RawDataPackage, package_id)
        path = two_archives.copies(package_id)["cologne/lta"].path
        announce_copy(session, package, place, path=path, by="a transfer that was cancelled")
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=2))
        assert replicate(session, [package_id], by="a test") == 1
    two_archives.do_all()
    check_copy(two_archives, package_id, "us/lta")


def look_again(observatory: Observatory) -> int:
    """The next look at packages, as if its time had come; how many copies it asked for."""
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.ReplicationRound).values(look_at=None))
        return look_through(session, by="a test")


def test_all_packages_are_looked_at_in_turn_and_those_nothing_can_be_made_of_hold_up_no_others(
    two_archives: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surveying, "_LOOKED_AT", 2)
    monkeypatch.setattr(replicating, "AT_ONCE", 1)
    monkeypatch.setattr(surveying, "AT_ONCE", 1)
    want_copies(two_archives, 1)
    packages = [two_archives.observe({f"{number}.fits": b"a"}) for number in range(5)]
    two_archives.do_all()
    two_archives.lose_all_but_archives(packages[0])
    with transaction(two_archives.engine) as session:
        lost = [two_archives.copies(packages[0])["cologne/lta"].id]
        advance(session, models.PhysicalCopy, lost, to=PhysicalCopyStatus.MISSING, because="a test", by="a test")
    want_copies(two_archives, 2)

    looks = [look_again(two_archives) for _ in range(6)]
    assert (looks, sum(looks)) == ([0, 1, 1, 1, 1, 0], 4)
    with transaction(two_archives.engine) as session:
        assert look_through(session, by="a test") == 0
    two_archives.do_all()
    for package_id in packages[1:]:
        check_copy(two_archives, package_id, "us/lta")


def want_copies(observatory: Observatory, number: int) -> None:
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=number))


@pytest.mark.parametrize("how", [damage, Path.unlink])
def test_a_damaged_or_lost_archive_copy_is_found_when_it_is_read_again_and_made_anew(
    two_archives: Observatory, how: object
) -> None:
    assert callable(how)
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    two_archives.lose_all_but_archives(package_id)
    how(tar_of(two_archives, package_id))
    read_again(two_archives, package_id)
    assert two_archives.copies(package_id)["cologne/lta"].status in {"corrupt", "missing"}
    two_archives.do_all()
    check_copy(two_archives, package_id, "cologne/lta")
    check_copy(two_archives, package_id, "us/lta")


def test_a_copy_is_made_anew_also_where_a_worker_died_while_it_removed_what_that_starts_from(
    two_archives: Observatory,
) -> None:
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    for name in ("us/buffer", "cologne/buffer"):
        two_archives.keep(name, days=0)
    assert two_archives.make_room("us/buffer") == 1
    two_archives.mark("cologne/buffer")
    going, to = two_archives.schedule_deletions("cologne/buffer"), PhysicalCopyStatus.DELETION_IN_PROGRESS
    with transaction(two_archives.engine) as session:
        advance(session, models.PhysicalCopy, going, to=to, because="let go", by="a worker that died")
        session.execute(sa.update(models.PhysicalCopy).values(lease_until=None))
    assert two_archives.recover() == 1
    damage(tar_of(two_archives, package_id, "us/lta"))
    read_again(two_archives, package_id, at="us/lta")
    assert two_archives.make_room("cologne/buffer") == 1
    two_archives.do_all()
    check_copy(two_archives, package_id, "us/lta")


def test_what_only_raw_files_are_left_of_is_packed_anew_with_the_same_bytes(far: Observatory) -> None:
    package_id = far.observe(FILES)
    far.do_all()
    checksum = far.package(package_id).checksum
    buffers = [far.copies(package_id)[name].id for name in ("ccat/buffer", "cologne/buffer")]
    with transaction(far.engine) as session:
        missing = PhysicalCopyStatus.MISSING
        advance(session, models.PhysicalCopy, buffers, to=missing, because="a test", by="a test")
    damage(tar_of(far, package_id))
    read_again(far, package_id)
    far.do_all()
    check_copy(far, package_id, "cologne/lta")
    assert far.package(package_id).checksum == checksum


def test_a_staging_that_meets_a_damaged_copy_uses_another_or_waits_for_it_to_be_made(far: Observatory) -> None:
    package_id = far.observe(FILES)
    far.do_all()
    damage(tar_of(far, package_id))
    far.request_staging([package_id])
    far.do_all()
    assert far.one(models.StagingJob).status is Status.COMPLETED
    check_copy(far, package_id, "cologne/lta")


def test_what_nothing_is_left_of_stays_marked_and_people_are_told(far: Observatory) -> None:
    package_id = far.observe(FILES)
    far.do_all()
    far.lose_all_but_archives(package_id)
    damage(tar_of(far, package_id))
    read_again(far, package_id)
    far.do_all()
    assert far.copies(package_id)["cologne/lta"].status is PhysicalCopyStatus.CORRUPT
    with transaction(far.engine) as session:
        [lost, told] = [one for one in conditions(session, late=START) if one.kind is AlertKind.LOST_COPY]
        assert look_through(session, by="a test") == 0
    assert lost.sentence.startswith("NO copy of 1 raw package is known anywhere")
    assert told.sentence.startswith("1 archive copy is damaged or gone at cologne/lta, such as raw/")


def test_a_sound_copy_is_noted_as_read_and_left_alone(far: Observatory) -> None:
    package_id = far.observe(FILES)
    far.do_all()
    before = far.copies(package_id)["cologne/lta"].verified_at
    read_again(far, package_id)
    copy = far.copies(package_id)["cologne/lta"]
    assert copy.verified_at is not None
    assert before is not None
    assert copy.verified_at > before
    assert (copy.status, copy.claimed_by) == (PhysicalCopyStatus.PRESENT, None)


@pytest.mark.parametrize("is_there", [False, True])
def test_an_archive_that_is_away_marks_nothing(far: Observatory, *, is_there: bool) -> None:
    """What is mounted there is not, and perhaps not even the directory where it is mounted."""
    package_id = far.observe(FILES)
    far.do_all()
    away = far.directory("cologne/lta")
    away.rename(away.with_name("away"))
    if is_there:
        away.mkdir()
    read_again(far, package_id)
    if is_there:
        away.rmdir()
    away.with_name("away").rename(away)
    assert far.copies(package_id)["cologne/lta"].status is PhysicalCopyStatus.PRESENT


def make_old(observatory: Observatory, days: int) -> None:
    with transaction(observatory.engine) as session:
        old = sa.func.clock_timestamp() - timedelta(days=days)
        session.execute(sa.update(models.PhysicalCopy).values(verified_at=old))


def due(observatory: Observatory) -> int:
    location_id = observatory.location_id("cologne/lta")
    with transaction(observatory.engine) as session:
        return len(due_for_scrubbing(session, location_id))


def test_copies_are_read_again_after_so_many_days_at_the_rate_of_their_archive(far: Observatory) -> None:
    for number in range(3):
        far.observe({f"{number}.fits": bytes(400_000)})
    far.do_all()
    location_id = far.location_id("cologne/lta")
    assert due(far) == 0
    make_old(far, days=181)
    assert due(far) == 3
    with transaction(far.engine) as session:
        session.get_one(models.DataLocation, location_id).scrub_mb_per_s = 0.001
    assert due(far) == 2
    with transaction(far.engine) as session:
        location = session.get_one(models.DataLocation, location_id)
        assert location.archive_look_at is not None
        now = session.scalars(sa.select(sa.func.clock_timestamp())).one()
        assert timedelta(seconds=700) < location.archive_look_at - now < timedelta(seconds=900)
        location.scrub_days = 0
    assert due(far) == 0
    with transaction(far.engine) as session:
        location = session.get_one(models.DataLocation, location_id)
        location.scrub_days = location.scrub_mb_per_s = location.archive_look_at = None


def test_what_was_never_read_comes_before_what_was_not_for_longest(far: Observatory) -> None:
    packages = [far.observe({f"{number}.fits": b"a"}) for number in range(2)]
    far.do_all()
    make_old(far, days=181)
    restored = far.copies(packages[1])["cologne/lta"].id
    with transaction(far.engine) as session:
        session.get_one(models.PhysicalCopy, restored).verified_at = None
    location_id = far.location_id("cologne/lta")
    with transaction(far.engine) as session:
        assert due_for_scrubbing(session, location_id) == [restored, far.copies(packages[0])["cologne/lta"].id]


def test_a_manager_looks_at_each_archive_once_an_hour_and_at_none_while_everything_is_paused(
    observatory: Observatory, context: TransferContext
) -> None:
    observatory.observe(FILES)
    observatory.do_all()
    make_old(observatory, days=181)
    forget_looks(observatory)
    with transaction(observatory.engine) as session:
        session.add(models.Pause(because="a test", by="a test"))
    assert archives.tend(observatory.engine, context.app, by="manager") == 0
    with transaction(observatory.engine) as session:
        session.execute(sa.delete(models.Pause))
    assert archives.tend(observatory.engine, context.app, by="manager") == 1
    assert archives.tend(observatory.engine, context.app, by="manager") == 0
    forget_looks(observatory)


def forget_looks(observatory: Observatory) -> None:
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.DataLocation).values(archive_look_at=None))


def pack_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on tars of the same files have other bytes."""
    monkeypatch.setattr(tarfile, "PAX_FORMAT", tarfile.GNU_FORMAT)


def lose(observatory: Observatory, package_id: int, *places: str) -> None:
    copies = observatory.copies(package_id)
    ids = [copies[place].id for place in places]
    with transaction(observatory.engine) as session:
        missing = PhysicalCopyStatus.MISSING
        advance(session, models.PhysicalCopy, ids, to=missing, because="a test", by="a test")


def ask_for_a_copy(observatory: Observatory, package_id: int) -> None:
    """Have another copy made at the other archive, that starts where the raw files are."""
    origin, archive = observatory.location_id("ccat/buffer"), observatory.location_id("us/lta")
    with transaction(observatory.engine) as session:
        new = {"raw_data_package_id": package_id, "origin_id": origin, "destination_id": archive}
        session.add(models.LongTermArchiveTransfer(**new))


def test_another_tar_never_takes_the_place_of_what_archives_have_and_that_is_told(
    two_archives: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    want_copies(two_archives, 1)
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    archived = two_archives.package(package_id).checksum
    lose(two_archives, package_id, "ccat/buffer")
    two_archives.add_route("ccat", "us")
    ask_for_a_copy(two_archives, package_id)
    with monkeypatch.context() as patched:
        pack_otherwise(patched)
        assert two_archives.do(Operation.PACKING) == 1
    [failed] = [one for one in two_archives.transfers() if one.status is Status.FAILED]
    assert two_archives.package(package_id).checksum == archived
    assert f"is archived as a tar with {archived}, and packed again it has sha256:" in (failed.failure or "")
    assert "ccat/buffer" not in two_archives.copies(package_id)
    assert list(two_archives.directory("ccat/buffer").rglob("*.tar")) == []
    with transaction(two_archives.engine) as session:
        [told] = [one for one in conditions(session, late=START) if one.kind is AlertKind.FAILED_FOR_GOOD]
    such = f"such as that of package {package_id}: {failed.failure}"
    assert told.sentence == f"1 archive copy cannot be made at us/lta, {such}"
    with transaction(two_archives.engine) as session:
        retry_package(session, package_id, by="an operator")
    two_archives.do_all()
    check_copy(two_archives, package_id, "us/lta")


def test_where_no_sound_copy_is_left_another_tar_of_the_same_files_is_archived(
    far: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_id = far.observe(FILES)
    far.do_all()
    archived = far.package(package_id).checksum
    lose(far, package_id, "ccat/buffer", "cologne/buffer", "cologne/lta")
    with transaction(far.engine) as session:
        assert replicate(session, [package_id], by="a test") == 1
    with monkeypatch.context() as patched:
        pack_otherwise(patched)
        assert far.do(Operation.PACKING) == 1
    far.do_all()
    assert far.package(package_id).checksum != archived
    check_copy(far, package_id, "cologne/lta")
    far.request_staging([package_id])
    far.do_all()
    staged = far.directory("cologne/ramses") / far.copies(package_id)["cologne/ramses"].path
    assert {file.name: file.read_bytes() for file in staged.iterdir()} == FILES


def test_further_copies_do_not_fill_the_queue_of_an_archive(
    two_archives: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    want_copies(two_archives, 1)
    packages = [two_archives.observe({f"{number}.fits": b"a"}) for number in range(2)]
    two_archives.do_all()
    monkeypatch.setattr(replicating, "MOST_UNDER_WAY", 1)
    monkeypatch.setattr(surveying, "_LOOKED_AT", 1)
    want_copies(two_archives, 2)
    assert [look_again(two_archives) for _ in range(4)] == [1, 0, 0, 0], "one is on its way, and the other waits"
    two_archives.do_all()
    assert sum(look_again(two_archives) for _ in range(3)) == 1
    two_archives.do_all()
    for package_id in packages:
        check_copy(two_archives, package_id, "us/lta")
