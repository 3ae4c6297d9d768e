"""A location is declared lost while others work there, or the command dies: from the first moment nothing counts."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs import archiving, discarding, packing, scrubbing
from ccat_data_transfer.verbs.closing import replace_lost
from ccat_data_transfer.verbs.readdressing import readdress
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus, Status
from ccat_ops_db.verbs import losing
from ccat_ops_db.verbs.losing import lose_location
from tests.transfer.reductions import Reductions
from tests.transfer.support import Observatory, say
from tests.transfer.test_lost_archives import (
    FILES,
    FIRST,
    MISSING,
    SECOND,
    SOUND,
    archived_at,
    archives,  # noqa: F401 - a fixture
    burn_down,
    damage_told,
    go_round,
    lose,
    troubles,
)
from tests.transfer.test_replication import look_again, want_copies

SOURCE, BUFFER, STAGED = "ccat/chai_raw_data", "ccat/buffer", "cologne/ramses"
CORRUPT = PhysicalCopyStatus.CORRUPT


@pytest.fixture
def one_copy(archives: Observatory) -> Observatory:  # noqa: F811 - as above
    """Raw data want one copy; three archives are there."""
    want_copies(archives, 1)
    return archives


@pytest.fixture
def reductions(one_copy: Observatory) -> Iterator[Reductions]:
    made = Reductions(one_copy)
    yield made
    made.end()


def before(monkeypatch: pytest.MonkeyPatch, place: object, name: str, happens: Callable[[], object]) -> None:
    """Once, something happens right after a step, which others do not see."""
    step = getattr(place, name)

    def stepped(*given: object) -> object:
        monkeypatch.setattr(place, name, step)
        found = step(*given)
        happens()
        return found

    monkeypatch.setattr(place, name, stepped)


def begin_to_delete(session: Session, copy_id: int, *steps: str) -> None:
    for step in steps:
        to = PhysicalCopyStatus(f"deletion_{step}")
        assert advance(session, models.PhysicalCopy, [copy_id], to=to, because="a test", by="a test")


def let_go(observatory: Observatory, *names: str) -> Sequence[int]:
    for name in names:
        observatory.keep(name, days=0)
    return [observatory.make_room(name) for name in names]


def manage(observatory: Observatory) -> None:
    """What the manager does of its own accord, until nothing more is to be done."""
    for _ in range(4):
        observatory.recover()
        with transaction(observatory.engine) as session:
            replace_lost(session, by="manager")
            readdress(session, by="manager")
        go_round(observatory)
        observatory.do_all()


def test_from_the_first_moment_nothing_goes_for_the_sake_of_a_lost_archive_also_where_the_command_dies(
    one_copy: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_id = one_copy.observe(FILES)
    one_copy.do_all()
    assert archived_at(one_copy, package_id) == {FIRST}
    burn_down(one_copy, FIRST)

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(losing, "_lose_some", dies)
        with pytest.raises(KeyboardInterrupt):
            lose_location(one_copy.engine, FIRST, because="fire", by="Ann")
    assert one_copy.copies(package_id)[FIRST].status is SOUND, "nobody has called it missing yet"
    assert let_go(one_copy, SOURCE, BUFFER) == [0, 0]
    manage(one_copy)
    assert archived_at(one_copy, package_id) == {SECOND}
    with transaction(one_copy.engine) as session:
        told = session.scalars(sa.select(models.StatusChange).filter_by(to_status="missing")).one()
    assert told.because == "lost with its location: fire (Ann)"
    assert let_go(one_copy, SOURCE, BUFFER) == [2, 1]
    assert (troubles(one_copy), damage_told(one_copy)) == ([], [])


def test_what_is_archived_while_its_archive_is_lost_is_archived_in_another(
    one_copy: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_id = one_copy.observe(FILES)
    one_copy.do(Operation.PACKING)
    before(monkeypatch, archiving, "_copy", partial(lose, one_copy, FIRST))
    one_copy.do(Operation.ARCHIVING)
    shutil.rmtree(one_copy.directory(FIRST))
    assert one_copy.package(package_id).state is not PackageState.ARCHIVED
    manage(one_copy)
    assert one_copy.package(package_id).state is PackageState.ARCHIVED
    assert archived_at(one_copy, package_id) == {SECOND}
    assert FIRST not in one_copy.copies(package_id), "what was begun there is closed"


def test_what_is_packed_while_its_buffer_is_lost_is_packed_in_another(
    one_copy: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_copy.add_location("ccat/other", LocationType.BUFFER)
    package_id = one_copy.observe(FILES)
    before(monkeypatch, packing, "_write", partial(lose, one_copy, BUFFER))
    one_copy.do(Operation.PACKING)
    shutil.rmtree(one_copy.directory(BUFFER))
    manage(one_copy)
    assert one_copy.package(package_id).state is PackageState.ARCHIVED
    assert one_copy.copies(package_id)["ccat/other"].status is SOUND


def test_a_copy_that_comes_to_be_where_all_is_lost_is_lost_too(one_copy: Observatory) -> None:
    package_id = one_copy.observe(FILES)
    one_copy.do_all()
    lose(one_copy, FIRST)
    with transaction(one_copy.engine) as session:
        lost = one_copy.copies(package_id)[FIRST]
        late = models.RawDataPackagePhysicalCopy(
            **{name: getattr(lost, name) for name in ("raw_data_package_id", "data_location_id", "path", "checksum")},
            status=SOUND,
            verified_at=sa.func.now(),
        )
        advance(session, models.PhysicalCopy, [lost.id], to=PhysicalCopyStatus.DELETED, because="a test", by="a test")
        session.add(late)
    assert let_go(one_copy, SOURCE, BUFFER) == [0, 0]
    with transaction(one_copy.engine) as session:
        assert replace_lost(session, by="manager") == 1
        assert replace_lost(session, by="manager") == 0
    assert one_copy.copies(package_id)[FIRST].status is MISSING
    one_copy.do_all()
    assert archived_at(one_copy, package_id) == {SECOND}


@pytest.mark.parametrize("is_gone", [True, False])
def test_products_that_were_to_go_to_a_lost_archive_go_to_another(reductions: Reductions, *, is_gone: bool) -> None:
    observatory = reductions.observatory
    run_id = reductions.make(FILES)
    observatory.aim()
    [transfer] = reductions.transfers(run_id)
    assert transfer.destination_id == observatory.location_id(FIRST)
    lose(observatory, FIRST)
    if is_gone:
        shutil.rmtree(observatory.directory(FIRST))
    reductions.archive()
    assert len(reductions.copies(run_id, SECOND)) == len(FILES)
    assert reductions.copies(run_id, FIRST) == {}


def test_the_database_keeps_a_product_that_only_a_lost_archive_has(reductions: Reductions) -> None:
    observatory = reductions.observatory
    run_id = reductions.make({"science/map.fits": b"m" * 1000})
    reductions.archive()
    with observatory.engine.begin() as connection:
        connection.execute(sa.update(models.ReductionStepRevision).values(retention_days=0))
        connection.execute(
            sa.text("UPDATE data_location SET lost_at = now(), lost_because = 'fire', active = false WHERE id = :id"),
            {"id": observatory.location_id(FIRST)},
        )
    assert observatory.make_room(STAGED) == 0
    [home] = reductions.copies(run_id, STAGED).values()
    with transaction(observatory.engine) as session:
        begin_to_delete(session, home.id, "possible", "scheduled")
    with pytest.raises(IntegrityError, match="is kept"), transaction(observatory.engine) as session:
        begin_to_delete(session, home.id, "in_progress")


def test_a_location_that_comes_back_has_its_copies_again_once_they_were_read(one_copy: Observatory) -> None:
    package_id = one_copy.observe(FILES)
    one_copy.do_all()
    lose(one_copy, FIRST)
    refused = say(one_copy, "package", "adopt", FIRST, "--yes", code=1)
    assert f"`ccat location set {FIRST} --active`" in refused
    say(one_copy, "location", "set", FIRST, "--active")
    assert "1 package adopted" in say(one_copy, "package", "adopt", FIRST, "--yes")
    copy = one_copy.copies(package_id)[FIRST]
    assert (copy.status, copy.verified_at) == (SOUND, None)
    one_copy.read_again()
    assert one_copy.copies(package_id)[FIRST].verified_at is not None
    assert (troubles(one_copy), damage_told(one_copy)) == ([], [])


def test_of_a_package_that_was_lost_with_its_archive_it_is_told_how_it_could_come_back(one_copy: Observatory) -> None:
    package_id = one_copy.observe(FILES)
    one_copy.do_all()
    one_copy.lose_all_but_archives(package_id)
    lose(one_copy, FIRST)
    manage(one_copy)
    [told] = [one for one in troubles(one_copy) if one.startswith("NO copy of 1 raw package")]
    assert f"which {FIRST} (which is lost; `ccat location set {FIRST} --active` has it used again) had as raw/" in told
    assert "is archived" in say(one_copy, "package", "retry", str(package_id), code=1)
    say(one_copy, "location", "set", FIRST, "--active")
    say(one_copy, "package", "retry", str(package_id))
    assert one_copy.copies(package_id)[FIRST].status is SOUND


def test_a_location_that_is_used_again_empty_has_its_copies_made_anew(one_copy: Observatory) -> None:
    package_id = one_copy.observe(FILES)
    one_copy.do_all()
    lose(one_copy, FIRST)
    assert look_again(one_copy) == 1
    one_copy.do_all()
    shutil.rmtree(one_copy.directory(FIRST))
    one_copy.directory(FIRST).mkdir()
    say(one_copy, "location", "set", FIRST, "--active")
    manage(one_copy)
    assert archived_at(one_copy, package_id) == {FIRST, SECOND}
    assert (troubles(one_copy), damage_told(one_copy)) == ([], [])


# What is found bad while something else happens to it


def test_a_copy_that_is_found_damaged_while_it_is_to_go_counts_for_nothing(
    one_copy: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    want_copies(one_copy, 2)
    package_id = one_copy.observe(FILES)
    one_copy.do_all()
    want_copies(one_copy, 1)
    one_copy.keep(SECOND, days=0)
    copy = one_copy.copies(package_id)[SECOND]
    tar = one_copy.directory(SECOND) / copy.path
    tar.chmod(0o600)
    tar.write_bytes(b"x" * tar.stat().st_size)
    before(monkeypatch, scrubbing, "_read", partial(one_copy.mark, SECOND))
    scrubbing.scrub(one_copy.worker, [copy.id])
    found = one_copy.one(models.PhysicalCopy, id=copy.id)
    assert found.status is CORRUPT
    assert len(damage_told(one_copy)) == 1


def test_who_wakes_up_over_a_damaged_copy_leaves_the_one_that_was_made_anew(
    one_copy: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_id = one_copy.observe(FILES)
    one_copy.do_all()
    one_copy.request_staging([package_id])
    one_copy.do_all()
    copy = one_copy.copies(package_id)[STAGED]
    one_copy.keep(STAGED, days=0)
    with transaction(one_copy.engine) as session:
        advance(session, models.PhysicalCopy, [copy.id], to=CORRUPT, because="a test", by="a test")
        lease = timedelta(minutes=1)
        assert discarding.choose_damaged(session, copy.data_location_id, by="manager", lease=lease) == [copy.id]

    def sleeps() -> None:
        over = sa.func.now() - timedelta(minutes=5)
        with transaction(one_copy.engine) as session:
            asleep = sa.update(models.PhysicalCopy).where(models.PhysicalCopy.id == copy.id)
            session.execute(asleep.values(lease_until=over))
        one_copy.request_staging([package_id])
        one_copy.do_all()

    before(monkeypatch, discarding, "_kept", sleeps)
    discarding.discard(one_copy.worker, [copy.id])
    made = one_copy.copies(package_id)[STAGED]
    assert made.status is PhysicalCopyStatus.STAGED
    assert sorted(path.name for path in (one_copy.directory(STAGED) / made.path).iterdir()) == sorted(FILES)


def test_a_copy_that_rots_is_made_anew_also_where_others_would_be_enough(one_copy: Observatory) -> None:
    want_copies(one_copy, 2)
    package_id = one_copy.observe(FILES)
    one_copy.do_all()
    want_copies(one_copy, 1)
    tar = one_copy.directory(SECOND) / one_copy.copies(package_id)[SECOND].path
    tar.unlink()
    scrubbing.scrub(one_copy.worker, [one_copy.copies(package_id)[SECOND].id])
    assert one_copy.copies(package_id)[SECOND].status is MISSING
    assert [one.status for one in one_copy.transfers()].count(Status.PENDING) == 1
    one_copy.do_all()
    assert archived_at(one_copy, package_id) == {FIRST, SECOND}
