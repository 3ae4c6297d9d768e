"""What becomes of a transfer while a location cannot be used: it is said, tried again, and done once that is mended."""

import ctypes
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.outcomes import Transfer
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, PhysicalCopyStatus, Status
from tests.needs import do_without
from tests.transfer.support import Observatory, digest

FILES = {"night/a.fits": b"a" * 300_000, "night/b.fits": b"b" * 20_000, "empty": b""}
BAD = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)
READS = {
    Operation.PACKING: "ccat/chai_raw_data",
    Operation.TRANSFERRING: "ccat/buffer",
    Operation.UNPACKING: "cologne/buffer",
    Operation.ARCHIVING: "cologne/buffer",
    Operation.STAGING: "cologne/lta",
}
WRITES = {
    Operation.PACKING: "ccat/buffer",
    Operation.TRANSFERRING: "cologne/buffer",
    Operation.UNPACKING: "cologne/buffer",
    Operation.ARCHIVING: "cologne/lta",
    Operation.STAGING: "cologne/ramses",
}
BOTH = [*READS.items(), *((operation, place) for operation, place in WRITES.items() if READS[operation] != place)]
INTO_THE_EMPTY = [(one, place) for one, place in WRITES.items() if one is not Operation.UNPACKING]
FILES_TAKEN = {
    Operation.PACKING: 3,
    Operation.TRANSFERRING: 3,
    Operation.ARCHIVING: 4,
    Operation.STAGING: 4,
}
"""Inodes of a disk that takes the directories and no file, or only the first one: the tar without its sidecar."""


@contextmanager
def gone(root: Path) -> Iterator[None]:
    """What is mounted there is not."""
    root.rename(root.with_name("unmounted"))
    yield
    root.with_name("unmounted").rename(root)


@contextmanager
def unmounted(root: Path) -> Iterator[None]:
    """Only the directory is there where it is mounted."""
    root.rename(root.with_name("unmounted"))
    root.mkdir()
    yield
    assert list(root.iterdir()) == [], "something was written where the disk was not"
    root.rmdir()
    root.with_name("unmounted").rename(root)


@contextmanager
def mounted(root: Path, *options: str | Path) -> Iterator[None]:
    done = subprocess.run(["mount", *options, root], check=False, capture_output=True, text=True)
    if done.returncode:
        do_without(f"nothing can be mounted here, run as root to have this tested: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", root], check=True)


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    with mounted(root, "--bind", root):
        subprocess.run(["mount", "-o", "remount,bind,ro", root], check=True)
        yield


def tmpfs(options: str) -> Callable[[Path], AbstractContextManager[None]]:
    return partial(_tmpfs, options=options)


def _tmpfs(root: Path, *, options: str) -> AbstractContextManager[None]:
    return mounted(root, "-t", "tmpfs", "-o", options, "tmpfs")


@contextmanager
def forbidden(root: Path) -> Iterator[None]:
    """Not even its owner may do anything there."""
    mode = root.stat().st_mode & 0o777
    root.chmod(0)
    with as_anybody():
        yield
    root.chmod(mode)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def as_anybody() -> Iterator[None]:
    """Permissions hold for this thread too, even if it is root's."""
    libc, header, sets = ctypes.CDLL(None), _Header(0x20080522, 0), (_Sets * 2)()
    assert libc.capget(ctypes.byref(header), sets) == 0
    past_permissions = 1 << 1 | 1 << 2 | 1 << 3  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
    before = sets[0].effective
    sets[0].effective &= ~past_permissions
    assert libc.capset(ctypes.byref(header), sets) == 0
    try:
        yield
    finally:
        sets[0].effective = before
        assert libc.capset(ctypes.byref(header), sets) == 0


def on_its_way_to(observatory: Observatory, operation: Operation) -> int:
    """A package that waits for an operation."""
    package_id = observatory.observe(FILES)
    for one in READS:
        if one is Operation.TRANSFERRING:
            observatory.ship()
        if one is Operation.STAGING:
            observatory.request_staging([package_id])
        if one is operation:
            return package_id
        assert observatory.do(one) == 1
    raise AssertionError(operation)


def waiting(observatory: Observatory) -> Transfer:
    """The one transfer that waits because something went wrong."""
    [found] = [one for one in observatory.transfers() if one.not_before is not None]
    return found


def check_done(observatory: Observatory, package_id: int) -> None:
    observatory.do_all()
    observatory.request_staging([package_id])
    observatory.do_all()
    package, copies = observatory.package(package_id), observatory.copies(package_id)
    assert (package.state, package.failure) == (PackageState.ARCHIVED, None)
    assert digest((observatory.directory("cologne/lta") / copies["cologne/lta"].path).read_bytes()) == package.checksum
    staged = observatory.directory("cologne/ramses") / copies["cologne/ramses"].path
    assert {str(one.relative_to(staged)): one.read_bytes() for one in staged.rglob("*") if one.is_file()} == FILES
    assert observatory.leftovers() == []


def check_it_is_waited_for(
    observatory: Observatory, operation: Operation, place: str, trouble: Callable[[Path], AbstractContextManager[None]]
) -> str:
    """Meet a trouble twice, and then go on without it; what was said of it."""
    package_id = on_its_way_to(observatory, operation)
    with trouble(observatory.directory(place)):
        for tries in (1, 2):
            assert observatory.do(operation) == 1
            transfer = waiting(observatory)
            assert (transfer.status, transfer.trouble_count, transfer.retry_count) == (Status.PENDING, tries, 0)
    with transaction(observatory.engine) as session:
        assert session.scalars(sa.select(models.PhysicalCopy).where(models.PhysicalCopy.status.in_(BAD))).all() == []
    said = transfer.failure or ""
    assert said.startswith(f"Location {place} ({observatory.directory(place)}) "), said
    assert said.endswith(" It is tried again.")
    check_done(observatory, package_id)
    return said


@pytest.mark.parametrize(("operation", "place"), BOTH)
def test_a_location_that_vanishes_is_waited_for(far: Observatory, operation: Operation, place: str) -> None:
    said = check_it_is_waited_for(far, operation, place, gone)
    assert "is missing: no such directory here; mount or make it." in said


@pytest.mark.parametrize(("operation", "place"), BOTH)
def test_a_location_whose_disk_is_not_mounted_is_waited_for_and_nothing_is_lost_or_written_there(
    far: Observatory, operation: Operation, place: str
) -> None:
    before = far.observe({"night/before.fits": b"from before"})
    far.do_all()
    far.request_staging([before])
    far.do_all()
    said = check_it_is_waited_for(far, operation, place, unmounted)
    assert "fails: it is empty, as a directory where nothing is mounted" in said


@pytest.mark.parametrize(("operation", "place"), WRITES.items())
def test_a_location_that_is_mounted_read_only_is_waited_for(far: Observatory, operation: Operation, place: str) -> None:
    assert "fails: Read-only file system" in check_it_is_waited_for(far, operation, place, read_only)


@pytest.mark.parametrize(("operation", "place"), BOTH)
def test_a_location_that_permissions_forbid_is_waited_for(far: Observatory, operation: Operation, place: str) -> None:
    assert "fails: Permission denied" in check_it_is_waited_for(far, operation, place, forbidden)


@pytest.mark.parametrize(("operation", "place"), INTO_THE_EMPTY)
def test_a_disk_without_room_is_waited_for(far: Observatory, operation: Operation, place: str) -> None:
    said = check_it_is_waited_for(far, operation, place, tmpfs("size=256k"))
    assert "is full: needs 3" in said
    assert "free space there or raise its quota." in said


@pytest.mark.parametrize(("operation", "place"), INTO_THE_EMPTY)
def test_a_disk_that_takes_no_more_in_the_middle_is_waited_for(
    far: Observatory, operation: Operation, place: str
) -> None:
    inodes = FILES_TAKEN[operation]
    said = check_it_is_waited_for(far, operation, place, tmpfs(f"size=9m,nr_inodes={inodes}"))
    assert "has no free inodes: its file system takes no more files; remove small files that nobody needs" in said


def test_a_raw_file_that_nobody_may_read_is_named_and_waited_for(far: Observatory) -> None:
    package_id = far.observe(FILES)
    raw = far.directory("ccat/chai_raw_data") / "night/a.fits"
    with forbidden(raw):
        assert far.do(Operation.PACKING) == 1
    assert f"fails: Permission denied ({raw}); check its disk and its permissions." in (waiting(far).failure or "")
    check_done(far, package_id)
