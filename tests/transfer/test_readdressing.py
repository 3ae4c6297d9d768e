"""What is on its way to an archive, or into a buffer, that is put out of use goes another way."""

import shutil
from dataclasses import replace

import pytest
import sqlalchemy as sa

from ccat_data_transfer.managers import TransferContext, tick
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs import readdressing
from ccat_data_transfer.verbs.readdressing import readdress
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PackageState, Status
from tests.transfer.support import Observatory, say
from tests.transfer.test_sites import check_archived, trips


def use(observatory: Observatory, *names: str, active: bool) -> None:
    with transaction(observatory.engine) as session:
        for name in names:
            find(session, LOCATION, name).active = active


def look(observatory: Observatory) -> int:
    with transaction(observatory.engine) as session:
        return readdress(session, by="manager")


def live(observatory: Observatory) -> list[tuple[int, str, str]]:
    """Packages that are under way, with where they start from and go to."""
    archiving = models.LongTermArchiveTransfer
    with transaction(observatory.engine) as session:
        names = dict(session.execute(LOCATION.rows.with_only_columns(models.DataLocation.id, LOCATION.label)).all())
        rows = session.scalars(sa.select(archiving).filter_by(status=Status.PENDING).order_by(archiving.id)).all()
        return [(one.raw_data_package_id, names[one.origin_id], names[one.destination_id]) for one in rows]


@pytest.fixture
def two_sites(far: Observatory) -> Observatory:
    """An observatory whose archives are in Cologne and in the US."""
    far.add_location("us/buffer", LocationType.BUFFER)
    far.add_location("us/lta", LocationType.LONG_TERM_ARCHIVE)
    far.add_route("ccat", "us")
    return far


def test_what_waits_for_an_archive_that_is_out_of_use_goes_to_another(two_sites: Observatory) -> None:
    packages = [two_sites.observe({f"{number}.fits": b"a"}) for number in range(4)]
    two_sites.do(Operation.PACKING)
    assert [to for *_, to in live(two_sites)] == ["cologne/lta", "us/lta"] * 2
    use(two_sites, "cologne/lta", active=False)
    assert [look(two_sites), look(two_sites)] == [2, 0]
    assert sorted(live(two_sites)) == [(package_id, "ccat/buffer", "us/lta") for package_id in packages]
    two_sites.do_all()
    for package_id in packages:
        check_archived(two_sites, package_id, at="us/lta")
    assert {to for _, to, _ in trips(two_sites)} == {"us/buffer"}


def test_a_manager_looks_in_each_round(two_sites: Observatory, context: TransferContext) -> None:
    packages = [two_sites.observe({f"{number}.fits": b"a"}) for number in range(2)]
    use(two_sites, "cologne/lta", active=False)
    tick(replace(context, engine=two_sites.engine))
    with transaction(two_sites.engine) as session:
        moved = sa.select(models.LongTermArchiveTransfer.raw_data_package_id).filter_by(status=Status.CANCELLED)
        assert session.scalars(moved).all() == packages[:1]


def test_what_nothing_leads_from_to_another_archive_waits_for_its_own(far: Observatory) -> None:
    far.add_location("us/lta", LocationType.LONG_TERM_ARCHIVE)
    package_id = far.observe({"a.fits": b"a"})
    use(far, "cologne/lta", active=False)
    assert look(far) == 0
    use(far, "cologne/lta", active=True)
    far.do_all()
    check_archived(far, package_id)


def test_what_travels_already_is_sent_on_from_where_it_arrives(two_sites: Observatory) -> None:
    two_sites.add_route("cologne", "us")
    package_id = two_sites.observe({"a.fits": b"a"})
    assert [two_sites.do(Operation.PACKING), two_sites.ship()] == [1, 1]
    use(two_sites, "cologne/lta", active=False)
    assert look(two_sites) == 0
    assert [two_sites.do(Operation.TRANSFERRING), two_sites.do(Operation.UNPACKING)] == [1, 1]
    assert look(two_sites) == 1
    two_sites.do_all()
    check_archived(two_sites, package_id, at="us/lta")
    assert trips(two_sites) == [
        ("ccat/buffer", "cologne/buffer", Status.COMPLETED),
        ("cologne/buffer", "us/buffer", Status.COMPLETED),
    ]


def test_what_travels_to_a_site_that_is_out_of_use_as_a_whole_turns_back(two_sites: Observatory) -> None:
    package_id = two_sites.observe({"a.fits": b"a"})
    assert [two_sites.do(Operation.PACKING), two_sites.ship()] == [1, 1]
    use(two_sites, "cologne/lta", "cologne/buffer", active=False)
    assert look(two_sites) == 1
    assert two_sites.ship() == 1
    two_sites.do_all()
    check_archived(two_sites, package_id, at="us/lta")
    assert two_sites.copies(package_id).keys() == {"ccat/buffer", "us/buffer", "us/lta"}


def test_what_is_to_be_packed_into_a_buffer_that_is_out_of_use_is_packed_into_another(far: Observatory) -> None:
    packed = far.observe({"a.fits": b"a"})
    far.do(Operation.PACKING)
    unpacked = far.observe({"b.fits": b"b"})
    far.add_location("ccat/second", LocationType.BUFFER)
    use(far, "ccat/buffer", active=False)
    assert look(far) == 1
    assert live(far) == [(packed, "ccat/buffer", "cologne/lta"), (unpacked, "ccat/second", "cologne/lta")]
    far.do_all()
    for package_id in (packed, unpacked):
        check_archived(far, package_id)


def test_what_is_archived_already_is_left_to_whoever_makes_further_copies(two_sites: Observatory) -> None:
    package_id = two_sites.observe({"a.fits": b"a"})
    two_sites.do_all()
    with transaction(two_sites.engine) as session:
        us, buffer = (find(session, LOCATION, name).id for name in ("us/lta", "ccat/buffer"))
        values = {"raw_data_package_id": package_id, "origin_id": buffer, "destination_id": us}
        session.add(models.LongTermArchiveTransfer(**values))
    use(two_sites, "us/lta", active=False)
    assert look(two_sites) == 0
    assert two_sites.package(package_id).state is PackageState.ARCHIVED


def test_what_travels_to_a_buffer_that_takes_nothing_any_more_goes_to_another_one_there(far: Observatory) -> None:
    package_id = far.observe({"a.fits": b"a"})
    assert [far.do(Operation.PACKING), far.ship()] == [1, 1]
    far.add_location("cologne/second", LocationType.BUFFER)
    use(far, "cologne/buffer", active=False)
    shutil.rmtree(far.directory("cologne/buffer"))
    assert [look(far), far.ship()] == [0, 0]  # it may only be emptied
    assert far.do(Operation.TRANSFERRING) == 1
    assert [look(far), far.ship()] == [0, 1]
    far.do_all()
    check_archived(far, package_id)
    assert trips(far) == [
        ("ccat/buffer", "cologne/buffer", Status.CANCELLED),
        ("ccat/buffer", "cologne/second", Status.COMPLETED),
    ]
    with transaction(far.engine) as session:
        last = session.scalar(sa.select(sa.func.max(models.DataTransfer.data_transfer_package_id)))
    assert far.package(package_id).data_transfer_package_id == last


def test_what_is_in_trouble_on_a_route_that_is_out_of_use_takes_the_one_that_is_in_its_place(
    two_sites: Observatory,
) -> None:
    package_id = two_sites.observe({"a.fits": b"a"})
    two_sites.add_route("us", "cologne")
    assert [two_sites.do(Operation.PACKING), two_sites.ship()] == [1, 1]
    say(two_sites, "route", "set", "ccat_to_cologne", "--inactive")
    around = ["--via", "us", "--name", "around", "--method", "copy", "--wait-minutes", "0"]
    say(two_sites, "route", "add", "ccat", "cologne", *around)
    assert [look(two_sites), two_sites.ship()] == [0, 0], "what is on its way goes on"
    cologne = two_sites.directory("cologne/buffer")
    cologne.rename(cologne.with_name("away"))
    assert two_sites.do(Operation.TRANSFERRING) == 1
    assert [look(two_sites), two_sites.ship()] == [0, 1], "unless it cannot"
    cologne.with_name("away").rename(cologne)
    two_sites.do_all()
    check_archived(two_sites, package_id)
    assert trips(two_sites) == [
        ("ccat/buffer", "cologne/buffer", Status.CANCELLED),
        ("ccat/buffer", "us/buffer", Status.COMPLETED),
        ("us/buffer", "cologne/buffer", Status.COMPLETED),
    ]


def test_a_transfer_that_carries_nothing_any_more_to_where_nobody_is_ends(two_sites: Observatory) -> None:
    two_sites.observe({"a.fits": b"a"})
    assert [two_sites.do(Operation.PACKING), two_sites.ship()] == [1, 1]
    use(two_sites, "cologne/lta", "cologne/buffer", active=False)
    assert [look(two_sites), look(two_sites)] == [1, 0]
    assert [status for *_, status in trips(two_sites)] == [Status.CANCELLED]


def test_packages_that_no_way_leads_on_for_hold_up_no_others(
    two_sites: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readdressing, "_ASTRAY", readdressing._ASTRAY.limit(1))
    stuck, other = two_sites.observe({"a.fits": b"a"}), two_sites.observe({"b.fits": b"b"})
    two_sites.do(Operation.PACKING)
    with transaction(two_sites.engine) as session:
        astray = find(session, LOCATION, "cologne/buffer").id
        of_stuck = models.LongTermArchiveTransfer.raw_data_package_id == stuck
        session.execute(sa.update(models.LongTermArchiveTransfer).where(of_stuck).values(origin_id=astray))
        session.execute(
            sa.update(models.PhysicalCopy)
            .where(models.PhysicalCopy.raw_data_package_id == stuck)
            .values(data_location_id=astray)
        )
    use(two_sites, "cologne/lta", "us/lta", active=False)
    two_sites.add_location("us/second", LocationType.LONG_TERM_ARCHIVE)
    assert look(two_sites) == 1
    assert (other, "ccat/buffer", "us/second") in live(two_sites)
