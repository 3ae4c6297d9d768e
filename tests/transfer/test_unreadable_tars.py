"""A tar that cannot be read, or has no room, keeps no other of its parcel; it is tried again, and made anew."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ccat_data_transfer.backends.errors import FileMissing, FileUnreadable, LocationFails, MoverFails
from ccat_data_transfer.backends.movers import MovesFiles, Parcel, Rsync, copy
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.routing import fitting
from ccat_data_transfer.tasks import VERBS
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.remaking import TIMES_UNREAD
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import Mover, PhysicalCopyStatus, Status
from ccat_service.retries import Backoff
from tests.needs import do_without
from tests.ssh_server import SshServer, ssh_server
from tests.transfer.support import Observatory
from tests.transfer.test_sites import check_archived, is_empty, trips
from tests.transfer.test_troubles import as_anybody, tmpfs

AS_ANYBODY = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
"""Permissions hold for what is started so, even if it is root's."""
_SHORT = Path("/sys/kernel/uevent_seqnum")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh"), started_with=AS_ANYBODY) as found:
        yield found


@pytest.fixture(autouse=True)
def _permissions_hold_for_rsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/rsync"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {" ".join(AS_ANYBODY)} {shutil.which("rsync")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.fixture(params=["copy", "rsync", "rsync without a host"])
def move(request: pytest.FixtureRequest) -> Iterator[tuple[MovesFiles, str | None]]:
    """Every mover, and the host that it is told."""
    server: SshServer = request.getfixturevalue("server")
    host = server.host if request.param == "rsync" else None
    with as_anybody():
        yield (copy, None) if request.param == "copy" else (Rsync(server.shell), host)


def parcel(root: Path, host: str | None, *files: str) -> Parcel:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    origin = Disk(name="ccat/buffer", root=root, token="t", progress=lambda: None)
    return Parcel(origin=origin, host=host, files=[(name, len(name)) for name in files])


def test_files_that_may_not_be_read_are_told_and_all_others_come(
    tmp_path: Path, move: tuple[MovesFiles, str | None]
) -> None:
    bring, host = move
    root, into = tmp_path / "origin", tmp_path / "into"
    into.mkdir()
    wanted = parcel(root, host, "raw/a", "raw/b", "raw/gone", "closed/c", "raw/d")
    (root / "raw/a").chmod(0)
    (root / "closed").chmod(0)
    (root / "raw/gone").unlink()
    found = bring(wanted, into, progress=lambda: None)
    (root / "closed").chmod(0o700)
    assert {path: type(told) for path, told in found.items()} == {
        "raw/a": FileUnreadable,
        "closed/c": FileUnreadable,
        "raw/gone": FileMissing,
    }
    assert str(found["raw/a"]) == (
        f"{root}/raw/a at location ccat/buffer cannot be read (Permission denied); "
        "check its permissions, and the disk that it is on."
    )
    assert {one.name for one in into.iterdir() if one.stat().st_size} == {"b", "d"}


def test_a_directory_that_may_not_be_read_within_is_told_and_others_come(
    tmp_path: Path, move: tuple[MovesFiles, str | None]
) -> None:
    bring, host = move
    root, into = tmp_path / "origin", tmp_path / "into"
    into.mkdir()
    wanted = parcel(root, host, "run/map.fits", "run/cube.zarr/0/1", "run/other.zarr/0")
    trees = [("run/map.fits", len("run/map.fits")), ("run/cube.zarr", 1), ("run/other.zarr", 1)]
    (root / "run/cube.zarr/0/1").chmod(0)
    found = bring(replace(wanted, files=trees, top="run"), into, progress=lambda: None)
    assert {path: type(told) for path, told in found.items()} == {"run/cube.zarr": FileUnreadable}
    assert (into / "map.fits").read_bytes() == b"run/map.fits"
    assert (into / "other.zarr/0").read_bytes() == b"run/other.zarr/0"


def test_a_file_whose_bytes_the_disk_does_not_give_is_told(tmp_path: Path, server: SshServer) -> None:
    if not _SHORT.exists():
        do_without(f"{_SHORT}, which says that it is longer than what it gives, is not there")
    origin = Disk(name="ccat/buffer", root=_SHORT.parent, token="t", progress=lambda: None)
    wanted = Parcel(origin=origin, host=server.host, files=[(_SHORT.name, _SHORT.stat().st_size)])
    found = Rsync(server.shell)(wanted, tmp_path, progress=lambda: None)
    assert [type(told) for told in found.values()] == [FileUnreadable]
    assert "cannot be read (No data available)" in str(found[_SHORT.name])


def test_an_origin_that_may_not_be_looked_at_is_in_trouble_itself(
    tmp_path: Path, move: tuple[MovesFiles, str | None]
) -> None:
    bring, host = move
    wanted = parcel(tmp_path / "origin", host, "raw/a")
    (tmp_path / "origin").chmod(0)
    with pytest.raises((LocationFails, MoverFails), match="Permission denied"):
        bring(wanted, tmp_path, progress=lambda: None)
    (tmp_path / "origin").chmod(0o700)


@pytest.fixture(params=[Mover.COPY, Mover.RSYNC])
def worker(far: Observatory, request: pytest.FixtureRequest, server: SshServer) -> Worker:
    """One who brings what crosses, over SSH where that is its method."""
    with transaction(far.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(method=request.param))
        session.get_one(models.DiskDataLocation, far.location_id("ccat/buffer")).host = server.host
    return replace(far.worker, rsync=Rsync(server.shell))


def packed(observatory: Observatory, number: int) -> list[int]:
    """Packages that wait to be sent."""
    packages = [observatory.observe({f"{one}.fits": os.urandom(600_000)}) for one in range(number)]
    assert observatory.do(Operation.PACKING) == number
    return packages


def tar_of(observatory: Observatory, package_id: int) -> Path:
    return observatory.directory("ccat/buffer") / observatory.copies(package_id)["ccat/buffer"].path


def lose_raw_files(observatory: Observatory, package_id: int) -> None:
    copy, file = models.PhysicalCopy, models.RawDataFile
    of_package = sa.select(copy.id).join(file, file.id == copy.raw_data_file_id)
    with transaction(observatory.engine) as session:
        ids = session.scalars(of_package.where(file.raw_data_package_id == package_id)).all()
        advance(session, copy, ids, to=PhysicalCopyStatus.MISSING, because="a test", by="a test")


def cross(observatory: Observatory, worker: Worker) -> int:
    """Send what waits, and have it brought and unpacked; how many parcels that were."""
    sent = observatory.ship()
    for transfer_id in observatory.schedule(Operation.TRANSFERRING):
        with as_anybody():
            VERBS[Operation.TRANSFERRING](worker, transfer_id)
    observatory.do(Operation.UNPACKING)
    return sent


def archiving(observatory: Observatory, package_id: int) -> models.LongTermArchiveTransfer:
    return observatory.one(models.LongTermArchiveTransfer, raw_data_package_id=package_id)


def test_a_tar_that_cannot_be_read_keeps_no_other_and_is_made_anew_in_the_end(far: Observatory, worker: Worker) -> None:
    packages = packed(far, 3)
    tar = tar_of(far, packages[1])
    tar.chmod(0)
    assert cross(far, worker) == 1
    assert trips(far) == [("ccat/buffer", "cologne/buffer", Status.COMPLETED)]
    assert far.do(Operation.ARCHIVING) == 2
    waits = archiving(far, packages[1])
    assert waits.failure == (
        f"{tar} at location ccat/buffer cannot be read (Permission denied); "
        "check its permissions, and the disk that it is on. It is tried again."
    )
    assert (waits.status, waits.trouble_count, waits.not_before is not None) == (Status.PENDING, 1, True)
    assert [cross(far, worker) for _ in range(TIMES_UNREAD - 1)] == [1] * (TIMES_UNREAD - 1)
    assert far.copies(packages[1])["ccat/buffer"].status is PhysicalCopyStatus.CORRUPT
    assert [cross(far, worker), far.do(Operation.PACKING), cross(far, worker)] == [0, 1, 1]
    far.do_all()
    for package_id in packages:
        check_archived(far, package_id)
    assert {status for *_, status in trips(far)} == {Status.COMPLETED}
    assert is_empty(far, "cologne/buffer")


def test_a_tar_that_cannot_be_read_is_left_alone_for_the_longer_the_more_often_it_could_not(
    far: Observatory, worker: Worker
) -> None:
    patient = replace(worker, backoff=Backoff(first=timedelta(hours=1), ceiling=timedelta(hours=1)))
    packages = packed(far, 2)
    tar_of(far, packages[1]).chmod(0)
    assert [cross(far, patient), cross(far, patient), len(trips(far))] == [1, 0, 1]
    tar_of(far, packages[1]).chmod(0o600)
    with transaction(far.engine) as session:
        past = sa.func.clock_timestamp() - timedelta(seconds=1)
        session.execute(sa.update(models.LongTermArchiveTransfer).values(not_before=past))
    assert cross(far, patient) == 1
    far.do_all()
    for package_id in packages:
        check_archived(far, package_id)
    assert archiving(far, packages[1]).bad_arrivals == 0


def test_a_tar_that_nothing_could_be_made_of_again_is_tried_for_as_long_as_it_takes(
    far: Observatory, worker: Worker
) -> None:
    [package_id] = packed(far, 1)
    lose_raw_files(far, package_id)
    tar_of(far, package_id).chmod(0)
    assert [cross(far, worker) for _ in range(TIMES_UNREAD + 2)] == [1] * (TIMES_UNREAD + 2)
    assert far.copies(package_id)["ccat/buffer"].status is PhysicalCopyStatus.PRESENT
    tar_of(far, package_id).chmod(0o600)
    cross(far, worker)
    far.do_all()
    check_archived(far, package_id)


def test_what_has_room_goes_and_the_rest_follows_once_it_has(far: Observatory, worker: Worker) -> None:
    packages, buffer = packed(far, 3), far.directory("cologne/buffer")
    with tmpfs("size=1500k")(buffer):
        assert cross(far, worker) == 1
        assert trips(far) == [("ccat/buffer", "cologne/buffer", Status.COMPLETED)]
        assert far.one(models.DataTransferPackage).size_bytes == sum(
            far.package(one).size_bytes or 0 for one in packages[:2]
        )
        assert [cross(far, worker), far.do(Operation.ARCHIVING)] == [1, 2]
        waits = far.one(models.DataTransfer, status=Status.PENDING)
        assert "is full: needs 6" in (waits.failure or "")
        subprocess.run(["mount", "-o", "remount,size=20M", buffer], check=True)
        cross(far, worker)
        far.do_all()
        for package_id in packages:
            check_archived(far, package_id)


@given(st.lists(st.integers(0, 100), max_size=20), st.integers(-50, 500))
def test_what_fits_together_is_as_much_as_can_be_and_at_least_something(sizes: list[int], room: int) -> None:
    needed = {str(number): size for number, size in enumerate(sizes)}
    chosen = fitting(needed, room)
    left = [size for name, size in needed.items() if name not in chosen]
    taken = sum(needed[name] for name in chosen)
    assert len(set(chosen)) == len(chosen)
    assert bool(chosen) == bool(sizes)
    if taken <= max(room, 0):
        assert all(taken + size > room for size in left)
    else:
        assert taken == min(sizes)
