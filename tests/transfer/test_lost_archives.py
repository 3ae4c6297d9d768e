"""An archive that does not come back: others are read, and its copies are made anew, at once if a person says so."""

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.probing import probe
from ccat_data_transfer.verbs.products.plan import fetch_from
from ccat_data_transfer.verbs.products.repairing import archive_lost
from ccat_data_transfer.verbs.replicating import replicate
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.queries.unread import unreadable_archives
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, LocationType, PhysicalCopyStatus, ProductState, Status
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory, say
from tests.transfer.test_fetching import doubtful, source
from tests.transfer.test_replication import look_again, read_again

FILES = {"a.fits": b"a" * 3000, "b.fits": b"b"}
FIRST, SECOND, THIRD = "cologne/lta", "cologne/second", "cologne/third"
MISSING, SOUND = PhysicalCopyStatus.MISSING, PhysicalCopyStatus.PRESENT


@pytest.fixture
def archives(observatory: Observatory) -> Observatory:
    """Three archives at one site, the first preferred; raw data want two copies."""
    for name in (SECOND, THIRD):
        observatory.add_location(name, LocationType.LONG_TERM_ARCHIVE)
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=2))
        for priority, name in enumerate((THIRD, SECOND, FIRST)):
            find(session, LOCATION, name).priority = priority
    return observatory


def archive(archives: Observatory) -> int:
    package_id = archives.observe(FILES)
    archives.do_all()
    assert archived_at(archives, package_id) == {FIRST, SECOND}
    return package_id


def archived_at(archives: Observatory, package_id: int) -> set[str]:
    sound = {name for name, copy in archives.copies(package_id).items() if copy.status is SOUND}
    return sound & {FIRST, SECOND, THIRD}


def burn_down(archives: Observatory, name: str, *, days: float = 0) -> None:
    """It is gone, as its workers say, since so many days."""
    shutil.rmtree(archives.directory(name))
    probe(archives.engine, archives.location_id(name), by="worker")
    with transaction(archives.engine) as session:
        location = models.DataLocation
        gone = sa.update(location).where(location.unreadable.is_not(None))
        session.execute(gone.values(unreadable_since=location.unreadable_since - timedelta(days=days)))


@pytest.mark.parametrize(("days", "asked"), [(6, 0), (8, 1)])
def test_what_an_archive_has_that_is_away_for_long_is_made_anew_in_another(
    archives: Observatory, days: int, asked: int
) -> None:
    package_id = archive(archives)
    burn_down(archives, FIRST, days=days)
    assert look_again(archives) == asked
    archives.do_all()
    assert archived_at(archives, package_id) == {FIRST, SECOND, *([THIRD] if asked else [])}


def test_another_copy_is_made_of_one_that_can_be_read(archives: Observatory) -> None:
    package_id = archive(archives)
    archives.lose_all_but_archives(package_id)
    burn_down(archives, FIRST, days=8)
    assert look_again(archives) == 1
    archives.do_all()
    assert {one.status for one in archives.transfers()} == {Status.COMPLETED}
    assert THIRD in archived_at(archives, package_id)


def test_a_package_is_staged_from_an_archive_that_can_be_read(archives: Observatory) -> None:
    package_id = archive(archives)
    burn_down(archives, FIRST)
    archives.request_staging([package_id])
    assert archives.do(Operation.STAGING) == 1
    job = archives.one(models.StagingJob)
    assert (job.status, job.failure) == (Status.COMPLETED, None)


def test_what_would_be_lost_is_told_and_nothing_is_done(archives: Observatory) -> None:
    package_id = archive(archives)
    told = say(archives, "location", "lost", FIRST, "--because", "fire")
    assert f"{FIRST} has 1 copy, of these 0 of raw files. Of the others 0 are the only sound one" in told
    assert "It cannot be undone" in told
    assert archived_at(archives, package_id) == {FIRST, SECOND}
    probe(archives.engine, archives.location_id(FIRST), by="worker")
    assert f"WARNING: a worker saw {FIRST} at " in say(archives, "location", "lost", FIRST, "--because", "fire")
    burn_down(archives, FIRST)
    assert "WARNING" not in say(archives, "location", "lost", FIRST, "--because", "fire")


def test_what_was_in_a_lost_archive_is_made_anew_in_another(archives: Observatory) -> None:
    package_id = archive(archives)
    burn_down(archives, FIRST)
    told = say(archives, "location", "lost", FIRST, "--because", "fire", "--yes")
    assert f"{FIRST} is lost: 1 copy is missing, and nothing new is put there" in told
    copy = archives.copies(package_id)[FIRST]
    assert (copy.status, copy.verified_at) == (MISSING, None)
    assert look_again(archives) == 1
    archives.do_all()
    assert archived_at(archives, package_id) == {SECOND, THIRD}
    with transaction(archives.engine) as session:
        assert not find(session, LOCATION, FIRST).active
        last = session.scalars(sa.select(models.StatusChange).filter_by(object_id=copy.id, to_status="missing")).one()
        assert last.because == "lost with its location: fire"


def test_nobody_is_told_to_declare_what_is_declared_lost(archives: Observatory) -> None:
    archive(archives)
    burn_down(archives, FIRST, days=1)
    with transaction(archives.engine) as session:
        assert [one.key for one in unreadable_archives(session)] == [f"location {archives.location_id(FIRST)} unread"]
        location = find(session, LOCATION, FIRST)
        location.trouble, location.space_checked_at = "It cannot be written.", sa.func.clock_timestamp()
    say(archives, "location", "lost", FIRST, "--because", "fire", "--yes")
    for _ in range(2):
        with transaction(archives.engine) as session:
            assert list(unreadable_archives(session)) == []
            assert find(session, LOCATION, FIRST).trouble is None
        probe(archives.engine, archives.location_id(FIRST), by="worker")


def test_the_last_copies_are_counted(archives: Observatory) -> None:
    package_id = archive(archives)
    archives.lose_all_but_archives(package_id)
    for name, last in ((SECOND, 0), (FIRST, 1)):
        words = ("location", "lost", name, "--because", "fire", "--yes", "--json")
        told = json.loads(say(archives, *words))
        assert (told["copies"], told["last"], told["missing"]) == (1, last, 1)


def test_what_was_being_deleted_in_a_lost_archive_is_missing_too(archives: Observatory) -> None:
    archive(archives)
    archives.keep("ccat/buffer", days=0)
    archives.mark("ccat/buffer")
    [copy_id] = archives.schedule_deletions("ccat/buffer")
    say(archives, "location", "lost", "ccat/buffer", "--because", "fire", "--yes")
    assert archives.one(models.PhysicalCopy, id=copy_id).status is MISSING


def test_a_copy_whose_location_is_away_is_taken_where_there_is_no_other() -> None:
    away, far = source(1, 7, is_away=True), source(2, 7, LocationType.LONG_TERM_ARCHIVE)
    assert fetch_from([away, far], 7, seen=(), routes=()) is not None
    found = [fetch_from(some, 7, seen=(), routes=()) for some in ([away, far], [away], [away, doubtful(3, 7)])]
    assert [one.source.copy_id for one in found if one] == [2, 1, 1]


def test_replicating_asks_for_nothing_that_an_archive_has_which_is_only_put_out_of_use(archives: Observatory) -> None:
    """One that is full takes nothing new, and has what it has."""
    package_id = archive(archives)
    with transaction(archives.engine) as session:
        find(session, LOCATION, FIRST).active = False
        assert replicate(session, [package_id], by="a test") == 0


def lose(archives: Observatory, name: str) -> None:
    say(archives, "location", "lost", name, "--because", "fire", "--yes")


def go_round(archives: Observatory) -> None:
    """A whole round of looks at all packages, whatever the last one was about."""
    for _ in range(3):
        look_again(archives)


def troubles(archives: Observatory) -> list[str]:
    with transaction(archives.engine) as session:
        return [one.sentence for one in conditions(session, late=START) if one.kind is AlertKind.LOST_COPY]


def damage_told(archives: Observatory) -> list[object]:
    return list(json.loads(say(archives, "transfer", "damage", "--json")))


def test_nobody_is_told_of_what_a_lost_archive_had_once_as_many_others_have_it_as_are_wanted(
    archives: Observatory,
) -> None:
    package_id = archive(archives)
    copy_id = archives.copies(package_id)[FIRST].id
    lose(archives, FIRST)
    assert look_again(archives) == 1
    [sentence] = troubles(archives)
    assert sentence.startswith(f"1 archive copy is damaged or gone at {FIRST}")
    assert archives.one(models.PhysicalCopy, id=copy_id).status is MISSING
    archives.do_all()
    go_round(archives)
    assert archives.one(models.PhysicalCopy, id=copy_id).status is PhysicalCopyStatus.DELETED
    assert (troubles(archives), damage_told(archives)) == ([], [])
    assert '"damage": []' in say(archives, "transfer", "status", "--json")
    assert "lost since 20" in say(archives, "locations")


def test_what_no_other_archive_can_have_is_told_of_for_ever(archives: Observatory) -> None:
    package_id = archive(archives)
    lose(archives, THIRD)
    lose(archives, FIRST)
    go_round(archives)
    assert archives.copies(package_id)[FIRST].status is MISSING
    assert len(troubles(archives)) == 1


@pytest.mark.parametrize("change", [{"verified_at": None}, {"checksum": f"sha256:{'1' * 64}"}])
def test_a_copy_that_was_not_read_back_replaces_none(archives: Observatory, change: dict[str, object]) -> None:
    package_id = archive(archives)
    lose(archives, FIRST)
    look_again(archives)
    archives.do_all()
    with transaction(archives.engine) as session:
        copy = session.get_one(models.PhysicalCopy, archives.copies(package_id)[SECOND].id)
        before = {column: getattr(copy, column) for column in change}
        session.execute(sa.update(models.PhysicalCopy).filter_by(id=copy.id).values(change))
    go_round(archives)
    assert archives.copies(package_id)[FIRST].status is MISSING
    with transaction(archives.engine) as session:
        session.execute(sa.update(models.PhysicalCopy).filter_by(id=copy.id).values(before))
    go_round(archives)
    assert FIRST not in archives.copies(package_id)


def test_what_was_damaged_before_its_archive_was_lost_stays_in_the_list_of_damage(archives: Observatory) -> None:
    package_id = archive(archives)
    tar = archives.directory(FIRST) / archives.copies(package_id)[FIRST].path
    tar.chmod(0o600)
    tar.write_bytes(b"rot")
    read_again(archives, package_id)
    lose(archives, FIRST)
    look_again(archives)
    archives.do_all()
    go_round(archives)
    assert archived_at(archives, package_id) == {SECOND, THIRD}
    assert FIRST not in archives.copies(package_id), "nothing is left to be removed there"
    assert len(damage_told(archives)) == 1


def test_what_was_lost_in_a_buffer_is_nobodys_any_more(archives: Observatory) -> None:
    archive(archives)
    lose(archives, "ccat/buffer")
    go_round(archives)
    at_buffer = {"data_location_id": archives.location_id("ccat/buffer")}
    with transaction(archives.engine) as session:
        found = session.scalars(sa.select(models.PhysicalCopy.status).filter_by(**at_buffer)).all()
    assert set(found) == {PhysicalCopyStatus.DELETED}


def test_a_location_that_is_used_again_is_lost_no_more(archives: Observatory) -> None:
    lose(archives, FIRST)
    say(archives, "location", "set", FIRST, "--active")
    with transaction(archives.engine) as session:
        assert find(session, LOCATION, FIRST).lost_at is None


def test_what_was_restored_in_an_archive_that_takes_nothing_new_is_believed_and_what_is_lost_is_not(
    archives: Observatory,
) -> None:
    package_id = archive(archives)
    tar = archives.directory(FIRST) / archives.copies(package_id)[FIRST].path
    saved = tar.rename(archives.directory(FIRST).parent / "saved")
    read_again(archives, package_id)
    say(archives, "location", "set", FIRST, "--inactive")
    saved.rename(tar)
    say(archives, "package", "retry", str(package_id))
    assert archives.copies(package_id)[FIRST].status is SOUND
    lose(archives, FIRST)
    say(archives, "package", "retry", str(package_id), code=1)
    assert archives.copies(package_id)[FIRST].status is MISSING


@pytest.fixture
def reductions(archives: Observatory) -> Iterator[Reductions]:
    made = Reductions(archives)
    yield made
    made.end()


@pytest.mark.parametrize("counts", [True, False])
def test_what_a_lost_archive_had_of_products_is_closed_once_another_has_it_or_nobody_wants_it(
    reductions: Reductions, *, counts: bool
) -> None:
    observatory = reductions.observatory
    run_id = reductions.make(FILES)
    reductions.archive()
    assert len(reductions.copies(run_id, FIRST)) == len(FILES)
    lose(observatory, FIRST)
    go_round(observatory)
    assert len(reductions.copies(run_id, FIRST)) == len(FILES)
    assert len(troubles(observatory)) == 1
    with transaction(observatory.engine) as session:
        if counts:
            assert len(archive_lost(session)) == 1
        else:
            ids = session.scalars(sa.select(models.DataProduct.id)).all()
            advance(session, models.DataProduct, ids, to=ProductState.SUPERSEDED, because="a test", by="a test")
    reductions.archive()
    go_round(observatory)
    assert (reductions.copies(run_id, FIRST), troubles(observatory)) == ({}, [])
    assert len(reductions.copies(run_id, SECOND)) == (len(FILES) if counts else 0)
