"""A place that loses or damages what is brought there time and again is given a rest, the longer the more often."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS
from ccat_data_transfer.verbs.replicating import replicate
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus, RouteType, Status
from ccat_service.retries import Backoff
from tests.transfer.support import Observatory, say

FILES = {"a.fits": b"a" * 300_000}
HOURS = Backoff(first=timedelta(hours=1), ceiling=timedelta(hours=1))
ARCHIVING = models.LongTermArchiveTransfer


def do_with_pauses(observatory: Observatory, operation: Operation) -> int:
    """Do what waits for an operation, as a worker whose pauses are long."""
    scheduled = observatory.schedule(operation)
    for transfer_id in scheduled:
        VERBS[operation](replace(observatory.worker, backoff=HOURS), transfer_id)
    return len(scheduled)


def tar_at(observatory: Observatory, package_id: int, location: str) -> Path:
    return observatory.directory(location) / observatory.copies(package_id)[location].path


def damage(tar: Path) -> None:
    tar.chmod(0o600)
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")


def arrived(observatory: Observatory) -> Path:
    [tar] = observatory.directory("cologne/buffer").glob("transfer/*/*.tar")
    return tar


def check_it_rests(observatory: Observatory, said: str) -> None:
    waits = observatory.one(ARCHIVING)
    assert (waits.status, waits.trouble_count) == (Status.PENDING, 1)
    assert waits.not_before is not None
    assert waits.not_before > datetime.now(UTC) + timedelta(minutes=20)
    assert said in (waits.failure or "")
    assert observatory.schedule(Operation.PACKING) == []


def check_archived(observatory: Observatory, package_id: int) -> None:
    with transaction(observatory.engine) as session:
        session.execute(sa.update(ARCHIVING).values(not_before=None))
        session.execute(sa.update(models.DataTransfer).values(not_before=None))
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED


def test_a_tar_that_is_gone_when_it_is_to_be_sent_is_not_packed_again_at_once(far: Observatory) -> None:
    package_id = far.observe(FILES)
    assert [far.do(Operation.PACKING), far.ship()] == [1, 1]
    tar = tar_at(far, package_id, "ccat/buffer")
    tar.unlink()
    assert [do_with_pauses(far, Operation.TRANSFERRING), do_with_pauses(far, Operation.UNPACKING)] == [1, 1]
    check_it_rests(far, f"has to be packed again from its source: {tar} at location ccat/buffer is missing.")
    check_archived(far, package_id)


def test_a_tar_that_came_damaged_twice_is_not_packed_again_at_once(far: Observatory) -> None:
    package_id = far.observe(FILES)
    assert [far.do(Operation.PACKING), far.ship()] == [1, 1]
    for unpack in (far.do, lambda operation: do_with_pauses(far, operation)):
        assert far.do(Operation.TRANSFERRING) == 1
        damage(arrived(far))
        assert unpack(Operation.UNPACKING) == 1
    assert far.copies(package_id)["ccat/buffer"].status is PhysicalCopyStatus.CORRUPT
    check_it_rests(far, "has to be made anew where it comes from: it arrived damaged, or could not be read, 2 times.")
    check_archived(far, package_id)


def test_a_package_that_met_other_trouble_before_is_not_distrusted_when_it_comes_damaged_once(
    far: Observatory,
) -> None:
    package_id = far.observe(FILES)
    buffer = far.directory("ccat/buffer")
    buffer.rename(buffer.with_name("unmounted"))
    for _ in range(3):
        assert far.do(Operation.PACKING) == 1
    buffer.with_name("unmounted").rename(buffer)
    assert [far.do(Operation.PACKING), far.ship(), far.do(Operation.TRANSFERRING)] == [1, 1, 1]
    damage(arrived(far))
    assert far.do(Operation.UNPACKING) == 1
    assert far.copies(package_id)["ccat/buffer"].status is PhysicalCopyStatus.PRESENT
    check_archived(far, package_id)


def test_a_buffer_that_loses_what_arrives_is_given_longer_and_longer_rests_and_people_are_told(
    far: Observatory,
) -> None:
    package_id = far.observe(FILES)
    for tries in range(1, 6):
        while far.do(Operation.PACKING) + far.ship() + far.do(Operation.TRANSFERRING) + far.do(Operation.UNPACKING):
            pass
        tar_at(far, package_id, "cologne/buffer").unlink()
        assert told(far) == []
        assert far.do(Operation.ARCHIVING) == 1
        assert far.one(ARCHIVING).trouble_count == tries
    [sentence] = told(far)
    assert sentence.startswith("1 raw package met trouble 5 times or more on the way into an archive, such as: Package")
    assert "at location cologne/buffer is missing. It is tried again. `ccat packages` says" in sentence
    check_archived(far, package_id)
    assert told(far) == []


def test_what_was_in_the_way_is_over_once_a_package_is_at_the_next_place(far: Observatory) -> None:
    package_id = far.observe(FILES)
    for operation, place in ((Operation.PACKING, "ccat/buffer"), (Operation.ARCHIVING, "cologne/lta")):
        with away(far.directory(place)):
            for _ in range(5):
                assert told(far) == []
                assert far.do(operation) == 1
            assert len(told(far)) == 1
        while far.do(Operation.PACKING) + far.ship() + far.do(Operation.TRANSFERRING) + far.do(Operation.UNPACKING):
            pass
    check_archived(far, package_id)


def test_what_was_in_the_way_of_a_tar_is_over_once_it_has_crossed(far: Observatory) -> None:
    package_id = far.observe(FILES)
    assert [far.do(Operation.PACKING), far.ship(), far.do(Operation.TRANSFERRING)] == [1, 1, 1]
    with transaction(far.engine) as session:
        session.execute(sa.update(ARCHIVING).values(trouble_count=5))  # as a tar has that could not be read
    assert far.do(Operation.UNPACKING) == 1
    assert told(far) == []
    check_archived(far, package_id)


def told(observatory: Observatory) -> list[str]:
    with transaction(observatory.engine) as session:
        late = datetime.now(UTC) - timedelta(days=1)
        return [one.sentence for one in conditions(session, late=late) if one.key == "raw packages tried in vain"]


def test_what_cannot_be_brought_to_another_site_is_told_with_what_is_in_the_way(far: Observatory) -> None:
    packages = [far.observe(FILES) for _ in range(2)]
    far.do(Operation.PACKING)
    far.ship()
    with away(far.directory("cologne/buffer")):
        for _ in range(5):
            assert told(far) == []
            assert far.do(Operation.TRANSFERRING) == 1
        [sentence] = told(far)
        said = far.one(models.DataTransfer).failure or ""
        assert said.startswith("Location cologne/buffer ("), said
        assert sentence == (
            "2 raw packages met trouble 5 times or more on the way into an archive, such as: "
            f"{said} `ccat packages` says what is in the way"
        )
        listed = json.loads(say(far, "packages", "--json"))
        assert {(one["failure"], one["tried_again_at"] is None) for one in listed} == {(said, False)}
    for package_id in packages:
        check_archived(far, package_id)
    assert told(far) == []
    assert {one["failure"] for one in json.loads(say(far, "packages", "--json"))} == {None}


def test_what_went_on_from_an_archive_first_is_packed_anew_at_the_site_of_its_raw_files(far: Observatory) -> None:
    far.add_route("ccat/buffer", "cologne/lta", RouteType.CUSTOM)
    far.add_location("us/buffer", LocationType.BUFFER)
    far.add_location("us/lta", LocationType.LONG_TERM_ARCHIVE)
    far.add_route("cologne", "us")
    with transaction(far.engine) as session:
        find(session, LOCATION, "us/lta").priority = -1
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=2))
    package_id = far.observe(FILES)
    far.do_all()
    assert far.one(models.DataTransfer).origin_id == far.location_id("cologne/buffer")
    lose_all_tars(far, package_id)
    with transaction(far.engine) as session:
        assert replicate(session, [package_id], by="a test") == 1
    with away(far.directory("cologne/buffer")):  # as nobody at the telescope sees it
        assert [far.do(Operation.PACKING), far.do(Operation.ARCHIVING)] == [1, 1]
    assert far.copies(package_id)["cologne/lta"].status is PhysicalCopyStatus.PRESENT


def lose_all_tars(observatory: Observatory, package_id: int) -> None:
    ids = [copy.id for copy in observatory.copies(package_id).values()]
    with transaction(observatory.engine) as session:
        advance(session, models.PhysicalCopy, ids, to=PhysicalCopyStatus.MISSING, because="a test", by="a test")


@contextmanager
def away(directory: Path) -> Iterator[None]:
    directory.rename(directory.with_name("away"))
    yield
    directory.with_name("away").rename(directory)
