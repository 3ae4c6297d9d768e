"""What is to be archived goes to an archive that can be read, where there is one; what nobody looks at is away."""

from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ccat_data_transfer.destinations import Destination, Turns, preferred
from ccat_data_transfer.replication import Archive, Holding, Wish, next_copy
from ccat_data_transfer.verbs.probing import probe
from ccat_data_transfer.verbs.products.plan import Archive as ProductArchive
from ccat_data_transfer.verbs.products.plan import Network, aim_from
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.queries.away import is_away
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, StorageType
from tests.transfer.support import Observatory, say
from tests.transfer.test_probing import archived, let_go
from tests.transfer.test_replication import place

FILES = {"a.fits": b"a" * 3000, "b.fits": b"b"}
FIRST, SECOND, THIRD = "cologne/lta", "cologne/second", "cologne/third"
NEAR, FAR = Destination(21, site_id=2, priority=5), Destination(31, site_id=3, priority=0)
MINUTE, TWO_HOURS = timedelta(minutes=1), timedelta(hours=2)


def test_new_packages_go_to_sites_with_an_archive_that_can_be_read_where_there_are_any() -> None:
    second = replace(NEAR, location_id=22, priority=0)
    assert preferred([replace(NEAR, is_shut=True), second]) == second
    away, turns = replace(NEAR, is_shut=True), Turns([NEAR, FAR])
    assert [turns.take([away, FAR]) for _ in range(3)] == [FAR] * 3
    assert turns.take([NEAR, FAR]) == NEAR
    assert turns.take([away]) == away


def test_a_further_copy_goes_to_an_archive_that_is_away_only_where_no_other_takes_it() -> None:
    away, other = Archive(place=place(21), priority=9, is_shut=True), Archive(place=place(31), priority=0)

    def asked(*archives: Archive) -> Wish | None:
        here = Holding(place=place(20), type=LocationType.BUFFER)
        lost, buffers = {21}, {2: 20, 3: 30}
        return next_copy(
            archives, [here], taken=(), lost=lost, buffers=buffers, sources=(), leads=lambda _from, _to: True
        )

    assert asked(away, other) == Wish(origin_id=20, archive_id=31)
    assert asked(away) == Wish(origin_id=20, archive_id=21)


def test_products_that_were_not_aimed_yet_pass_over_an_archive_that_is_away() -> None:
    archives = [ProductArchive(one, one // 10, StorageType.S3, priority=0) for one in (21, 31)]
    here = Network(places={}, routes=(), buffers={}, mounted=frozenset(), shut={21})
    assert aim_from(place(20), archives, here).archive_id == 31
    assert aim_from(place(20), archives, here, kept=21).archive_id == 21
    assert aim_from(place(20), archives[:1], here).archive_id == 21


# With real files


@pytest.fixture
def archives(observatory: Observatory) -> Observatory:
    """Three archives at one site, the first preferred."""
    for name in (SECOND, THIRD):
        observatory.add_location(name, LocationType.LONG_TERM_ARCHIVE)
    with transaction(observatory.engine) as session:
        for priority, name in enumerate((THIRD, SECOND, FIRST)):
            find(session, LOCATION, name).priority = priority
    return observatory


def say_of(observatory: Observatory, name: str, **values: object) -> None:
    with transaction(observatory.engine) as session:
        number, location = find(session, LOCATION, name).id, models.DataLocation
        session.execute(sa.update(location).where(location.id == number).values(values))


def archived_in(observatory: Observatory) -> set[str]:
    package_id = observatory.observe(FILES)
    observatory.do_all()
    return set(observatory.copies(package_id)) & {FIRST, SECOND, THIRD}


def test_the_first_copy_and_the_next_pass_over_archives_that_are_away_or_take_nothing(archives: Observatory) -> None:
    now = sa.func.clock_timestamp()
    say_of(archives, FIRST, unreadable="It burns.", unreadable_since=now)
    assert archived_in(archives) == {SECOND}
    say_of(archives, FIRST, unreadable=None, unreadable_since=None)
    for shut in ({"free_bytes": 0, "total_bytes": 9}, {"trouble": "It is read-only."}):
        say_of(archives, FIRST, **shut, space_checked_at=now)
        assert archived_in(archives) == {SECOND}
        say_of(archives, FIRST, free_bytes=None, total_bytes=None, trouble=None, space_checked_at=None)
    assert archived_in(archives) == {FIRST}
    with transaction(archives.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=2))
    say_of(archives, SECOND, created_at=now - TWO_HOURS)
    assert archived_in(archives) == {FIRST, THIRD}


@pytest.mark.parametrize(
    ("added", "seen", "probed", "expected"),
    [
        (TWO_HOURS, None, None, True),
        (MINUTE, None, None, False),
        (TWO_HOURS, MINUTE, None, False),
        (TWO_HOURS, None, MINUTE, False),
        (MINUTE, TWO_HOURS, None, True),
        (TWO_HOURS, MINUTE, TWO_HOURS, True),
        (TWO_HOURS, TWO_HOURS, MINUTE, True),
    ],
    ids=["never", "new", "its disk", "read", "not lately", "disk without reading", "reading without disk"],
)
def test_an_archive_is_away_that_nobody_has_looked_at_for_an_hour_or_ever(
    observatory: Observatory, added: timedelta, seen: timedelta | None, probed: timedelta | None, *, expected: bool
) -> None:
    """For those who choose where something goes and comes from, and for those who let go of the rest."""
    archived(observatory, FIRST)
    now = sa.func.clock_timestamp()
    checked_at, probed_at = (None if ago is None else now - ago for ago in (seen, probed))
    free = None if seen is None else 1
    say_of(
        observatory, FIRST, created_at=now - added, space_checked_at=checked_at, free_bytes=free, probed_at=probed_at
    )
    with transaction(observatory.engine) as session:
        this = models.DataLocation.id == find(session, LOCATION, FIRST).id
        assert session.scalar(sa.select(is_away()).where(this)) is expected
    assert let_go(observatory) == (0 if expected else 3)


def test_an_archive_that_nobody_has_ever_looked_at_is_relied_on_once_somebody_has(observatory: Observatory) -> None:
    archived(observatory, FIRST)
    say_of(observatory, FIRST, created_at=sa.func.clock_timestamp() - TWO_HOURS)
    assert let_go(observatory) == 0
    assert "archives that have it are away" in " ".join(say(observatory, "retention", "plan").split())
    probe(observatory.engine, observatory.location_id(FIRST), by="worker")
    assert let_go(observatory) == 3
