import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ccat_data_transfer.backends.errors import (
    FileDiffers,
    FileMissing,
    LocationFails,
    LocationFull,
    LocationMissing,
    NoInodes,
    PathLeavesLocation,
    QuotaUsedUp,
)
from ccat_data_transfer.backends.posix import Disk, Tree
from ccat_data_transfer.tar import Writable
from tests.needs import give_up
from tests.transfer.support import digest

MEGABYTE = 1_000_000


def disk_at(root: Path, *, reserve_bytes: int = 0) -> Disk:
    return Disk(name="ccat/buffer", root=root, token="1-abc", progress=lambda: None, reserve_bytes=reserve_bytes)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    root = tmp_path / "buffer"
    root.mkdir()
    return disk_at(root)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """A file system of 2 MB that takes nine files and directories, so that it can really be full."""
    root = tmp_path / "small"
    root.mkdir()
    options = "size=2m,nr_inodes=10"
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", root], check=False, capture_output=True, text=True
    )
    if mount.returncode:
        give_up(f"a small file system cannot be mounted, run as root to have this tested: {mount.stderr.strip()}")
    yield disk_at(root)
    subprocess.run(["umount", root], check=True)


def content(disk: Disk) -> list[str]:
    return sorted(str(path.relative_to(disk.root)) for path in disk.root.rglob("*") if not path.is_dir())


def test_a_published_file_is_what_was_written_and_read_only(disk: Disk) -> None:
    stored = disk.publish("raw/night/a.tar", lambda sink: sink.write(b"data"), needs=4)

    file = disk.root / "raw/night/a.tar"
    assert file.read_bytes() == b"data"
    assert file.stat().st_mode & 0o777 == 0o444
    assert (stored.size_bytes, stored.checksum, stored.seal) == (4, digest(b"data"), disk.seal("raw/night/a.tar"))
    assert content(disk) == ["raw/night/a.tar"]


def test_what_fails_in_the_middle_leaves_the_old_file_and_nothing_else(disk: Disk) -> None:
    disk.publish("a.tar", lambda sink: sink.write(b"old"), needs=3)

    def fail(sink: Writable) -> None:
        sink.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        disk.publish("a.tar", fail, needs=3)
    assert content(disk) == ["a.tar"]
    assert (disk.root / "a.tar").read_bytes() == b"old"


def test_what_a_killed_process_left_is_removed_by_the_next_try_and_other_files_are_not(disk: Disk) -> None:
    (disk.root / "a.tar.partial-1-dead").write_bytes(b"half")
    (disk.root / "b.tar.partial-2-busy").write_bytes(b"half")
    disk.publish("a.tar", lambda sink: sink.write(b"data"), needs=4)

    assert content(disk) == ["a.tar", "b.tar.partial-2-busy"]


def test_a_published_tree_appears_whole_with_read_only_files(disk: Disk) -> None:
    def write(tree: Tree) -> None:
        for name in ("x.fits", "night/y.fits"):
            with tree.writing(name) as sink:
                sink.write(name.encode())
        assert disk.seal("raw/p1") is None

    stored = disk.publish_tree("raw/p1", write, needs=18)

    assert disk.files("raw/p1") == {"x.fits", "night/y.fits"}
    assert stored.size_bytes == 18
    assert {path.stat().st_mode & 0o777 for path in disk.root.rglob("*.fits")} == {0o444}
    assert content(disk) == ["raw/p1/night/y.fits", "raw/p1/x.fits"]


def test_a_removed_tree_is_gone_with_everything_in_it(disk: Disk) -> None:
    (disk.root / "raw/p1/night").mkdir(parents=True)
    (disk.root / "raw/p1/night/x.fits").touch(mode=0o444)
    (disk.root / "raw/p1/link").symlink_to(disk.root / "raw")
    (disk.root / "raw/p2").touch()
    disk.remove("raw/p1")

    assert [one.name for one in (disk.root / "raw").iterdir()] == ["p2"]


MANY = 30


def fill(disk: Disk, path: str = "raw/p1") -> None:
    """Make a directory of many small files, as cubes are."""

    def write(tree: Tree) -> None:
        for number in range(MANY):
            with tree.writing(f"{number % 3}/{number}") as sink:
                sink.write(b"x")

    disk.publish_tree(path, write, needs=MANY)


class Stopped(Exception):
    """The lease is lost."""


class Steps:
    """Progress that is counted, and may end the work."""

    def __init__(self, *, most: int = 10**6) -> None:
        self.left = most
        self.done = 0

    def __call__(self) -> None:
        self.done += 1
        if self.done > self.left:
            raise Stopped


def watched(disk: Disk, steps: Callable[[], None]) -> Disk:
    return replace(disk, progress=steps, token="2-def")


@pytest.mark.parametrize(
    "work",
    [
        fill,
        lambda disk: disk.published_tree("old"),
        lambda disk: disk.seal("old"),
        lambda disk: disk.files("old"),
        lambda disk: list(disk.listed("old")),
        lambda disk: disk.seal_anew("old"),
        lambda disk: disk.remove("old"),
        lambda disk: disk.remove_unfinished("left"),
        lambda disk: disk.remove("gone"),
    ],
    ids=["publish", "flush", "look", "list", "stock", "seal anew", "remove", "unfinished", "of the dead"],
)
def test_whatever_is_done_with_a_large_directory_keeps_a_lease_alive(
    disk: Disk, work: Callable[[Disk], object]
) -> None:
    for path in ("old", "left.partial-1-dead", "gone.removed-1-dead"):
        fill(disk, path)
    steps = Steps()
    work(watched(disk, steps))
    assert steps.done >= MANY


def test_who_loses_the_lease_in_the_middle_of_a_removal_is_followed_by_another(disk: Disk) -> None:
    fill(disk)
    with pytest.raises(Stopped):
        watched(disk, Steps(most=MANY // 2)).remove("raw/p1")
    assert disk.seal("raw/p1") is None
    assert content(disk) != []
    disk.remove("raw/p1")
    assert list((disk.root / "raw").iterdir()) == []


def test_two_that_remove_the_same_directory_do_not_hinder_one_another(disk: Disk) -> None:
    fill(disk)
    done: list[bool] = []

    def sleep_once() -> None:
        if not done:
            done.append(True)
            disk.remove("raw/p1")

    watched(disk, sleep_once).remove("raw/p1")
    assert done
    assert list((disk.root / "raw").iterdir()) == []


def test_what_cannot_be_looked_at_in_the_middle_of_its_removal_has_its_name_again(disk: Disk) -> None:
    fill(disk)
    sealed = disk.seal("raw/p1")
    with pytest.raises(Stopped):
        watched(disk, Steps(most=3)).remove("raw/p1", sealed=sealed)
    assert (disk.seal("raw/p1"), len(disk.files("raw/p1"))) == (sealed, MANY)


@pytest.mark.parametrize("path", ["../secret", "link/secret", "/etc/hostname", "raw/../../secret"])
def test_no_path_leads_out_of_the_root(disk: Disk, path: str) -> None:
    (disk.root.parent / "secret").write_bytes(b"secret")
    (disk.root / "link").symlink_to("..")

    with pytest.raises(PathLeavesLocation, match="leads out of the location's directory"):
        disk.open(path)
    with pytest.raises(PathLeavesLocation):
        disk.publish(path, lambda sink: sink.write(b"x"), needs=1)
    assert (disk.root.parent / "secret").read_bytes() == b"secret"


def test_a_missing_file_a_directory_and_a_pipe_are_no_files(disk: Disk) -> None:
    (disk.root / "directory").mkdir()
    os.mkfifo(disk.root / "pipe")

    for name in ("gone", "directory", "pipe", "directory/gone"):
        with pytest.raises(FileMissing, match=f"{disk.root / name} at location ccat/buffer is missing"):
            disk.open(name)


def test_a_file_of_another_size_is_not_even_read(disk: Disk) -> None:
    (disk.root / "a.fits").write_bytes(b"1234")

    with pytest.raises(FileDiffers, match=r"has 4 bytes, registered was 5 bytes"):
        disk.open("a.fits", size_bytes=5)


def test_a_missing_root_is_said_and_never_made(tmp_path: Path) -> None:
    disk = disk_at(tmp_path / "unmounted")

    with pytest.raises(LocationMissing) as error:
        disk.publish("a.tar", lambda sink: sink.write(b"x"), needs=1)
    assert str(error.value) == (
        f"Location ccat/buffer ({tmp_path}/unmounted) is missing: no such directory here; mount or make it."
    )
    assert error.value.transient
    assert not disk.root.exists()


def test_what_the_file_system_refuses_is_said_with_the_location(disk: Disk) -> None:
    (disk.root / "raw").touch()

    with pytest.raises(LocationFails, match=rf"Location ccat/buffer \({disk.root}\) fails: .*check its disk") as error:
        disk.publish("raw/a.tar", lambda sink: sink.write(b"x"), needs=1)
    assert error.value.transient


def test_nothing_is_begun_where_there_is_no_room_for_it_beside_the_reserve(disk: Disk) -> None:
    full = disk_at(disk.root, reserve_bytes=10**18)

    with pytest.raises(LocationFull, match=r"is full: needs 5 MB, has .* free, of which 1e\+06 TB are its reserve"):
        full.publish("a.tar", lambda sink: sink.write(b"x"), needs=5 * MEGABYTE)
    assert content(full) == []


def test_a_disk_that_fills_up_in_the_middle_is_said_with_what_is_needed_and_left_as_it_was(small_disk: Disk) -> None:
    def write(sink: Writable) -> None:
        (small_disk.root / "of somebody else").write_bytes(bytes(MEGABYTE))
        sink.write(bytes(MEGABYTE + MEGABYTE // 2))

    with pytest.raises(LocationFull) as error:
        small_disk.publish("raw/a.tar", write, needs=MEGABYTE + MEGABYTE // 2)
    assert f"Location ccat/buffer ({small_disk.root}) is full: needs 1.5 MB, has " in str(error.value)
    assert "free space there or raise its quota." in str(error.value)
    assert error.value.transient
    assert content(small_disk) == ["of somebody else"]


def test_a_disk_without_inodes_is_not_called_full_whenever_that_is_noticed(small_disk: Disk) -> None:
    def write(tree: Tree) -> None:
        for number in range(10):
            with tree.writing(f"night/{number}.fits") as sink:
                sink.write(b"x")

    said = (
        f"Location ccat/buffer ({small_disk.root}) has no free inodes: its file system takes no more files; remove "
        "small files that nobody needs, or have it made with more inodes (`df -i` shows them)."
    )
    with pytest.raises(NoInodes) as in_the_middle:
        small_disk.publish_tree("raw/p1", write, needs=10)
    for number in range(8):
        (small_disk.root / f"of somebody else {number}").touch()
    with pytest.raises(NoInodes) as before:
        small_disk.publish("a.tar", lambda sink: sink.write(b"x"), needs=1)
    assert [str(in_the_middle.value), str(before.value)] == [said, said]
    assert in_the_middle.value.transient
    assert not any((small_disk.root / "raw").iterdir())


def test_a_quota_that_is_used_up_is_not_called_a_full_disk(disk: Disk) -> None:
    with pytest.raises(QuotaUsedUp) as error, disk.explained(5 * MEGABYTE):
        raise OSError(errno.EDQUOT, "Disk quota exceeded", "a.tar")
    assert str(error.value) == (
        f"Location ccat/buffer ({disk.root}) refuses 5 MB: the disk quota of user {os.geteuid()} is used up there; "
        "free some of what that user has there, or have its quota raised (`quota` shows it)."
    )
    assert error.value.transient
