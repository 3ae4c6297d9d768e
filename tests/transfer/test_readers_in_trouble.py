"""What its own location reads and finds right is not doubted again by whoever cannot have it: the trouble is theirs."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from math import log2

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ccat_data_transfer.doubts import is_believed
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.products.plan import Source, fetch_from
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import LocationType, Mover, PhysicalCopyStatus, Status
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory
from tests.transfer.test_brought_in_vain import ARCHIVE, FAR, HOME, in_doubt, on_bad_disk, told
from tests.transfer.test_fetching import (
    DIRECT,
    FILES,
    archived,
    ask,
    check,
    damage,
    doubtful,
    fetch,
    source,
    unread,
)
from tests.transfer.test_product_routes import FILES as MADE
from tests.transfer.test_product_routes import check_archived, make
from tests.transfer.test_troubles import forbidden
from tests.transfer.test_unreadable import archive, tar_of

STAGED = PhysicalCopyStatus.STAGED
FOUND_RIGHT = "found right there"


@pytest.fixture
def sites(far: Observatory) -> Iterator[Reductions]:
    """Products are made in Cologne, where the archive is, and are wanted in the US."""
    far.add_location(FAR, LocationType.PROCESSING)
    made = Reductions(far)
    yield made
    made.end()


def pending(observatory: Observatory) -> str:
    """What the one staging job that goes on says."""
    job = observatory.one(models.StagingJob)
    assert job.status is Status.PENDING
    return job.failure or ""


def age(observatory: Observatory, **by: float) -> None:
    """Let everything that was read, or could not be, have been so longer ago."""
    ago = timedelta(**by)
    with transaction(observatory.engine) as session:
        for noun, column in ((models.PhysicalCopy, "verified_at"), (models.StagingJob, "doubts_since")):
            table = table_of(noun)
            session.execute(sa.update(table).values({column: table.c[column] - ago}))


# A permission of the host that stages


def test_a_tar_that_one_host_may_not_read_is_read_once_in_its_archive_and_the_host_is_told_of(far: Observatory) -> None:
    package_id = archive(far)
    far.request_staging([package_id])
    readings = []
    for _ in range(5):
        assert told(far, f"staged in vain {HOME}") == []
        with forbidden(tar_of(far, package_id)):
            far.do(Operation.STAGING)
        readings.append(far.read_again())
    assert readings == [1, 0, 0, 0, 0]
    assert far.copies(package_id)[ARCHIVE].verified_at is not None
    said = pending(far)
    assert "cannot be read (Permission denied)" in said
    assert f"where it lies it was read since, and {FOUND_RIGHT}" in said
    assert "what worker may read" in said
    [sentence] = told(far, f"staged in vain {HOME}")
    assert said in sentence
    far.do(Operation.STAGING)
    assert far.copies(package_id)[HOME].status is STAGED


def test_another_archive_is_used_though_the_first_was_read_meanwhile_and_is_sound(two_archives: Observatory) -> None:
    package_id = archive(two_archives)
    two_archives.request_staging([package_id])
    with forbidden(tar_of(two_archives, package_id)):
        two_archives.do(Operation.STAGING)
    assert two_archives.read_again() == 1
    with forbidden(tar_of(two_archives, package_id)):
        two_archives.do(Operation.STAGING)
    assert two_archives.copies(package_id)[HOME].status is STAGED


def test_where_no_archive_can_be_read_each_is_read_where_it_lies_once(two_archives: Observatory) -> None:
    package_id = archive(two_archives)
    two_archives.request_staging([package_id])
    tars = [two_archives.directory(one) / two_archives.copies(package_id)[one].path for one in (ARCHIVE, "us/lta")]
    readings = []
    for _ in range(6):
        with forbidden(tars[0]), forbidden(tars[1]):
            two_archives.do(Operation.STAGING)
        readings.append(two_archives.read_again())
    assert sorted(readings) == [0, 0, 0, 0, 1, 1]
    assert FOUND_RIGHT in pending(two_archives)


def test_what_becomes_bad_later_is_found_out_all_the_same(far: Observatory) -> None:
    package_id = archive(far)
    far.request_staging([package_id])
    for _ in range(2):
        with forbidden(tar_of(far, package_id)):
            far.do(Operation.STAGING)
        far.read_again()
    assert FOUND_RIGHT in pending(far)
    age(far, days=2)
    with forbidden(tar_of(far, package_id)):
        far.do(Operation.STAGING)
        assert far.copies(package_id)[ARCHIVE].verified_at is None
    damage(tar_of(far, package_id))
    assert far.read_again() == 1
    assert far.copies(package_id)[ARCHIVE].status is PhysicalCopyStatus.CORRUPT


# A bad disk that products come to


def test_products_that_a_bad_disk_spoils_are_read_once_where_they_lie(sites: Reductions) -> None:
    far, run_id = sites.observatory, archived(sites)
    far.add_route("cologne", "us", method=Mover.RSYNC)
    ask(sites, run_id, FAR)
    on_bad_disk(far, Operation.STAGING)
    assert in_doubt(sites, run_id, ARCHIVE) == {True}
    assert far.read_again() == len(FILES) + 1
    on_bad_disk(far, Operation.STAGING)
    assert in_doubt(sites, run_id, ARCHIVE) == {False}
    with transaction(sites.engine) as session:
        said = session.scalars(sa.select(models.StagingJob.failure)).all()
    assert all(FOUND_RIGHT in (one or "") and "its disk" in (one or "") for one in said)
    assert {job.status for job in fetch(sites, run_id, FAR)} == {Status.COMPLETED}
    check(sites, run_id, FAR)


def test_products_go_over_the_buffer_that_spoils_them_with_one_reading_where_they_were_made(far: Observatory) -> None:
    far.add_location(FAR, LocationType.PROCESSING)
    maps = Reductions(far, FAR)
    run_id = make(maps)
    far.add_route("us", "cologne", method=Mover.RSYNC)
    far.aim()
    readings = []
    for _ in range(3):
        on_bad_disk(far, Operation.TRANSFERRING_PRODUCTS)
        readings.append(far.read_again())
    assert readings == [len(MADE), 0, 0]
    [waiting] = maps.transfers(run_id)
    assert FOUND_RIGHT in (waiting.failure or "")
    maps.archive()
    check_archived(maps, run_id)
    assert maps.transfers(run_id)[0].doubts_since is None
    maps.end()


# The rules


def refused(number: int, site: int) -> Source:
    return replace(source(number, site), is_refused=True)


@pytest.mark.parametrize(
    ("sources", "chosen"),
    [
        ([refused(1, 7), source(2, 8)], source(2, 8)),
        ([refused(1, 7), unread(2, 8)], unread(2, 8)),
        ([refused(1, 7), doubtful(2, 7)], refused(1, 7)),
        ([refused(1, 7), refused(2, 8)], refused(1, 7)),
        ([refused(1, 7), source(2, 9)], refused(1, 7)),
    ],
    ids=["another", "one never read", "rather than one in doubt", "the nearest of them", "where nothing else is"],
)
def test_what_somebody_could_not_have_is_taken_after_what_was_not_tried(sources: list[Source], chosen: Source) -> None:
    found = fetch_from(sources, 7, seen=(), routes=[DIRECT])
    assert found is not None
    assert found.source == chosen


@given(tries=st.lists(st.integers(1, 30 * 24 * 60), min_size=1, max_size=300))
def test_a_sound_copy_is_read_for_who_cannot_have_it_after_a_day_then_two_then_four(tries: list[int]) -> None:
    """Whatever the pauses between the tries, in minutes, and though each reading is over at once."""
    since = START
    now = read_at = since + timedelta(seconds=1)
    readings = 1
    for pause in tries:
        now += timedelta(minutes=pause)
        if not is_believed(read_at, since=since, now=now):
            assert now - read_at >= timedelta(days=1)
            read_at, readings = now, readings + 1
    assert readings <= 2 + log2(max(1, (now - since) / timedelta(days=1)))


def test_what_was_read_before_somebody_could_not_have_it_is_doubted() -> None:
    assert not is_believed(START, since=START, now=START)
    assert not is_believed(START - timedelta(days=1), since=START, now=START)
