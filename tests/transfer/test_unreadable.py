"""Copies that cannot be read, while others at their location can, wait for their turn and do not count in the end."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs import scrubbing
from ccat_data_transfer.verbs.scrubbing import due_for_scrubbing, scrub
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import AlertKind, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.restoring import trust_no_archive
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory, say
from tests.transfer.test_replication import check_copy, forget_looks, make_old
from tests.transfer.test_troubles import forbidden, gone

FILES = {"a.fits": b"a" * 3000}
ARCHIVE, BUFFER = "cologne/lta", "cologne/buffer"
SOUND, CORRUPT = PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.CORRUPT


def archive(far: Observatory) -> int:
    package_id = far.observe(FILES)
    far.do_all()
    return package_id


def copy_of(far: Observatory, package_id: int) -> models.PhysicalCopy:
    return far.copies(package_id)[ARCHIVE]


def tar_of(far: Observatory, package_id: int) -> Path:
    return far.directory(ARCHIVE) / copy_of(far, package_id).path


def read(far: Observatory, package_id: int, *, trouble: AbstractContextManager[object] | None = None) -> bool:
    """Read a copy whose pause is over; whether it counts after that."""
    copy_id = copy_of(far, package_id).id
    with transaction(far.engine) as session:
        session.execute(sa.update(table_of(models.PhysicalCopy)).values(not_before=None))
    with trouble or nullcontext():
        scrub(far.worker, [copy_id])
    copy = copy_of(far, package_id)
    assert copy.claimed_by is None
    return copy.verified_at is not None


def due(far: Observatory) -> list[int]:
    with transaction(far.engine) as session:
        found = due_for_scrubbing(session, far.location_id(ARCHIVE))
    forget_looks(far)
    return found


def told(far: Observatory) -> list[str]:
    with transaction(far.engine) as session:
        found = [one for one in conditions(session, late=START) if one.kind is AlertKind.LOST_COPY]
    return [one.sentence for one in found]


def test_what_cannot_be_read_keeps_nothing_behind_it_waiting(far: Observatory, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = archive(far), archive(far)
    make_old(far, days=181)
    with transaction(far.engine) as session:
        session.execute(
            sa.update(table_of(models.PhysicalCopy))
            .where(table_of(models.PhysicalCopy).c.id == copy_of(far, first).id)
            .values(verified_at=START)
        )
    monkeypatch.setattr(scrubbing, "_MOST", 1)
    assert due(far) == [copy_of(far, first).id]
    assert read(far, first, trouble=forbidden(tar_of(far, first)))
    assert due(far) == [copy_of(far, second).id]
    unread = copy_of(far, first)
    assert (unread.status, unread.trouble_count) == (SOUND, 1)
    assert unread.not_before is not None
    assert "Permission denied" in (unread.failure or "")


def test_the_last_copy_that_cannot_be_read_counts_no_more_and_people_are_told_until_it_can(far: Observatory) -> None:
    archive(far)
    package_id = archive(far)
    far.lose_all_but_archives(package_id)
    trouble = forbidden(tar_of(far, package_id))
    with trouble:
        counted = [read(far, package_id) for _ in range(4)]
    assert counted == [True, True, False, False]
    assert copy_of(far, package_id).status is SOUND, "it may be read one day"
    [sentence] = told(far)
    assert sentence.startswith(f"1 copy cannot be read at {ARCHIVE}, such as raw/")
    assert "while others there can: Location cologne/lta" in sentence
    status = say(far, "transfer", "status")
    assert "1 copy to be read before they count" in status
    with transaction(far.engine) as session, pytest.raises(sa.exc.IntegrityError, match="is kept"):
        session.execute(
            sa.update(table_of(models.PhysicalCopy))
            .where(table_of(models.PhysicalCopy).c.raw_data_file_id.is_not(None))
            .values(status="deletion_in_progress")
        )

    assert read(far, package_id)
    assert (copy_of(far, package_id).trouble_count, copy_of(far, package_id).failure, told(far)) == (0, None, [])


def test_what_cannot_be_read_is_made_anew_of_what_is_sound(far: Observatory) -> None:
    package_id = archive(far)
    with forbidden(tar_of(far, package_id)):
        assert [read(far, package_id) for _ in range(2)] == [True, True]
        read(far, package_id)
    assert copy_of(far, package_id).status is CORRUPT
    far.do_all()
    check_copy(far, package_id, ARCHIVE)
    assert read(far, package_id)


def test_of_two_that_cannot_be_read_one_stays_for_the_day_that_it_can(two_archives: Observatory) -> None:
    package_id = archive(two_archives)
    two_archives.lose_all_but_archives(package_id)
    copies = two_archives.copies(package_id)
    places = (ARCHIVE, "us/lta")
    with ExitStack() as troubles:
        for place in places:
            troubles.enter_context(forbidden(two_archives.directory(place) / copies[place].path))
        for _ in range(4):
            scrub(two_archives.worker, [copies[place].id for place in places])
            with transaction(two_archives.engine) as session:
                session.execute(sa.update(table_of(models.PhysicalCopy)).values(not_before=None))
    found = two_archives.copies(package_id)
    assert [found[place].status for place in places] == [CORRUPT, SOUND]
    two_archives.do_all()
    assert {two_archives.copies(package_id)[place].status for place in places} == {SOUND}, "it is made anew in the end"


@pytest.mark.parametrize("has_raw_files", [True, False])
def test_two_that_cannot_be_read_and_were_not_verified_are_made_anew_of_raw_files_only(
    two_archives: Observatory, *, has_raw_files: bool
) -> None:
    package_id, places = archive(two_archives), (ARCHIVE, "us/lta")
    if not has_raw_files:
        two_archives.lose_all_but_archives(package_id)
    copies = two_archives.copies(package_id)
    lost = [copy.id for place, copy in copies.items() if place not in places]
    with transaction(two_archives.engine) as session:
        to = PhysicalCopyStatus.MISSING
        advance(session, models.PhysicalCopy, lost, to=to, because="a test", by="a test")
        assert trust_no_archive(session) == len(places)
    with ExitStack() as troubles:
        for place in places:
            troubles.enter_context(forbidden(two_archives.directory(place) / copies[place].path))
        for _ in range(3):
            scrub(two_archives.worker, [copies[place].id for place in places])
            with transaction(two_archives.engine) as session:
                session.execute(sa.update(table_of(models.PhysicalCopy)).values(not_before=None))
        found = two_archives.copies(package_id)
    assert [found[place].status for place in places] == ([CORRUPT, CORRUPT] if has_raw_files else [SOUND, SOUND])
    two_archives.do_all()
    for place in places:
        check_copy(two_archives, package_id, place)


def test_another_archive_is_used_where_a_tar_cannot_be_read(two_archives: Observatory) -> None:
    package_id = archive(two_archives)
    two_archives.request_staging([package_id])
    with forbidden(tar_of(two_archives, package_id)):
        two_archives.do(Operation.STAGING)
        assert (copy_of(two_archives, package_id).status, copy_of(two_archives, package_id).verified_at) == (
            SOUND,
            None,
        )
        assert "cannot be read (Permission denied)" in (two_archives.one(models.StagingJob).failure or "")
        two_archives.do(Operation.STAGING)
    assert two_archives.one(models.StagingJob).status is Status.COMPLETED
    assert two_archives.copies(package_id)["cologne/ramses"].status is PhysicalCopyStatus.STAGED


def test_nothing_is_held_against_a_copy_while_its_archive_is_away(far: Observatory) -> None:
    package_id = archive(far)
    with gone(far.directory(ARCHIVE)):
        assert [read(far, package_id) for _ in range(4)] == [True] * 4
    copy = copy_of(far, package_id)
    assert (copy.status, copy.trouble_count) == (SOUND, 0)
    assert copy.not_before is not None


def test_nothing_is_held_against_a_copy_while_nothing_else_of_its_archive_can_be_read(far: Observatory) -> None:
    package_id, other = archive(far), archive(far)
    with forbidden(far.directory(ARCHIVE) / "raw"):
        assert [read(far, package_id) for _ in range(4)] == [True] * 4
    assert copy_of(far, package_id).trouble_count == copy_of(far, other).trouble_count == 0


@pytest.fixture
def reductions(observatory: Observatory) -> Iterator[Reductions]:
    made = Reductions(observatory)
    yield made
    made.end()


def test_an_archived_product_that_cannot_be_read_is_archived_anew_from_where_it_was_made(
    reductions: Reductions,
) -> None:
    run_id = reductions.make({"science/map.fits": b"m" * 1000, "science/cube.zarr/0.0": b"zero"})
    reductions.archive()
    observatory = reductions.observatory
    copies = reductions.copies(run_id, ARCHIVE)
    cube = copies["science/cube.zarr"]
    with forbidden(observatory.directory(ARCHIVE) / cube.path / "0.0"):
        for _ in range(3):
            scrub(observatory.worker, [one.id for one in copies.values()])
            with transaction(observatory.engine) as session:
                session.execute(sa.update(table_of(models.PhysicalCopy)).values(not_before=None))
    found = reductions.copies(run_id, ARCHIVE)
    assert {path: one.status for path, one in found.items()} == {
        "science/map.fits": SOUND,
        "science/cube.zarr": CORRUPT,
    }
    reductions.archive()
    assert {one.status for one in reductions.copies(run_id, ARCHIVE).values()} == {SOUND}


def test_what_could_not_be_read_and_may_go_goes_at_once_and_holds_up_no_other(far: Observatory) -> None:
    """Its pause was until it is read again, and not until it is removed."""
    package_ids = [archive(far), archive(far)]
    copies = [far.copies(package_id)[BUFFER] for package_id in package_ids]
    with forbidden(far.directory(BUFFER) / copies[0].path):
        scrub(far.worker, [copies[0].id])
    unread = far.one(models.PhysicalCopy, id=copies[0].id)
    assert (unread.status, unread.trouble_count) == (SOUND, 1)
    assert unread.not_before is not None
    far.keep(BUFFER, days=0)
    assert far.mark(BUFFER) == 2
    marked = far.one(models.PhysicalCopy, id=copies[0].id)
    assert (marked.not_before, marked.trouble_count, marked.failure) == (None, 0, None)
    assert far.schedule_deletions(BUFFER) == sorted(copy.id for copy in copies)


def test_a_night_that_was_moved_behind_a_link_is_not_condemned_and_counts_no_more_until_it_is_back(
    far: Observatory,
) -> None:
    archive(far)
    package_id = archive(far)
    tar = tar_of(far, package_id)
    moved = far.root / "other disk"
    tar.rename(moved)
    tar.symlink_to(moved)
    counted = [read(far, package_id) for _ in range(4)]
    assert (counted, copy_of(far, package_id).status) == ([True, True, False, False], SOUND)
    [sentence] = told(far)
    assert f"Location {ARCHIVE} ({tar}) leads out of the location's directory: nothing is read or written" in sentence
    assert "move back what is behind it, or mount that in place of the link" in sentence
    assert far.observe({"later.fits": b"later"})
    far.do_all()
    tar.unlink()
    moved.rename(tar)
    assert read(far, package_id)
    assert (copy_of(far, package_id).status, told(far)) == (SOUND, [])
