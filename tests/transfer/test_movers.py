"""What brings files from another site: rsync over a real SSH server, and cut off in the middle."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from ccat_data_transfer.backends.errors import LocationFails, LocationMissing, MoverFails, MoverMissing
from ccat_data_transfer.backends.movers import MovesFiles, Parcel, Rsync, copy
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import Mover, PackageState, Status
from tests.ssh_server import SshServer, ssh_server
from tests.transfer.support import Observatory, eventually, say


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh")) as found:
        yield found


@pytest.fixture(params=["copy", "rsync", "rsync without a host"])
def move(request: pytest.FixtureRequest) -> tuple[MovesFiles, str | None]:
    """Every mover, and the host that it is told."""
    if request.param == "copy":
        return copy, None
    server: SshServer = request.getfixturevalue("server")
    return Rsync(server.shell), server.host if request.param == "rsync" else None


def disk(root: Path) -> Disk:
    return Disk(name="ccat/buffer", root=root, token="t", progress=lambda: None)


def parcel(root: Path, host: str | None, **files: bytes) -> Parcel:
    (root / "raw").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (root / "raw" / name).write_bytes(content)
    named = [(f"raw/{name}", len(content)) for name, content in files.items()]
    return Parcel(origin=disk(root), host=host, files=named)


def test_all_files_come_under_their_names(tmp_path: Path, move: tuple[MovesFiles, str | None]) -> None:
    bring, host = move
    into = tmp_path / "in here"
    into.mkdir()
    wanted = parcel(tmp_path / "or igin", host, a=b"a" * 3_000_000, b=b"")
    (tmp_path / "or igin/raw/other").write_bytes(b"not asked for")
    for _ in range(2):
        bring(wanted, into, progress=lambda: None)
    assert {one.name: one.read_bytes() for one in into.iterdir()} == {"a": b"a" * 3_000_000, "b": b""}


def test_what_is_there_already_is_kept_and_the_rest_follows(
    tmp_path: Path, move: tuple[MovesFiles, str | None]
) -> None:
    bring, host = move
    wanted = parcel(tmp_path / "origin", host, a=bytes(range(256)) * 10_000)
    (tmp_path / "a").write_bytes(bytes(range(256)) * 3_000)
    inode = (tmp_path / "a").stat().st_ino
    bring(wanted, tmp_path, progress=lambda: None)
    assert (tmp_path / "a").read_bytes() == bytes(range(256)) * 10_000
    assert (tmp_path / "a").stat().st_ino == inode


def test_files_that_vanished_are_named_and_all_others_come(tmp_path: Path, move: tuple[MovesFiles, str | None]) -> None:
    bring, host = move
    wanted = parcel(tmp_path / "origin", host, a=b"a", b=b"b")
    (tmp_path / "origin/raw/a").unlink()
    wanted = replace(wanted, files=[*wanted.files, ("no/such/directory", 1)])
    into = tmp_path / "into"
    into.mkdir()
    bad = bring(wanted, into, progress=lambda: None)
    assert {path: str(problem) for path, problem in bad.items()} == {
        path: f"{tmp_path}/origin/{path} at location ccat/buffer is missing." for path in ("raw/a", "no/such/directory")
    }
    assert (into / "b").read_bytes() == b"b"


def test_an_origin_that_is_not_there_is_trouble_that_passes_and_no_file_is_called_missing(
    tmp_path: Path, move: tuple[MovesFiles, str | None]
) -> None:
    bring, host = move
    wanted = parcel(tmp_path / "origin", host, a=b"a")
    (tmp_path / "origin").rename(tmp_path / "unmounted")
    with pytest.raises((LocationMissing, MoverFails)) as error:
        bring(wanted, tmp_path, progress=lambda: None)
    assert error.value.transient


def test_of_an_origin_whose_disk_is_not_mounted_no_file_is_called_missing(
    tmp_path: Path, move: tuple[MovesFiles, str | None]
) -> None:
    bring, host = move
    wanted = parcel(tmp_path / "origin", host, a=b"a")
    (tmp_path / "origin/raw").rename(tmp_path / "unmounted")
    with pytest.raises((LocationFails, MoverFails), match="is empty, as") as error:
        bring(wanted, tmp_path, progress=lambda: None)
    assert error.value.transient


def test_a_host_that_is_away_is_trouble_that_passes(tmp_path: Path) -> None:
    with ssh_server(tmp_path) as server:
        server.stop()
        wanted = parcel(tmp_path / "origin", server.host, a=b"a")
        with pytest.raises(MoverFails, match="Connection refused") as error:
            Rsync(server.shell)(wanted, tmp_path, progress=lambda: None)
    assert error.value.transient


def test_a_host_without_rsync_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MoverMissing, match="install it, or give the route another method"):
        Rsync()(parcel(tmp_path / "origin", None, a=b"a"), tmp_path, progress=lambda: None)


def test_whoever_loses_the_lease_stops_and_leaves_nobody_at_work(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 1000\n")
    silent.chmod(0o755)
    slow = Rsync(str(silent))
    seen = []

    def lose() -> None:
        seen.append(1)
        raise KeyError

    with pytest.raises(KeyError):
        slow(parcel(tmp_path / "origin", "nobody@127.0.0.1", a=b"a"), tmp_path, progress=lose)
    assert seen == [1]
    assert not [one for one in psutil.Process().children(recursive=True) if one.name() in {"rsync", "sleep"}]


_WORKER = """
import sys
from pathlib import Path
from ccat_data_transfer.backends.movers import Parcel, Rsync
from ccat_data_transfer.backends.posix import Disk
root, into, host, shell = sys.argv[1:]
origin = Disk(name="ccat/buffer", root=Path(root), token="t", progress=lambda: None)
Rsync(shell)(Parcel(origin=origin, host=host, files=[("a", 1 << 40)]), Path(into), progress=lambda: None)
"""


def test_rsync_ends_with_a_worker_that_is_killed(tmp_path: Path, server: SshServer) -> None:
    root, into = tmp_path / "origin", tmp_path / "into"
    for directory in (root, into):
        directory.mkdir()
    (root / "a").touch()
    os.truncate(root / "a", 1 << 40)
    worker = subprocess.Popen([sys.executable, "-c", _WORKER, root, into, server.host, server.shell])
    eventually((into / "a").exists, within=60)
    left = psutil.Process(worker.pid).children(recursive=True)
    assert {one.name() for one in left} == {"rsync", "ssh"}
    worker.kill()
    worker.wait()
    try:
        _, left = psutil.wait_procs(left, timeout=30)
        assert left == []
    finally:
        for one in left:
            one.kill()
        (into / "a").unlink()


def test_packages_cross_with_rsync_over_ssh(far: Observatory, server: SshServer) -> None:
    packages = [far.observe({f"{number}.fits": os.urandom(700_000), f"{number}.txt": b"a"}) for number in range(2)]
    with transaction(far.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(method=Mover.RSYNC))
    say(far, "location", "move", "ccat/buffer", "--host", server.host)
    worker = replace(far.worker, rsync=Rsync(server.shell))
    assert [far.do(Operation.PACKING), far.ship()] == [2, 1]
    [transfer_id] = far.schedule(Operation.TRANSFERRING)
    VERBS[Operation.TRANSFERRING](worker, transfer_id)
    assert far.one(models.DataTransfer).failure is None
    far.do_all()
    assert far.one(models.DataTransfer).status is Status.COMPLETED
    assert {far.package(one).state for one in packages} == {PackageState.ARCHIVED}
