import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Self

import pytest
import sqlalchemy as sa

from ccat_data_transfer.errors import NothingToRetry
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs import packing
from ccat_data_transfer.verbs.packing import pack
from ccat_data_transfer.verbs.retrying import retry_package
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.queries.packages import UnknownPackage, list_packages
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.scans import NewFile, add_files
from tests.transfer.support import Observatory, digest

FILES = {"2026-04-01/b.fits": b"b" * 1000, "2026-04-01/a.fits": b"a" * 3_000_000, "empty": b""}


def tar_of(observatory: Observatory, package_id: int, location: str) -> Path:
    return observatory.directory(location) / observatory.copies(package_id)[location].path


def test_a_scan_is_packed_archived_and_verified_there(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    observatory.do_all()

    package, copies = observatory.package(package_id), observatory.copies(package_id)
    assert package.state is PackageState.ARCHIVED
    assert package.archived_at is not None
    assert observatory.one(models.LongTermArchiveTransfer).status is Status.COMPLETED
    assert set(copies) == {"ccat/buffer", "cologne/lta"}
    for location, copy in copies.items():
        tar = tar_of(observatory, package_id, location)
        status = tar.stat()
        assert tar.name == f"{package.name}.tar"
        assert tar.parent.name == "2026-03-31"
        assert status.st_mode & 0o777 == 0o444
        assert digest(tar.read_bytes()) == copy.checksum == package.checksum
        assert status.st_size == copy.size_bytes == package.size_bytes
        assert (status.st_mtime_ns, status.st_ino) == (copy.mtime_ns, copy.inode)
        assert copy.verified_at is not None
        assert copy.status is PhysicalCopyStatus.PRESENT
    assert observatory.leftovers() == []


def test_the_history_tells_each_move(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    observatory.do_all()

    with transaction(observatory.engine) as session:
        changes = session.query(models.StatusChange).order_by(models.StatusChange.id).all()
    moves = {(change.noun, change.to_status, change.by) for change in changes if change.object_id == package_id}
    assert ("raw_data_package", "transferring", "worker") in moves
    assert ("raw_data_package", "archived", "worker") in moves
    assert [change.to_status for change in changes if change.noun == "long_term_archive_transfer"] == [
        "scheduled",
        "in_progress",
        "pending",
        "scheduled",
        "in_progress",
        "completed",
    ]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "said", "status"),
    [
        (flip, f"has sha256:.*, registered was {digest(FILES['2026-04-01/a.fits'])}", PhysicalCopyStatus.CORRUPT),
        (truncate, "has 2999999 bytes, registered was 3000000 bytes", PhysicalCopyStatus.CORRUPT),
        (Path.unlink, "is missing", PhysicalCopyStatus.MISSING),
    ],
)
def test_a_bad_raw_file_fails_its_package_with_a_sentence_and_nothing_is_archived(
    observatory: Observatory, damage: Callable[[Path], None], said: str, status: PhysicalCopyStatus
) -> None:
    package_id = observatory.observe(FILES)
    raw = observatory.directory("ccat/chai_raw_data") / "2026-04-01/a.fits"
    damage(raw)
    observatory.do_all()

    package = observatory.package(package_id)
    assert package.state is PackageState.FAILED
    assert package.failure is not None
    expected = rf"^Package {package.name} is not packed: {raw} at location ccat/chai_raw_data {said}\. Restore what"
    assert re.search(expected, package.failure), package.failure
    assert f"`ccat package retry {package_id}`. Nothing was archived, nothing was deleted." in package.failure
    assert observatory.one(models.LongTermArchiveTransfer).failure == package.failure
    assert observatory.one(models.PhysicalCopy, path="2026-04-01/a.fits").status is status
    assert observatory.one(models.PhysicalCopy, path="2026-04-01/b.fits").status is PhysicalCopyStatus.PRESENT
    assert list(observatory.directory("cologne/lta").rglob("*")) == []
    assert observatory.files("ccat/buffer") == []


def test_all_bad_files_of_a_package_are_named_at_once(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    flip(observatory.directory("ccat/chai_raw_data") / "2026-04-01/a.fits")
    (observatory.directory("ccat/chai_raw_data") / "2026-04-01/b.fits").unlink()
    observatory.do_all()

    failure = observatory.package(package_id).failure or ""
    assert "a.fits at location ccat/chai_raw_data has sha256:" in failure
    assert "b.fits at location ccat/chai_raw_data is missing" in failure


def test_a_raw_file_that_leads_elsewhere_is_not_followed_and_waited_for(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    raw = observatory.directory("ccat/chai_raw_data") / "2026-04-01/a.fits"
    raw.rename(observatory.root / "elsewhere.fits")
    raw.symlink_to(observatory.root / "elsewhere.fits")
    observatory.do(Operation.PACKING)

    failure = observatory.one(models.LongTermArchiveTransfer).failure or ""
    assert "leads out of the location's directory" in failure
    assert observatory.one(models.PhysicalCopy, path="2026-04-01/a.fits").status is PhysicalCopyStatus.PRESENT
    raw.unlink()
    (observatory.root / "elsewhere.fits").rename(raw)
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED


def test_once_the_file_is_restored_a_retry_brings_the_package_into_the_archive(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    raw = observatory.directory("ccat/chai_raw_data") / "2026-04-01/a.fits"
    flip(raw)
    observatory.do_all()
    flip(raw)
    with transaction(observatory.engine) as session:
        retry_package(session, package_id, by="an operator")
    observatory.do_all()

    package = observatory.package(package_id)
    assert (package.state, package.failure) == (PackageState.ARCHIVED, None)
    assert observatory.one(models.LongTermArchiveTransfer).failure is None
    with transaction(observatory.engine) as session:
        copies = session.query(models.PhysicalCopy).filter_by(path="2026-04-01/a.fits").all()
    assert sorted(copy.status for copy in copies) == [PhysicalCopyStatus.DELETED, PhysicalCopyStatus.PRESENT]


@pytest.mark.parametrize("has_its_size", [False, True])
def test_what_an_archive_has_under_the_name_of_a_package_and_nobody_knows_of_is_never_overwritten(
    observatory: Observatory, *, has_its_size: bool
) -> None:
    """As after a restored backup: the part of this number was made before of other files, which nobody else has."""
    package_id = observatory.observe(FILES)
    observatory.do(Operation.PACKING)
    length = (observatory.package(package_id).size_bytes or 0) if has_its_size else 100
    packed = observatory.copies(package_id)["ccat/buffer"].path
    another = observatory.directory("cologne/lta") / packed
    another.parent.mkdir(parents=True)
    another.write_bytes(bytes(length))
    observatory.do_all()
    package = observatory.package(package_id)
    assert package.state is PackageState.FAILED
    assert f"is not archived at cologne/lta: {another} is there already, is something else," in (package.failure or "")
    assert another.read_bytes() == bytes(length)
    another.rename(another.with_name("another.tar"))
    with transaction(observatory.engine) as session:
        retry_package(session, package_id, by="an operator")
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED
    assert digest(another.read_bytes()) == package.checksum


def test_only_a_failed_package_is_retried(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)

    with transaction(observatory.engine) as session:
        with pytest.raises(NothingToRetry, match="is waiting; what can be retried is a failed package"):
            retry_package(session, package_id, by="an operator")
        with pytest.raises(UnknownPackage, match="There is no raw package 4711"):
            retry_package(session, 4711, by="an operator")


def test_a_tar_damaged_in_the_buffer_is_packed_again_and_never_archived(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    observatory.do(Operation.PACKING)
    tar = tar_of(observatory, package_id, "ccat/buffer")
    tar.chmod(0o644)
    flip(tar)
    observatory.do(Operation.ARCHIVING)

    transfer = observatory.one(models.LongTermArchiveTransfer)
    assert (transfer.status, transfer.trouble_count) == (Status.PENDING, 1)
    assert f"{tar} at location ccat/buffer has sha256:" in (transfer.failure or "")
    assert "has to be packed again from its source: " in (transfer.failure or "")
    assert (transfer.failure or "").endswith(" It is tried again.")
    assert observatory.files("cologne/lta") == []
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED
    assert digest(tar.read_bytes()) == observatory.package(package_id).checksum


def test_a_missing_location_is_waited_for_however_long_it_takes(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    archive = observatory.directory("cologne/lta")
    archive.rename(archive.with_name("unmounted"))
    observatory.do(Operation.PACKING)
    for tries in range(1, 15):
        observatory.do(Operation.ARCHIVING)
        transfer = observatory.one(models.LongTermArchiveTransfer)
        assert (transfer.status, transfer.trouble_count, transfer.retry_count) == (Status.PENDING, tries, 0)
    with transaction(observatory.engine) as session:
        [listed] = list_packages(session, None, limit=10)
    assert listed.tried_again_at is not None
    assert listed.failure == (
        f"Location cologne/lta ({archive}) is missing: no such directory here; mount or make it. It is tried again."
    )
    archive.with_name("unmounted").rename(archive)
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED
    transfer = observatory.one(models.LongTermArchiveTransfer)
    assert (transfer.trouble_count, transfer.failure, transfer.not_before) == (0, None, None)


def test_a_missing_source_directory_marks_no_file_as_missing(observatory: Observatory) -> None:
    observatory.observe(FILES)
    source = observatory.directory("ccat/chai_raw_data")
    source.rename(source.with_name("unmounted"))
    observatory.do(Operation.PACKING)

    transfer = observatory.one(models.LongTermArchiveTransfer)
    assert (transfer.status, transfer.trouble_count) == (Status.PENDING, 1)
    assert observatory.one(models.PhysicalCopy, path="empty").status is PhysicalCopyStatus.PRESENT


def test_a_full_archive_is_said_and_the_package_goes_on_when_there_is_room(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    with transaction(observatory.engine) as session:
        find(session, LOCATION, "cologne/lta").free_space_reserve_bytes = 10**18
    observatory.do(Operation.PACKING)
    observatory.do(Operation.ARCHIVING)

    failure = observatory.one(models.LongTermArchiveTransfer).failure or ""
    assert f"Location cologne/lta ({observatory.directory('cologne/lta')}) is full: needs 3.0" in failure
    with transaction(observatory.engine) as session:
        find(session, LOCATION, "cologne/lta").free_space_reserve_bytes = 0
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED


class Renewals:
    """Counts the renewals of leases, and cuts the connection of one of them."""

    def __init__(self, engine: sa.Engine, *, cut: int = 0) -> None:
        self.number = 0
        self._engine = engine
        self._cut = cut

    def __enter__(self) -> Self:
        sa.event.listen(self._engine, "before_cursor_execute", self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sa.event.remove(self._engine, "before_cursor_execute", self._count)

    def _count(self, connection: sa.Connection, _cursor: object, statement: str, *_: object) -> None:
        self.number += "lease_until=(clock_timestamp()" in statement
        if self._cut and self.number == self._cut:
            self._cut = 0
            backend = connection.scalar(sa.select(sa.func.pg_backend_pid()))
            with self._engine.connect() as other:
                other.execute(sa.select(sa.func.pg_terminate_backend(backend, 5000)))


def test_the_lease_is_renewed_while_bytes_move(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    (transfer_id,) = observatory.schedule(Operation.PACKING)
    with Renewals(observatory.engine) as renewals:
        pack(replace(observatory.worker, lease=timedelta(milliseconds=1)), transfer_id)

    chunks_written_and_read_back = 6
    assert renewals.number > chunks_written_and_read_back
    assert observatory.copies(package_id)["ccat/buffer"].status is PhysicalCopyStatus.PRESENT


def test_a_database_that_is_away_for_a_moment_does_not_stop_a_copy(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    (transfer_id,) = observatory.schedule(Operation.PACKING)
    with Renewals(observatory.engine, cut=4) as renewals:
        pack(replace(observatory.worker, lease=timedelta(milliseconds=1)), transfer_id)

    assert renewals.number > 4
    assert observatory.copies(package_id)["ccat/buffer"].status is PhysicalCopyStatus.PRESENT
    assert observatory.one(models.LongTermArchiveTransfer).retry_count == 0


def test_a_file_that_is_corrected_while_it_is_packed_is_packed_anew(
    observatory: Observatory, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_id = observatory.observe({"a.fits": b"too early"})
    [file] = [observatory.one(models.RawDataFile)]
    complete = b"complete"

    def write_and_correct(order: packing._Order) -> packing._Packed:
        packed = write(order)
        (observatory.directory("ccat/chai_raw_data") / "a.fits").write_bytes(complete)
        corrected = NewFile(file.id, "a.fits", len(complete), digest(complete))
        with transaction(observatory.engine) as session:
            module, location = "CHAI/LFA", "ccat/chai_raw_data"
            scan_id = file.executed_obs_unit_id
            add_files(session, scan_id, [corrected], module=module, location=location, replace=True, by="CHAI")
        return packed

    write = packing._write
    with monkeypatch.context() as patched:
        patched.setattr(packing, "_write", write_and_correct)
        observatory.do(Operation.PACKING)
    failure = observatory.one(models.LongTermArchiveTransfer).failure or ""
    assert "were corrected while they were being packed. It is tried again." in failure
    observatory.do_all()
    observatory.request_staging([package_id])
    observatory.do_all()
    staged = observatory.directory("cologne/ramses") / observatory.copies(package_id)["cologne/ramses"].path
    assert (staged / "a.fits").read_bytes() == complete


def test_the_pause_grows_where_a_buffer_damages_what_is_packed_again_and_again(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    for tries in range(1, 4):
        observatory.do(Operation.PACKING)
        tar = tar_of(observatory, package_id, "ccat/buffer")
        tar.chmod(0o644)
        flip(tar)
        observatory.do(Operation.ARCHIVING)
        assert observatory.one(models.LongTermArchiveTransfer).trouble_count == tries
