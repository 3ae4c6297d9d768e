"""Several archives, some of which are far away, refuse, or have a copy again that was lost."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from ccat_data_transfer.errors import GivenUp, NothingToRetry
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs import outcomes
from ccat_data_transfer.verbs.copies import announce_copy
from ccat_data_transfer.verbs.retrying import retry_package
from ccat_data_transfer.verbs.scrubbing import due_for_scrubbing
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, LocationType, Mover, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.losing import lose_location
from tests.transfer.support import START, Observatory
from tests.transfer.test_replication import check_copy, damage, look_again, read_again, tar_of

ARCHIVING = models.LongTermArchiveTransfer
FILES = {"a.fits": b"a" * 300_000, "b.txt": b"cloudy"}


def test_staging_reads_the_archive_of_its_own_site_whatever_another_is_preferred(two_archives: Observatory) -> None:
    """The disks of another site are not seen from here."""
    with transaction(two_archives.engine) as session:
        session.get_one(models.DataLocation, two_archives.location_id("us/lta")).priority = 10
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    far_away = two_archives.directory("us/lta")
    far_away.rename(far_away.with_name("over there"))
    two_archives.request_staging([package_id])
    two_archives.do(Operation.STAGING)
    far_away.with_name("over there").rename(far_away)
    job = two_archives.one(models.StagingJob)
    assert (job.status, job.failure) == (Status.COMPLETED, None)


def lose(observatory: Observatory, package_id: int, at: str) -> Path:
    """An archive copy is found to be gone, and is asked for anew; where it was put aside."""
    tar = tar_of(observatory, package_id, at)
    aside = observatory.root / "aside"
    tar.rename(aside)
    read_again(observatory, package_id, at=at)
    return aside


def test_a_copy_that_a_person_restores_while_it_is_to_be_made_anew_is_not_made_anew(two_archives: Observatory) -> None:
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    tar = tar_of(two_archives, package_id, "us/lta")
    aside = lose(two_archives, package_id, "us/lta")
    aside.rename(tar)
    with transaction(two_archives.engine) as session:
        retry_package(session, package_id, by="a test")
    two_archives.do_all()
    check_copy(two_archives, package_id, "us/lta")
    with transaction(two_archives.engine) as session:
        transfers = session.scalars(sa.select(models.LongTermArchiveTransfer)).all()
    assert {(one.status, one.failure) for one in transfers} == {(Status.COMPLETED, None)}


def test_a_copy_that_is_being_made_anew_is_not_believed_when_a_person_hurries_its_package(
    two_archives: Observatory,
) -> None:
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    lose(two_archives, package_id, "us/lta")
    with transaction(two_archives.engine) as session:  # it was begun, and rests after trouble
        us, package = find(session, LOCATION, "us/lta"), session.get_one(models.RawDataPackage, package_id)
        way = session.scalars(sa.select(ARCHIVING).where(ARCHIVING.status == Status.PENDING)).one()
        way.not_before = sa.func.clock_timestamp() + timedelta(hours=1)
        path = two_archives.copies(package_id)["us/lta"].path
        announce_copy(session, package, us, path=path, by="a test")
    with transaction(two_archives.engine) as session, suppress(NothingToRetry):
        retry_package(session, package_id, by="a test")
    assert two_archives.copies(package_id)["us/lta"].status is PhysicalCopyStatus.WRITING


def test_a_copy_at_an_archive_that_is_lost_is_not_believed_while_another_is_sound(two_archives: Observatory) -> None:
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    lose_location(two_archives.engine, "us/lta", because="it burnt", by="a test")
    with transaction(two_archives.engine) as session, suppress(NothingToRetry):
        retry_package(session, package_id, by="a test")
    assert two_archives.copies(package_id)["us/lta"].status is PhysicalCopyStatus.MISSING


def give_up(observatory: Observatory, transfer_id: int) -> None:
    with transaction(observatory.engine) as session:
        advance(session, ARCHIVING, [transfer_id], to=Status.SCHEDULED, because="a test", by="a test")
        outcomes.give_up(session, ARCHIVING, transfer_id, error=GivenUp(10), by="a test")


def failed_copies(observatory: Observatory) -> str | None:
    """What people are told of archive copies that cannot be made."""
    with transaction(observatory.engine) as session:
        told = [one for one in conditions(session, late=START) if one.kind is AlertKind.FAILED_FOR_GOOD]
    return told[0].sentence if told else None


def test_a_further_copy_that_failed_for_good_is_told_of_and_made_when_a_person_retries_its_package(
    two_archives: Observatory,
) -> None:
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    damage(tar_of(two_archives, package_id, "us/lta"))
    read_again(two_archives, package_id, at="us/lta")
    at_us = {"destination_id": two_archives.location_id("us/lta"), "status": Status.PENDING}
    transfer_id = two_archives.one(models.LongTermArchiveTransfer, **at_us).id
    give_up(two_archives, transfer_id)
    told = failed_copies(two_archives)
    assert told == (
        f"1 archive copy cannot be made at us/lta, such as that of package {package_id}: The process that worked on it "
        "ended unexpectedly 10 times; look for the cause in the logs of the transfer workers. "
        f"Once that is mended, `ccat package retry {package_id}` takes it up again."
    )
    with transaction(two_archives.engine) as session:
        retry_package(session, package_id, by="a test")
    two_archives.do_all()
    check_copy(two_archives, package_id, "us/lta")
    assert failed_copies(two_archives) is None


def test_a_further_copy_on_a_trip_that_failed_is_told_of_and_sent_when_a_person_retries_its_package(
    two_archives: Observatory,
) -> None:
    change_method(two_archives, "cologne_to_us", Mover.BBCP)
    package_id = two_archives.observe(FILES)
    two_archives.do_all()
    told = failed_copies(two_archives) or ""
    assert told.startswith(f"1 archive copy cannot be made at us/lta, such as that of package {package_id}: Route")
    change_method(two_archives, "cologne_to_us", Mover.COPY)
    with transaction(two_archives.engine) as session:
        retry_package(session, package_id, by="a test")
    two_archives.do_all()
    check_copy(two_archives, package_id, "us/lta")
    assert failed_copies(two_archives) is None


def change_method(observatory: Observatory, route: str, method: Mover) -> None:
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).filter_by(name=route).values(method=method))


def test_a_copy_that_a_person_said_to_be_restored_is_read_before_all_others(observatory: Observatory) -> None:
    """Until then nothing but a word says that it is sound."""
    _, believed = (observatory.observe({f"{number}.fits": b"data"}) for number in (1, 2))
    observatory.do_all()
    tar_of(observatory, believed).unlink()
    read_again(observatory, believed)
    with transaction(observatory.engine) as session:
        retry_package(session, believed, by="a test")
        long_ago = sa.func.clock_timestamp() - timedelta(days=1000)
        read_before = sa.update(models.PhysicalCopy).where(models.PhysicalCopy.verified_at.is_not(None))
        session.execute(read_before.values(verified_at=long_ago))
    with transaction(observatory.engine) as session:
        first, *_ = due_for_scrubbing(session, find(session, LOCATION, "cologne/lta").id)
    assert first == observatory.copies(believed)["cologne/lta"].id


def further(observatory: Observatory) -> list[tuple[str, Status]]:
    """Where copies of packages that are archived were to go, with what became of that."""
    way = models.LongTermArchiveTransfer
    with transaction(observatory.engine) as session:
        names = dict(session.execute(LOCATION.rows.with_only_columns(models.DataLocation.id, LOCATION.label)).all())
        rows = session.scalars(sa.select(way).order_by(way.id)).all()
        return [(names[one.destination_id], one.status) for one in rows if names[one.destination_id] != "cologne/lta"]


def look_at_all(observatory: Observatory) -> int:
    """A whole round of looks at packages; how many copies it asked for."""
    return look_again(observatory) + look_again(observatory)


def put_out_of_use(observatory: Observatory, name: str) -> None:
    with transaction(observatory.engine) as session:
        find(session, LOCATION, name).active = False


def archived_once(two_archives: Observatory) -> int:
    """A package with a copy in Cologne, and another on its way to the US that has not left yet."""
    package_id = two_archives.observe({"a.fits": b"a"})
    assert [two_archives.do(Operation.PACKING), two_archives.ship()] == [1, 1]
    for one in (Operation.TRANSFERRING, Operation.UNPACKING, Operation.ARCHIVING):
        assert two_archives.do(one) == 1
    assert further(two_archives) == [("us/lta", Status.PENDING)]
    return package_id


def test_a_further_copy_for_an_archive_that_is_put_out_of_use_goes_to_another(two_archives: Observatory) -> None:
    package_id = archived_once(two_archives)
    two_archives.add_location("us/spare", LocationType.LONG_TERM_ARCHIVE)
    put_out_of_use(two_archives, "us/lta")
    assert look_at_all(two_archives) == 1
    assert further(two_archives) == [("us/lta", Status.CANCELLED), ("us/spare", Status.PENDING)]
    two_archives.do_all()
    check_copy(two_archives, package_id, "us/spare")


def test_a_further_copy_waits_for_an_archive_that_is_out_of_use_where_there_is_no_other(
    two_archives: Observatory,
) -> None:
    archived_once(two_archives)
    put_out_of_use(two_archives, "us/lta")
    assert look_at_all(two_archives) == 0
    assert further(two_archives) == [("us/lta", Status.PENDING)]


def test_a_further_copy_that_travels_already_is_dealt_anew_once_it_is_there(two_archives: Observatory) -> None:
    package_id = archived_once(two_archives)
    assert two_archives.ship() == 1
    two_archives.add_location("us/spare", LocationType.LONG_TERM_ARCHIVE)
    put_out_of_use(two_archives, "us/lta")
    assert look_at_all(two_archives) == 0
    for one in (Operation.TRANSFERRING, Operation.UNPACKING):
        assert two_archives.do(one) == 1
    assert look_at_all(two_archives) == 1
    assert further(two_archives) == [("us/lta", Status.CANCELLED), ("us/spare", Status.PENDING)]
    two_archives.do_all()
    check_copy(two_archives, package_id, "us/spare")
