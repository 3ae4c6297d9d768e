"""Large files are read back from their disk while they are written, and pass by the page cache."""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from ccat_data_transfer.backends import page_cache, streams
from ccat_data_transfer.backends.errors import LocationFails, LocationFull, ReadBackDiffers
from ccat_data_transfer.backends.posix import Disk, Tree
from ccat_data_transfer.tar import CHUNK, Writable
from ccat_data_transfer.verbs.scrubbing import scrub
from tests.needs import do_without
from tests.transfer.support import Observatory, digest

WINDOW = 2 * CHUNK
DATA = os.urandom(5 * CHUNK + 17)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (page_cache, streams):
        monkeypatch.setattr(module, "WINDOW", WINDOW)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    root = tmp_path / "lta"
    root.mkdir()
    return Disk(name="cologne/lta", root=root, token="1-abc", progress=lambda: None)


@pytest.fixture
def real_disk(disk: Disk) -> Disk:
    """A disk that is not memory only."""
    disk.publish("probe", lambda sink: sink.write(DATA), needs=0)
    if cached(disk, "probe"):
        do_without(f"{disk.root} lies in memory: give pytest a --basetemp on a disk to have this tested")
    return disk


def cached(disk: Disk, path: str) -> bool:
    """Whether anything of a file is in the page cache."""
    with (
        (disk.root / path).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped,
    ):
        pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(mapped)
        assert ctypes.CDLL(None).mincore(ctypes.byref(start), ctypes.c_size_t(len(mapped)), pages) == 0
        del start
    return any(page & 1 for page in pages)


def unfinished(disk: Disk) -> Path:
    [found] = disk.root.glob("*.partial-*")
    return found


def chunks(data: bytes) -> Iterator[bytes]:
    return (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))


def read_from_disks() -> int:
    """Bytes that this process has had fetched from disks."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["read_bytes"])


@pytest.mark.parametrize("size", [0, 17, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, len(DATA)])
def test_a_file_of_any_number_of_windows_is_what_was_written(disk: Disk, size: int) -> None:
    def write(sink: Writable) -> None:
        for chunk in chunks(DATA[:size]):
            sink.write(chunk)

    stored = disk.publish("a.tar", write, needs=size)

    assert (disk.root / "a.tar").read_bytes() == DATA[:size]
    assert (stored.size_bytes, stored.checksum) == (size, digest(DATA[:size]))


def test_what_is_read_back_comes_from_the_disk_and_stays_out_of_the_page_cache(real_disk: Disk) -> None:
    def write(sink: Writable) -> None:
        for chunk in chunks(DATA):
            sink.write(chunk)

    before = read_from_disks()
    real_disk.publish("a.tar", write, needs=len(DATA))

    assert read_from_disks() - before >= len(DATA)
    assert not cached(real_disk, "a.tar")


@pytest.mark.parametrize("at", [0, 2, 4, 5], ids=["first window", "second window", "last window", "last chunk"])
def test_a_bit_that_flips_before_it_is_read_back_is_found_wherever_it_is(disk: Disk, at: int) -> None:
    def write(sink: Writable) -> None:
        for number, chunk in enumerate(chunks(DATA)):
            sink.write(chunk)
            if number == at:  # the window of this chunk is not whole yet
                flip(unfinished(disk), at * CHUNK + 5)

    with pytest.raises(ReadBackDiffers, match=f"does not keep what is written: wrote {digest(DATA)}, read back sha256"):
        disk.publish("a.tar", write, needs=len(DATA))
    assert list(disk.root.iterdir()) == []


def flip(file: Path, place: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(place)
        opened.write(bytes([DATA[place] ^ 1]))


@pytest.mark.parametrize("change", [b"more", None], ids=["longer", "shorter"])
def test_a_file_that_somebody_makes_longer_or_shorter_is_found(disk: Disk, change: bytes | None) -> None:
    def write(sink: Writable) -> None:
        for chunk in chunks(DATA):
            sink.write(chunk)
        with unfinished(disk).open("ab") as opened:
            if change is None:
                opened.truncate(len(DATA) - 1)
            else:
                opened.write(change)

    with pytest.raises(ReadBackDiffers):
        disk.publish("a.tar", write, needs=len(DATA))


def write_on(sink: Writable, *, then: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Write on and on; how many windows that are, of which something happens after the first chunk."""
    for number in count():
        sink.write(DATA[:CHUNK])
        if number == 0:
            then()
        yield number // 2


def test_an_error_of_reading_back_ends_the_writing_and_is_said_with_the_location(disk: Disk) -> None:
    windows = 0

    def make_unreadable() -> None:
        """What is read back with this descriptor is refused by the system from now on."""
        file = unfinished(disk)
        [number] = [int(one.name) for one in Path("/proc/self/fd").iterdir() if one.exists() and one.samefile(file)]
        appending = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(appending, number)
        os.close(appending)

    def write(sink: Writable) -> None:
        nonlocal windows
        for windows in write_on(sink, then=make_unreadable):
            assert windows < 10

    with pytest.raises(LocationFails, match=rf"^Location cologne/lta \({disk.root}\) fails: .*check its disk") as error:
        disk.publish("a.tar", write, needs=0)
    assert error.value.transient
    assert windows >= 1
    assert list(disk.root.iterdir()) == []


def test_a_disk_that_fills_up_while_it_is_read_back_is_said_and_left_as_it_was(disk: Disk) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk.root)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        do_without("a small file system cannot be mounted, run as root to have this tested")
    try:
        with pytest.raises(LocationFull, match="is full: needs 10 MB, has "):
            disk.publish("a.tar", lambda sink: list(write_on(sink)), needs=10_000_000)
        assert list(disk.root.iterdir()) == []
    finally:
        subprocess.run(["umount", disk.root], check=True)


class Stopped(Exception):
    """The lease is lost."""


@pytest.mark.parametrize("steps", [1, 4, 5, 7])
def test_whoever_has_lost_the_lease_stops_at_any_chunk_and_leaves_nothing(disk: Disk, steps: int) -> None:
    left = iter(range(steps))

    def progress() -> None:
        if next(left, None) is None:
            raise Stopped

    def write(sink: Writable) -> None:
        for chunk in chunks(DATA):
            sink.write(chunk)

    with pytest.raises(Stopped):
        replace(disk, progress=progress).publish("a.tar", write, needs=len(DATA))
    assert list(disk.root.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from ccat_data_transfer.backends import page_cache, streams
from ccat_data_transfer.backends.posix import Disk
page_cache.WINDOW = streams.WINDOW = 1 << 21
def write(sink):
    for _ in range(int(sys.argv[2])):
        sink.write(bytes(1 << 20))
    os.kill(os.getpid(), signal.SIGKILL)
Disk(name="cologne/lta", root=Path(sys.argv[1]), token="1-dead", progress=lambda: None).publish("a", write, needs=1)
"""


def test_whoever_is_killed_in_the_middle_leaves_nothing_under_the_name_and_the_next_one_clears_up(disk: Disk) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, disk.root, "7"], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert unfinished(disk).name == "a.partial-1-dead"
    assert disk.size("a") is None

    disk.publish("a", lambda sink: sink.write(DATA), needs=len(DATA))
    assert [file.name for file in disk.root.iterdir()] == ["a"]


def test_the_files_of_a_directory_are_on_the_disk_and_out_of_the_page_cache(real_disk: Disk) -> None:
    def write(tree: Tree) -> None:
        for name in ("a.fits", "night/b.fits"):
            with tree.writing(name) as sink:
                for chunk in chunks(DATA):
                    sink.write(chunk)
            assert sink.checksum == digest(DATA)

    stored = real_disk.publish_tree("p1", write, needs=2 * len(DATA))

    assert stored.size_bytes == 2 * len(DATA)
    assert not cached(real_disk, "p1/a.fits")
    assert not cached(real_disk, "p1/night/b.fits")


def test_a_file_of_a_directory_that_cannot_be_flushed_keeps_the_directory_from_appearing(disk: Disk) -> None:
    def write(tree: Tree) -> None:
        with tree.writing("a.fits") as sink:
            sink.write(DATA)
            (unfinished(disk) / "a.fits").unlink()

    with pytest.raises(LocationFails, match="No such file"):
        disk.publish_tree("p1", write, needs=len(DATA))
    assert list(disk.root.iterdir()) == []


def test_a_large_file_that_is_read_leaves_the_page_cache_as_it_was(real_disk: Disk) -> None:
    for was_cached in (False, True):
        if was_cached:
            assert (real_disk.root / "probe").read_bytes() == DATA
        assert real_disk.checksum("probe") == digest(DATA)
        assert cached(real_disk, "probe") == was_cached


# Reading again


@pytest.mark.parametrize("in_memory", [1, len(DATA)], ids=["its first page", "all of it"])
def test_a_file_that_is_read_from_its_disk_is_whatever_of_it_is_in_memory(real_disk: Disk, in_memory: int) -> None:
    with (real_disk.root / "probe").open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # nothing is read ahead
        file.read(in_memory)
    before = read_from_disks()
    assert replace(real_disk, from_disk=True).checksum("probe") == digest(DATA)
    assert read_from_disks() - before >= len(DATA)
    assert not cached(real_disk, "probe")


@pytest.mark.parametrize("size", [-1, 17, CHUNK, 2 * WINDOW])
@pytest.mark.parametrize("start", [0, 4097])
def test_a_file_is_the_same_however_it_is_read_from_its_disk(disk: Disk, size: int, start: int) -> None:
    data = DATA[: WINDOW + 5000]
    disk.publish("a.tar", lambda sink: sink.write(data), needs=len(data))
    with replace(disk, from_disk=True).open("a.tar", start=start) as reader:
        assert b"".join(iter(lambda: reader.read(size), b"")) == data[start:]


@pytest.mark.usefixtures("real_disk")
@pytest.mark.parametrize("location", ["cologne/lta", "ccat/buffer"])
def test_what_an_archive_reads_again_or_somebody_doubts_is_read_from_the_disk(
    observatory: Observatory, location: str
) -> None:
    package_id = observatory.observe({"a.fits": DATA})
    observatory.do_all()
    copy = observatory.copies(package_id)[location]
    tar = observatory.directory(location) / copy.path
    tar.read_bytes()
    before = read_from_disks()
    scrub(observatory.worker, [copy.id])
    assert read_from_disks() - before >= tar.stat().st_size
    assert observatory.copies(package_id)[location].verified_at != copy.verified_at
