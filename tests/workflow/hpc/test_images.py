"""The cache of images, with files that have the header of a SIF file and nothing else of one."""

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Barrier, Thread

import pytest

from ccat_workflow_manager.hpc.images import cache as caching
from ccat_workflow_manager.hpc.images import sif
from ccat_workflow_manager.hpc.images.cache import SifCache
from ccat_workflow_manager.hpc.images.errors import ImageAwaited, ImageNotFetched, ImageUnusable
from ccat_workflow_manager.hpc.images.fetching import Image, fetch, trouble_of_pull
from tests.workflow.hpc.bench import until

PATIENCE = timedelta(minutes=1)
CODES = {name: code for code, name in sif._ARCHITECTURES.items()}


def sif_bytes(content: bytes = b"", machine: str | None = None) -> bytes:
    code = CODES[machine or os.uname().machine]
    return b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + b"01\0" + code + b"\0" + content


def image_file(path: Path, content: bytes = b"", **keys: str) -> Image:
    path.write_bytes(data := sif_bytes(content, **keys))
    return Image(str(path), f"sha256:{hashlib.sha256(data).hexdigest()}")


@pytest.fixture
def cache(tmp_path: Path) -> SifCache:
    return SifCache(tmp_path / "cache", most_bytes=10**9, patience=PATIENCE)


def files(cache: SifCache) -> list[str]:
    return sorted(path.name for path in cache._directory.glob("*.sif"))


def age(cache: SifCache, image: Image, hours: float) -> None:
    then = time.time() - hours * 3600
    os.utime(cache.place(image.digest), (then, then))


def test_an_image_is_kept_under_its_digest_and_cannot_be_written(cache: SifCache, tmp_path: Path) -> None:
    image = image_file(tmp_path / "chai.sif", b"chai")
    path = cache.require(image)
    assert path == cache.place(image.digest)
    assert path.read_bytes() == sif_bytes(b"chai")
    assert path.stat().st_mode & 0o777 == 0o444


def test_what_becomes_of_the_file_afterwards_does_not_matter(cache: SifCache, tmp_path: Path) -> None:
    image = image_file(tmp_path / "chai.sif", b"chai")
    path = cache.require(image)
    (tmp_path / "chai.sif").write_bytes(b"another")
    assert cache.require(image).read_bytes() == path.read_bytes() == sif_bytes(b"chai")


def test_an_image_that_many_want_at_once_is_fetched_once(
    cache: SifCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, fetched, together = image_file(tmp_path / "chai.sif"), list[Path](), Barrier(8)

    def counted(image: Image, to: Path, *, held: Sequence[int]) -> None:
        fetched.append(to)
        time.sleep(0.1)
        fetch(image, to, held=held)

    monkeypatch.setattr(caching, "fetch", counted)
    others = [
        SifCache(cache._directory, most_bytes=10**9, patience=PATIENCE) for _ in range(4)
    ]  # as other workers have

    def want(one: SifCache) -> None:
        together.wait()
        while True:
            try:
                one.require(image)
            except ImageAwaited:
                continue
            return

    threads = [Thread(target=want, args=(one,)) for one in (*others, cache, cache, cache, cache)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1


def test_who_asks_while_another_worker_fetches_it_is_told_to_wait(cache: SifCache, tmp_path: Path) -> None:
    image = image_file(tmp_path / "chai.sif")
    cache._directory.mkdir()
    with cache.place(image.digest).with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ImageAwaited, match=r"its image .*chai\.sif is being fetched"):
            cache.require(image)
    assert cache.require(image).exists()


def test_what_a_dead_worker_left_half_done_is_removed(cache: SifCache, tmp_path: Path) -> None:
    image = image_file(tmp_path / "chai.sif")
    cache._directory.mkdir()
    left = cache._directory / f".{cache.place(image.digest).stem}.0badcafe.sif"
    left.write_bytes(b"half")
    cache.require(image)
    assert not left.exists()
    assert [path.suffix for path in cache._directory.iterdir()].count(".sif") == 1


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), "No such file or directory .* name a SIF file that the workers can read"),
    "a directory": (replace_by_directory, "Is a directory .* name a SIF file"),
    "no image": (lambda path: path.write_text("#!/bin/sh\n"), "it is no SIF file; make one with `apptainer build"),
    "empty": (lambda path: path.write_bytes(b""), "it is no SIF file"),
    "of another processor": (
        lambda path: path.write_bytes(sif_bytes(machine="s390x")),
        r"it was built for s390x, and this is \w+; build it for",
    ),
    "another one": (
        lambda path: path.write_bytes(sif_bytes(b"other")),
        "its digest is sha256:[0-9a-f]{64}, and sha256:[0-9a-f]{64} was released; put back what was, or release a new",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_image_that_cannot_be_used_is_refused_in_one_line(cache: SifCache, tmp_path: Path, kind: str) -> None:
    image, (spoil, said) = image_file(tmp_path / "chai.sif", b"chai"), WRONG[kind]
    spoil(tmp_path / "chai.sif")
    with pytest.raises(ImageUnusable, match=said) as caught:
        cache.require(image)
    assert not caught.value.transient
    assert "\n" not in str(caught.value)
    assert files(cache) == []


def test_a_failure_is_told_to_all_that_ask_for_a_while_and_then_tried_again(
    cache: SifCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, fetched = Image("https://127.0.0.1/chai.sif", f"sha256:{'0' * 64}"), list[Path]()

    def fail(image: Image, to: Path, **_: object) -> None:
        fetched.append(to)
        raise ImageNotFetched(image.reference, "no answer")

    monkeypatch.setattr(caching, "fetch", fail)
    for _ in range(3):
        with pytest.raises(ImageNotFetched, match="no answer"):
            cache.require(image)
    assert len(fetched) == 1
    monkeypatch.setattr(caching, "_REMEMBERED_S", -1.0)
    with pytest.raises(ImageAwaited):  # it has failed again, and that is too long ago
        cache.require(image)
    assert len(fetched) == 2


def test_a_file_that_was_mended_is_taken_at_once_also_where_nobody_had_heard_that_it_failed(tmp_path: Path) -> None:
    cache = SifCache(tmp_path / "cache", most_bytes=10**9, patience=timedelta())
    image = image_file(tmp_path / "chai.sif")
    mended = (tmp_path / "chai.sif").rename(tmp_path / "aside.sif")
    with contextlib.suppress(ImageAwaited, ImageUnusable):
        cache.require(image)
    until(lambda: not cache._fetches)
    with pytest.raises(ImageUnusable):
        cache.require(image)
    mended.rename(tmp_path / "chai.sif")
    until(lambda: is_here(cache, image))


def is_here(cache: SifCache, image: Image) -> bool:
    try:
        return cache.require(image).exists()
    except ImageAwaited:
        return False


def test_trouble_of_making_room_is_none_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[object]()
    monkeypatch.setattr("threading.excepthook", told.append)

    def away() -> list[str]:
        raise ConnectionError

    cache = SifCache(tmp_path / "cache", most_bytes=1, in_use=away, patience=PATIENCE)
    assert cache.require(image_file(tmp_path / "chai.sif")).exists()
    assert len(told) == 1


def test_where_the_disk_is_full_what_nobody_needs_makes_room(
    cache: SifCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, image, tries = image_file(tmp_path / "old.sif", b"old"), image_file(tmp_path / "chai.sif"), list[int]()
    cache.require(old)
    age(cache, old, hours=9)

    def fetch_into_what_is_left(image: Image, to: Path, *, held: Sequence[int]) -> None:
        tries.append(len(files(cache)))
        if files(cache):
            raise OSError(errno.ENOSPC, "No space left on device")
        fetch(image, to, held=held)

    monkeypatch.setattr(caching, "fetch", fetch_into_what_is_left)
    cache.require(image)
    assert tries == [1, 0]
    assert files(cache) == [cache.place(image.digest).name]


def test_drafts_of_the_dead_are_removed_whatever_is_fetched_next(cache: SifCache, tmp_path: Path) -> None:
    cache._directory.mkdir()
    for digit in "12":
        (cache._directory / f".{digit * 64}.0badcafe.sif").write_bytes(b"half")
        (cache._directory / f"{digit * 64}.lock").touch()
    with (cache._directory / f"{'2' * 64}.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache.require(image_file(tmp_path / "chai.sif"))
        until(lambda: not cache._fetches)
        until(lambda: not list(cache._directory.glob(f".{'1' * 64}.*")))
        assert [path.name for path in cache._directory.glob(".*")] == [f".{'2' * 64}.0badcafe.sif"]


def test_a_thread_that_cannot_be_started_is_tried_again(
    cache: SifCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Thread) -> None:
        raise RuntimeError

    image = image_file(tmp_path / "chai.sif")
    with monkeypatch.context() as patched:
        patched.setattr(Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            cache.require(image)
    assert cache.require(image).exists()


def test_a_disk_without_locks_is_named(cache: SifCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(ImageNotFetched, match="its disk has no file locks"):
        cache.require(image_file(tmp_path / "chai.sif"))


def test_a_cache_that_cannot_be_written_is_trouble_that_passes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = SifCache(tmp_path / "file" / "cache", most_bytes=10**9, patience=PATIENCE)
    with pytest.raises(ImageNotFetched, match=r"could not be fetched: Not a directory .* it is tried again") as caught:
        cache.require(image_file(tmp_path / "chai.sif"))
    assert caught.value.transient


def test_a_defect_of_ours_is_a_failure_that_is_told_and_not_a_run_that_waits_for_ever(
    cache: SifCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(caching, "fetch", stumble)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    with pytest.raises(ImageNotFetched, match="an unexpected error, which the log of the worker tells"):
        cache.require(image_file(tmp_path / "chai.sif"))


def test_past_its_bounds_the_cache_gives_up_what_was_wanted_least_recently(tmp_path: Path) -> None:
    cache = SifCache(tmp_path / "cache", most_bytes=2 * len(sif_bytes(b"a" * 1000)), patience=PATIENCE)
    images = [image_file(tmp_path / f"{number}.sif", str(number).encode() * 1000) for number in range(4)]
    for hours, image in zip((5, 9, 7), images, strict=False):
        cache.require(image)
        age(cache, image, hours)
    cache.require(images[3])
    until(lambda: len(files(cache)) == 2)
    assert files(cache) == sorted(cache.place(image.digest).name for image in (images[0], images[3]))


def test_an_image_that_is_in_use_or_was_wanted_lately_stays(tmp_path: Path) -> None:
    images = [image_file(tmp_path / f"{number}.sif", str(number).encode() * 1000) for number in range(3)]
    cache = SifCache(tmp_path / "cache", most_bytes=1, in_use=lambda: [images[0].digest], patience=PATIENCE)
    for image in images[:2]:
        cache.require(image)
    age(cache, images[0], hours=9)
    cache.require(images[2])
    until(lambda: not cache._fetches)
    assert len(files(cache)) == 3
    age(cache, images[0], hours=9)
    age(cache, images[1], hours=9)
    cache.place(images[2].digest).unlink()
    cache.require(images[2])
    until(lambda: len(files(cache)) == 2)
    assert files(cache) == sorted(cache.place(image.digest).name for image in (images[0], images[2]))


IMAGE = Image("docker://quay.example/chai:1", "sha256:" + "0" * 64)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("FATAL:   While making image from oci registry: manifest unknown: manifest unknown", ImageUnusable),
        ("FATAL:   while fetching: reading manifest 1 in quay.example/chai: unauthorized: denied", ImageUnusable),
        ("FATAL:   reading manifest sha256:00429 in 127.0.0.1:34299/chai: manifest unknown", ImageUnusable),
        ("FATAL:   received unexpected HTTP status: 429 denied", ImageNotFetched),
        ("FATAL:   While pulling: dial tcp: lookup quay.example: no such host", ImageNotFetched),
        ("FATAL:   While pulling: dial tcp 10.0.0.1:443: i/o timeout", ImageNotFetched),
        ("FATAL:   While pulling: write /cache/x: no space left on device", ImageNotFetched),
        ("FATAL:   While pulling: received unexpected HTTP status: 503 Service Unavailable", ImageNotFetched),
        ("FATAL:   While pulling: toomanyrequests: 429: denied: rate limit exceeded", ImageNotFetched),
        ("FATAL:   While pulling: open /cache/.0.1.sif: permission denied", ImageNotFetched),
        ("FATAL:   while extracting: mkdir /scratch/build-temp-1: permission denied", ImageNotFetched),
        ("", ImageNotFetched),
    ],
)
def test_what_a_registry_will_never_give_is_not_asked_for_again(said: str, kind: type[Exception]) -> None:
    assert type(trouble_of_pull(IMAGE, said, code=255, here=Path("/cache"))) is kind
