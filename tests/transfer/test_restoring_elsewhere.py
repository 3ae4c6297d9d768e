"""A tar that is to start from a buffer again comes from another archive where the nearest one cannot be read."""

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.copies import announce_copy
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, Mover, PhysicalCopyStatus, Status
from tests.transfer.support import Observatory
from tests.transfer.test_given_up import tidy_up
from tests.transfer.test_replication import check_copy, damage, look_again, tar_of, want_copies
from tests.transfer.test_troubles import forbidden

FILES = {"a.fits": b"a" * 300_000, "b.txt": b"cloudy"}
BUFFER, NEAR = "cologne/buffer", "cologne/lta"
RESTORING = Operation.RESTORING


def in_archives(observatory: Observatory, *archives: str) -> int:
    """A package that these archives have, and nothing else has; another copy of it is wanted."""
    want_copies(observatory, len(archives))
    package_id = observatory.observe(FILES)
    observatory.do_all()
    assert observatory.copies(package_id).keys() >= set(archives)
    observatory.lose_all_but_archives(package_id)
    want_copies(observatory, len(archives) + 1)
    return package_id


def restore_while_the_near_one_cannot_be_read(observatory: Observatory, package_id: int) -> None:
    with forbidden(tar_of(observatory, package_id, NEAR)):
        assert [observatory.do(RESTORING), observatory.do(RESTORING)] == [1, 1]
    copies = observatory.copies(package_id)
    assert copies[BUFFER].status is PhysicalCopyStatus.PRESENT
    assert (copies[NEAR].status, copies[NEAR].verified_at) == (PhysicalCopyStatus.PRESENT, None)
    assert "cannot be read (Permission denied)" in (copies[NEAR].failure or "")
    assert list(observatory.directory(BUFFER).glob("transfer/*")) == []
    observatory.do_all()


def test_another_archive_of_the_same_site_is_read(two_archives: Observatory) -> None:
    with transaction(two_archives.engine) as session:
        find(session, LOCATION, "us/lta").active = False
    two_archives.add_location("cologne/spare", LocationType.LONG_TERM_ARCHIVE)
    package_id = in_archives(two_archives, NEAR, "cologne/spare")
    with transaction(two_archives.engine) as session:
        find(session, LOCATION, "us/lta").active = True
    assert look_again(two_archives) == 1
    restore_while_the_near_one_cannot_be_read(two_archives, package_id)
    check_copy(two_archives, package_id, "us/lta")


@pytest.fixture
def three_sites(two_archives: Observatory) -> Observatory:
    """A third archive is in Santiago, behind Cologne; files of other sites are not seen."""
    with transaction(two_archives.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(method=Mover.RSYNC))
    two_archives.add_location("santiago/buffer", LocationType.BUFFER)
    two_archives.add_route("cologne", "santiago", method=Mover.RSYNC)
    return two_archives


def in_two_sites(three_sites: Observatory) -> int:
    package_id = in_archives(three_sites, NEAR, "us/lta")
    three_sites.add_location("santiago/lta", LocationType.LONG_TERM_ARCHIVE)
    assert look_again(three_sites) == 1
    return package_id


def test_an_archive_of_another_site_is_read_along_a_route(three_sites: Observatory) -> None:
    package_id = in_two_sites(three_sites)
    restore_while_the_near_one_cannot_be_read(three_sites, package_id)
    check_copy(three_sites, package_id, "santiago/lta")


def test_what_was_brought_for_it_goes_with_what_was_given_up(three_sites: Observatory) -> None:
    package_id = in_two_sites(three_sites)
    with transaction(three_sites.engine) as session:
        package = session.get_one(models.RawDataPackage, package_id)
        place = find(session, LOCATION, BUFFER)
        copy_id = announce_copy(session, package, place, path="raw/half.tar", by="a worker that died")
        session.execute(sa.update(models.LongTermArchiveTransfer).values(status=Status.CANCELLED))
    inbox = three_sites.directory(BUFFER) / f"transfer/staging-{copy_id}"
    inbox.mkdir(parents=True)
    (inbox / "half.tar").write_bytes(b"half")
    assert tidy_up(three_sites) == 1
    assert not inbox.exists()


def test_a_damaged_tar_that_is_read_at_its_own_site_is_marked_and_another_is_read(three_sites: Observatory) -> None:
    package_id = in_two_sites(three_sites)
    damage(tar_of(three_sites, package_id, NEAR))
    three_sites.do_all()
    look_again(three_sites)
    three_sites.do_all()
    for archive in (NEAR, "us/lta", "santiago/lta"):
        check_copy(three_sites, package_id, archive)
