"""Raw packages go from site to site, many together, and arrive whole whatever happens on the way."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS
from ccat_data_transfer.verbs.shipping import next_shipment
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, Mover, PackageState, PhysicalCopyStatus, RouteType, Status
from tests.transfer.support import Observatory, digest, random_files

FILES = {"a/scan.fits": b"a" * 1_500_000, "scan.txt": b"it was cloudy"}


def change_route(observatory: Observatory, **values: Any) -> None:
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(values))


def trips(observatory: Observatory) -> list[tuple[str, str, Status]]:
    """Where from and where to everything was sent, and how far that is."""
    names = {observatory.location_id(name): name for name in _locations(observatory)}
    with transaction(observatory.engine) as session:
        found = session.scalars(sa.select(models.DataTransfer).order_by(models.DataTransfer.id)).all()
        return [(names[one.origin_id], names[one.destination_id], one.status) for one in found]


def _locations(observatory: Observatory) -> list[str]:
    with transaction(observatory.engine) as session:
        return list(session.scalars(LOCATION.rows.with_only_columns(LOCATION.label)))


def check_archived(observatory: Observatory, package_id: int, at: str = "cologne/lta") -> None:
    package, copy = observatory.package(package_id), observatory.copies(package_id)[at]
    assert (package.state, package.failure, copy.status) == (PackageState.ARCHIVED, None, PhysicalCopyStatus.PRESENT)
    tar = observatory.directory(at) / copy.path
    assert digest(tar.read_bytes()) == copy.checksum == package.checksum


def is_empty(observatory: Observatory, location: str) -> bool:
    """Whether nothing is left of what arrived there."""
    return not any(observatory.directory(location).glob("transfer/*"))


def test_a_package_is_packed_moved_to_the_site_of_its_archive_unpacked_and_archived_there(far: Observatory) -> None:
    package_id = far.observe(FILES)
    assert [far.do(Operation.PACKING), far.ship()] == [1, 1]
    assert far.package(package_id).state is PackageState.TRANSFERRING
    assert [far.do(Operation.ARCHIVING), far.do(Operation.TRANSFERRING)] == [0, 1]
    assert far.copies(package_id).keys() == {"ccat/buffer"}
    assert far.do(Operation.UNPACKING) == 1
    assert far.copies(package_id).keys() == {"ccat/buffer", "cologne/buffer"}
    assert far.do(Operation.ARCHIVING) == 1

    check_archived(far, package_id)
    assert trips(far) == [("ccat/buffer", "cologne/buffer", Status.COMPLETED)]
    arrived = far.one(models.DataTransferPackagePhysicalCopy)
    assert (arrived.status, is_empty(far, "cologne/buffer")) == (PhysicalCopyStatus.DELETED, True)
    travelled_in = far.one(models.DataTransferPackage)
    assert far.package(package_id).data_transfer_package_id == travelled_in.id
    far.do_all()
    assert far.leftovers() == []


def test_packages_travel_together_once_they_are_enough_or_the_first_has_waited_for_long(far: Observatory) -> None:
    change_route(far, package_bytes=200_000, package_wait_seconds=3600)
    packages = [far.observe({f"{number}.fits": bytes(80_000)}) for number in range(2)]
    far.do_all()
    assert trips(far) == []
    with transaction(far.engine) as session:
        moment = next_shipment(session)
    assert moment is not None
    assert timedelta(minutes=59) < moment - datetime.now(UTC) < timedelta(minutes=60)
    packages.append(far.observe({"3.fits": bytes(80_000)}))
    far.do_all()
    assert trips(far) == [("ccat/buffer", "cologne/buffer", Status.COMPLETED)]
    packages.append(far.observe({"4.fits": bytes(80_000)}))
    far.do_all()
    change_route(far, package_wait_seconds=0)
    far.do_all()
    assert len(trips(far)) == 2
    for package_id in packages:
        check_archived(far, package_id)


def test_where_a_buffer_is_added_what_is_under_way_goes_on_and_what_waits_crosses(far: Observatory) -> None:
    with transaction(far.engine) as session:
        find(session, LOCATION, "cologne/buffer").active = False
    before = far.observe({"1.fits": b"a"})
    far.do_all()
    under_way = far.observe({"2.fits": b"a"})
    far.do(Operation.PACKING)
    [scheduled] = far.schedule(Operation.ARCHIVING)
    waits = far.observe({"3.fits": b"a"})
    far.do(Operation.PACKING)
    with transaction(far.engine) as session:
        find(session, LOCATION, "cologne/buffer").active = True
    VERBS[Operation.ARCHIVING](far.worker, scheduled)
    far.do_all()
    for package_id in (before, under_way, waits):
        check_archived(far, package_id)
    crossed = [one for one in (before, under_way, waits) if "cologne/buffer" in far.copies(one)]
    assert (crossed, len(trips(far))) == ([waits], 1)


def test_over_a_relay_packages_go_from_buffer_to_buffer(far: Observatory) -> None:
    with transaction(far.engine) as session:
        session.execute(sa.delete(models.DataTransferRoute))
    far.add_location("santiago/buffer", LocationType.BUFFER)
    far.add_route("santiago", "cologne")
    far.add_route("ccat", "cologne", RouteType.RELAY, via="santiago")
    package_id = far.observe(FILES)
    far.do_all()
    check_archived(far, package_id)
    assert [trip[:2] for trip in trips(far)] == [
        ("ccat/buffer", "santiago/buffer"),
        ("santiago/buffer", "cologne/buffer"),
    ]


def test_archive_sites_get_packages_in_turn(far: Observatory) -> None:
    far.add_location("us/buffer", LocationType.BUFFER)
    far.add_location("us/lta", LocationType.LONG_TERM_ARCHIVE)
    far.add_route("ccat", "us")
    packages = [far.observe({f"{number}.fits": b"a"}) for number in range(4)]
    far.do_all()
    for number, package_id in enumerate(packages):
        check_archived(far, package_id, at="us/lta" if number % 2 else "cologne/lta")


def test_an_archive_that_nothing_leads_to_gets_nothing(far: Observatory) -> None:
    far.add_location("us/lta", LocationType.LONG_TERM_ARCHIVE)
    packages = [far.observe({f"{number}.fits": b"a"}) for number in range(3)]
    far.do_all()
    for package_id in packages:
        check_archived(far, package_id)


def test_without_a_route_packages_wait_and_say_so_until_there_is_one(far: Observatory) -> None:
    with transaction(far.engine) as session:
        session.execute(sa.delete(models.DataTransferRoute))
    package_id = far.observe(FILES)
    far.do_all()
    waits = far.one(models.LongTermArchiveTransfer)
    assert (waits.status, waits.failure) == (
        Status.PENDING,
        "No route leads from site ccat to cologne: `ccat route add` makes one.",
    )
    far.add_route("ccat", "cologne")
    far.do_all()
    check_archived(far, package_id)


def test_a_custom_route_leads_straight_into_the_archive(far: Observatory) -> None:
    far.add_route("ccat/buffer", "cologne/lta", RouteType.CUSTOM)
    package_id = far.observe(FILES)
    far.do_all()
    check_archived(far, package_id)
    assert trips(far) == []


def test_a_custom_route_into_one_archive_takes_nothing_for_another_of_its_site(far: Observatory) -> None:
    far.add_location("cologne/tapes", LocationType.LONG_TERM_ARCHIVE)
    far.add_route("ccat/buffer", "cologne/tapes", RouteType.CUSTOM)
    package_id = far.observe(FILES)
    far.do_all()
    check_archived(far, package_id)
    assert trips(far) == [("ccat/buffer", "cologne/buffer", Status.COMPLETED)]


def arrive(observatory: Observatory, files: Mapping[str, bytes] = FILES) -> tuple[int, Path]:
    """A package that was brought and is not unpacked; its tar there."""
    package_id = observatory.observe(files)
    assert [observatory.do(Operation.PACKING), observatory.ship(), observatory.do(Operation.TRANSFERRING)] == [1, 1, 1]
    [tar] = observatory.directory("cologne/buffer").glob("transfer/*/*.tar")
    return package_id, tar


def damage(tar: Path) -> None:
    tar.chmod(0o600)
    with tar.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("how", [damage, Path.unlink, lambda tar: tar.write_bytes(tar.read_bytes()[:-1])])
def test_what_is_damaged_on_the_way_is_sent_again(far: Observatory, how: Any) -> None:
    package_id, tar = arrive(far)
    other = far.observe({"b.fits": b"b"})
    how(tar)
    assert far.do(Operation.UNPACKING) == 1
    failed = far.one(models.DataTransfer)
    assert failed.status is Status.PENDING
    assert failed.failure is not None
    assert "did not arrive whole; what is bad is sent again" in failed.failure
    far.do_all()
    check_archived(far, package_id)
    check_archived(far, other)
    assert is_empty(far, "cologne/buffer")
    assert far.one(models.DataTransfer, id=failed.id).failure is None


def test_what_is_damaged_where_it_comes_from_is_packed_anew_and_others_of_its_parcel_go_on(far: Observatory) -> None:
    packages = [far.observe({f"{number}.fits": b"a"}) for number in range(3)]
    assert [far.do(Operation.PACKING), far.ship()] == [3, 1]
    damage(far.directory("ccat/buffer") / far.copies(packages[1])["ccat/buffer"].path)
    far.do(Operation.TRANSFERRING)
    far.do(Operation.UNPACKING)
    assert [far.do(Operation.ARCHIVING), far.do(Operation.TRANSFERRING), far.do(Operation.UNPACKING)] == [2, 1, 1]
    assert far.copies(packages[1])["ccat/buffer"].status is PhysicalCopyStatus.CORRUPT
    far.do_all()
    for package_id in packages:
        check_archived(far, package_id)
    assert {status for _, _, status in trips(far)} == {Status.COMPLETED}


@pytest.mark.parametrize("how", [Path.unlink, lambda tar: os.truncate(tar, 1000)])
def test_what_is_not_where_it_should_come_from_is_packed_anew_and_others_of_its_parcel_go_on(
    far: Observatory, how: Any
) -> None:
    packages = [far.observe({f"{number}.fits": b"a"}) for number in range(3)]
    assert [far.do(Operation.PACKING), far.ship()] == [3, 1]
    how(far.directory("ccat/buffer") / far.copies(packages[1])["ccat/buffer"].path)
    assert [far.do(Operation.TRANSFERRING), far.do(Operation.UNPACKING), far.do(Operation.ARCHIVING)] == [1, 1, 2]
    assert far.copies(packages[1])["ccat/buffer"].status in {PhysicalCopyStatus.MISSING, PhysicalCopyStatus.CORRUPT}
    far.do_all()
    for package_id in packages:
        check_archived(far, package_id)
    assert is_empty(far, "cologne/buffer")


def test_what_was_brought_before_the_connection_broke_is_not_brought_again(far: Observatory) -> None:
    package_id = far.observe(random_files(3_000_000))
    assert [far.do(Operation.PACKING), far.ship()] == [1, 1]
    origin = far.directory("ccat/buffer") / far.copies(package_id)["ccat/buffer"].path
    [parcel] = [far.one(models.DataTransferPackage).name]
    half = far.directory("cologne/buffer") / "transfer" / parcel / origin.name
    half.parent.mkdir(parents=True)
    half.write_bytes(origin.read_bytes()[:1_000_000])
    inode = half.stat().st_ino
    far.do_all()
    check_archived(far, package_id)
    arrived = far.directory("cologne/buffer") / far.copies(package_id)["cologne/buffer"].path
    assert arrived.stat().st_ino == inode


def test_whoever_dies_while_an_empty_parcel_is_removed_leaves_nothing_of_it(
    far: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_id, _ = arrive(far)
    with monkeypatch.context() as patched:
        patched.setattr("os.rmdir", die)
        with pytest.raises(KeyboardInterrupt):
            far.do(Operation.UNPACKING)
    with transaction(far.engine) as session:
        past = sa.func.clock_timestamp() - timedelta(seconds=1)
        session.execute(sa.update(models.DataTransfer).values(lease_until=past))
    assert far.recover() == 1
    far.do_all()
    check_archived(far, package_id)
    assert is_empty(far, "cologne/buffer")


def die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_buffer_without_room_says_so_and_takes_it_when_it_has(far: Observatory) -> None:
    package_id = far.observe(FILES)
    location = far.location_id("cologne/buffer")
    with transaction(far.engine) as session:
        session.get_one(models.DataLocation, location).free_space_reserve_bytes = 10**18
    assert [far.do(Operation.PACKING), far.ship(), far.do(Operation.TRANSFERRING)] == [1, 1, 1]
    failure = far.one(models.DataTransfer).failure
    assert failure is not None
    assert failure.startswith("Location cologne/buffer (")
    assert "is full" in failure
    with transaction(far.engine) as session:
        session.get_one(models.DataLocation, location).free_space_reserve_bytes = 0
    far.do_all()
    check_archived(far, package_id)


def test_a_method_that_is_not_built_is_given_up_with_the_remedy(far: Observatory) -> None:
    change_route(far, method=Mover.BBCP)
    far.observe(FILES)
    far.do_all()
    failed = far.one(models.DataTransfer)
    assert failed.status is Status.FAILED
    assert failed.failure is not None
    assert "`ccat route set ccat_to_cologne --method rsync`" in failed.failure


def test_a_package_for_two_archives_behind_one_buffer_crosses_once(far: Observatory) -> None:
    far.add_location("cologne/tapes", LocationType.LONG_TERM_ARCHIVE)
    package_id = far.observe(FILES)
    with transaction(far.engine) as session:
        first = session.scalars(sa.select(models.LongTermArchiveTransfer)).one()
        tapes = find(session, LOCATION, "cologne/tapes")
        session.add(
            models.LongTermArchiveTransfer(
                raw_data_package_id=package_id, origin_id=first.origin_id, destination_id=tapes.id
            )
        )
    far.do_all()
    check_archived(far, package_id)
    check_archived(far, package_id, at="cologne/tapes")
    assert len(trips(far)) == 1


@pytest.mark.parametrize("how", [damage, Path.unlink, lambda tar: os.truncate(tar, 1000)])
def test_what_is_damaged_in_a_far_buffer_is_sent_again_from_where_it_was_packed(far: Observatory, how: Any) -> None:
    package_id, _ = arrive(far)
    assert far.do(Operation.UNPACKING) == 1
    how(far.directory("cologne/buffer") / far.copies(package_id)["cologne/buffer"].path)
    assert far.do(Operation.ARCHIVING) == 1
    far.directory("cologne/buffer").rename(far.root / "away")  # as nobody at the source sees it
    assert far.do(Operation.PACKING) == 1
    assert far.one(models.LongTermArchiveTransfer).failure is None
    far.root.joinpath("away").rename(far.directory("cologne/buffer"))
    far.do_all()
    check_archived(far, package_id)
    assert trips(far) == [("ccat/buffer", "cologne/buffer", Status.COMPLETED)] * 2
