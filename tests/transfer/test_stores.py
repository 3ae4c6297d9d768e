"""What every store does, through its real door: a directory, and a server of the S3 protocol."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ccat_data_transfer.backends.base import Seal, Store
from ccat_data_transfer.backends.errors import (
    FileDiffers,
    FileMissing,
    LocationTrouble,
    PathLeavesLocation,
    ReadBackDiffers,
)
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.backends.s3.bucket import Bucket
from ccat_data_transfer.tar import CHUNK, Writable
from tests.transfer.object_store import ObjectStore, bucket_at
from tests.transfer.support import digest

TAR = "raw/2026-03-31/a.tar"
LARGE = os.urandom(3 * CHUNK + 17)


@dataclass(frozen=True)
class Case:
    """A store, and how somebody else looks at it."""

    store: Disk | Bucket
    names: Callable[[], list[str]]
    overwrite: Callable[[str, bytes], object]

    def watched(self, progress: Callable[[], None]) -> Store:
        return replace(self.store, progress=progress)


@pytest.fixture(params=["disk", "bucket"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "disk":
        root = tmp_path / "lta"
        root.mkdir()
        disk = Disk(name="cologne/lta", root=root, token="1-abc", progress=lambda: None)
        return Case(
            disk,
            lambda: sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()),
            lambda name, data: (root / name).write_bytes(data),
        )
    server: ObjectStore = request.getfixturevalue("object_store")
    return Case(
        bucket_at(server.port, part_bytes=CHUNK),
        lambda: sorted(key.removeprefix("fyst/") for key in server.list_keys()),
        lambda name, data: server.s3.put_object(Bucket="archive", Key=f"fyst/{name}", Body=data),
    )


def publish(store: Store, data: bytes, path: str = TAR) -> object:
    return store.publish(path, lambda sink: sink.write(data), needs=len(data), checksum=digest(data))


@pytest.mark.parametrize("data", [b"", b"data", LARGE[:CHUNK], LARGE], ids=["empty", "small", "one part", "large"])
def test_what_is_published_is_there_whole_and_reads_the_same(case: Case, data: bytes) -> None:
    def write(sink: Writable) -> None:
        for start in range(0, len(data), 300_000):
            sink.write(data[start : start + 300_000])
        assert sink.tell() == len(data)
        assert case.store.size(TAR) is None

    stored = case.store.publish(TAR, write, needs=len(data), checksum=digest(data))

    assert (stored.size_bytes, stored.checksum, stored.seal) == (len(data), digest(data), case.store.seal(TAR))
    assert case.store.size(TAR) == len(data)
    assert case.store.checksum(TAR) == digest(data)
    with case.store.open(TAR, size_bytes=len(data)) as reader:
        assert b"".join(iter(lambda: reader.read(100_000), b"")) == data
        reader.require(digest(data))
    assert case.names() == [TAR]


def test_a_file_is_read_in_one_go_too(case: Case) -> None:
    publish(case.store, LARGE)
    with case.store.open(TAR) as reader:
        assert reader.read() == LARGE


def test_what_is_not_what_was_announced_does_not_get_its_name(case: Case) -> None:
    with pytest.raises((FileDiffers, ReadBackDiffers), match=f"{case.store.name} .*{digest(b'other')}"):
        case.store.publish(TAR, lambda sink: sink.write(b"other"), needs=5, checksum=digest(b"right"))
    assert case.names() == []


@pytest.mark.parametrize("data", [b"new", LARGE], ids=["small", "large"])
def test_what_fails_in_the_middle_leaves_what_was_there(case: Case, data: bytes) -> None:
    publish(case.store, b"old")

    def fail(sink: Writable) -> None:
        sink.write(data)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        case.store.publish(TAR, fail, needs=len(data), checksum=digest(data))
    assert case.store.checksum(TAR) == digest(b"old")
    assert case.names() == [TAR]


def test_a_file_is_replaced_as_a_whole(case: Case) -> None:
    publish(case.store, b"old")
    publish(case.store, b"new and longer")
    assert case.store.checksum(TAR) == digest(b"new and longer")


def test_what_is_missing_is_said_and_another_size_too(case: Case) -> None:
    publish(case.store, b"1234")

    assert (case.store.size("gone"), case.store.seal("gone")) == (None, None)
    for name in ("gone", "raw/2026-03-31"):
        with pytest.raises(FileMissing, match=f"{case.store.where(name)} at location {case.store.name} is missing"):
            case.store.open(name)
    with pytest.raises(FileDiffers, match="has 4 bytes, registered was 5 bytes"):
        case.store.open(TAR, size_bytes=5)


def test_what_somebody_changed_is_noticed_when_it_is_read(case: Case) -> None:
    publish(case.store, b"1234", "plain")
    case.store.remove("plain")
    case.overwrite("plain", b"1324")
    with case.store.open("plain", size_bytes=4) as reader:
        reader.drain()
        with pytest.raises(FileDiffers, match=f"has {digest(b'1324')}, registered was {digest(b'1234')}"):
            reader.require(digest(b"1234"))


def test_a_directory_is_removed_with_all_that_is_in_it_and_what_is_called_alike_stays(case: Case) -> None:
    for name in ("cube.zarr/0.0", "cube.zarr/deep/1.0", "cube.zarr.json", "cube.zar"):
        publish(case.store, b"data", name)
    case.store.remove("cube.zarr")
    case.store.remove("cube.zarr")
    assert case.names() == ["cube.zar", "cube.zarr.json"]


def test_what_got_another_seal_is_the_same_and_not_removed_by_who_knows_the_one_before(case: Case) -> None:
    publish(case.store, b"data")
    assert case.store.seal_anew("gone") is None
    before = case.store.seal(TAR)
    found = case.store.seal_anew(TAR)
    assert found == case.store.seal(TAR)
    assert case.store.checksum(TAR) == digest(b"data")
    if isinstance(case.store, Disk):  # an object keeps its seal
        with pytest.raises(FileDiffers):
            case.store.remove(TAR, sealed=before)
    case.store.remove(TAR, sealed=found)
    assert case.names() == []


def test_what_has_the_name_by_now_is_not_removed_for_what_had_it_before(case: Case) -> None:
    publish(case.store, b"data")
    with pytest.raises(FileDiffers, match="registered was inode 7 of 1 ns"):
        case.store.remove(TAR, sealed=Seal(1, 7))
    assert case.names() == [TAR]
    case.store.remove(TAR, sealed=case.store.seal(TAR))
    case.store.remove(TAR, sealed=Seal(1, 7))
    assert case.names() == []


def test_a_file_that_is_removed_is_gone_and_others_stay(case: Case) -> None:
    publish(case.store, b"1", "raw/a.tar")
    publish(case.store, b"2", "raw/a.tar.old")
    case.store.remove("raw/a.tar")
    case.store.remove("raw/a.tar")

    assert case.names() == ["raw/a.tar.old"]
    assert case.store.seal("raw/a.tar") is None


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "raw/../../secret"])
def test_no_path_leads_out(case: Case, path: str) -> None:
    with pytest.raises(PathLeavesLocation, match="leads out of the location's directory"):
        case.store.open(path)
    with pytest.raises(PathLeavesLocation):
        publish(case.store, b"x", path)
    assert case.names() == []


class Stopped(Exception):
    pass


class Steps:
    """Counts them, and stops whoever takes them at the last one."""

    def __init__(self, last: int) -> None:
        self.number = 0
        self._last = last

    def __call__(self) -> None:
        self.number += 1
        if self.number == self._last:
            raise Stopped


def test_whoever_moves_bytes_says_so_at_each_chunk_and_can_be_stopped_at_each(case: Case) -> None:
    def write(sink: Writable) -> None:
        for start in range(0, len(LARGE), CHUNK):
            sink.write(LARGE[start : start + CHUNK])

    stops = 0
    for last in range(1, 10_000, 5):
        steps = Steps(last)
        try:
            case.watched(steps).publish(TAR, write, needs=len(LARGE), checksum=digest(LARGE))
        except Stopped:
            stops += 1
        else:
            break
    assert stops >= 2
    assert steps.number >= 8  # four chunks, each written, and read back
    assert case.store.checksum(TAR) == digest(LARGE)
    assert case.names() == [TAR]


def test_a_missing_root_is_trouble_that_passes_once_somebody_mends_it(case: Case, tmp_path: Path) -> None:
    missing = (
        replace(case.store, root=tmp_path / "unmounted")
        if isinstance(case.store, Disk)
        else replace(case.store, address=replace(case.store.address, bucket="nobody"))
    )
    for use in (missing.checksum, missing.size, missing.seal, lambda path: publish(missing, b"x", path)):
        with pytest.raises(
            LocationTrouble, match=rf"^Location {case.store.name} \(.*\) is missing: .*; .*make it\.$"
        ) as error:
            use(TAR)
        assert error.value.transient


def test_what_lies_below_a_directory_is_listed_with_what_it_is_recognised_by(case: Case) -> None:
    for name in ("raw/b/2.tar", "raw/a/1.json", "raw/b/2.json", "rawer/3.tar"):
        publish(case.store, name.encode(), name)
    listed = list(case.store.listed("raw"))
    assert [(one.path, one.size_bytes) for one in listed] == [
        (name, len(name)) for name in ("raw/a/1.json", "raw/b/2.json", "raw/b/2.tar")
    ]
    assert [one.seal for one in listed] == [case.store.seal(one.path) for one in listed]
    assert list(case.store.listed("elsewhere")) == []
    with pytest.raises(FileMissing):
        case.store.open("raw/c")


def test_where_there_is_nothing_at_all_nothing_is_listed(case: Case) -> None:
    with pytest.raises(LocationTrouble):
        list(case.store.listed("raw"))
