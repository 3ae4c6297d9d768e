"""Images that Apptainer pulls: from a registry of OCI images, and from a web server, on loopback."""

import functools
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from ccat.crashing import points
from ccat_workflow_manager.hpc.images.cache import SifCache
from ccat_workflow_manager.hpc.images.errors import ImageAwaited, ImageNotFetched, ImageUnusable
from ccat_workflow_manager.hpc.images.fetching import Image, fetch
from tests.apptainer import OPTIONS, build
from tests.oci_registry import Registry, registry
from tests.service.support import free_port

MORTAL = Path(__file__).parent / "programs/image_mortal.py"
POINTS = [point for point in points() if point.startswith("ccat_workflow_manager.hpc.images.")]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SifCache:
    monkeypatch.setenv("APPTAINER_NOHTTPS", "1")
    return SifCache(tmp_path / "cache", most_bytes=10**9, patience=timedelta(minutes=1))


@pytest.fixture
def shelf(small_image: Path) -> Iterator[Registry]:
    with registry() as found:
        found.push(small_image.parent / "sandbox")
        yield found


def image_on(shelf: Registry, *, tag: str = ":latest", digest: str | None = None) -> Image:
    return Image(f"docker://127.0.0.1:{shelf.port}/chai{tag}", digest or shelf.tag)


def run(path: Path, *command: str) -> str:
    words = ["apptainer", "--quiet", "exec", *OPTIONS, "--containall", str(path), *command]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_an_image_of_a_registry_comes_by_its_digest_whatever_its_tag_means_now(
    cache: SifCache, shelf: Registry
) -> None:
    path = cache.require(image_on(shelf, tag=":2026.1"))
    assert "FROM_IMAGE=yes" in run(path, "env")
    manifests = [asked for asked in shelf.asked if "/manifests/" in asked]
    assert manifests
    assert {asked.rpartition("/")[2] for asked in manifests} == {shelf.tag}
    before = len(shelf.asked)
    assert cache.require(image_on(shelf)) == path
    assert len(shelf.asked) == before


def test_an_image_that_the_registry_does_not_have_is_refused_in_one_line(cache: SifCache, shelf: Registry) -> None:
    with pytest.raises(ImageUnusable, match=r"manifest unknown.*; mend `image` or `image_digest`") as caught:
        cache.require(image_on(shelf, digest="sha256:" + "0" * 64))
    assert "\n" not in str(caught.value)


def test_what_is_not_what_its_digest_says_does_not_come(cache: SifCache, shelf: Registry) -> None:
    kind, content = shelf.blobs[shelf.tag]
    shelf.blobs[shelf.tag] = kind, content + b" "
    with pytest.raises((ImageUnusable, ImageNotFetched)):
        cache.require(image_on(shelf))
    assert not cache.place(shelf.tag).exists()


@pytest.mark.usefixtures("small_image")
def test_a_registry_that_does_not_answer_is_asked_again(cache: SifCache) -> None:
    image = Image(f"docker://127.0.0.1:{free_port()}/chai", "sha256:" + "0" * 64)
    with pytest.raises(ImageNotFetched, match="connection refused; it is tried again"):
        cache.require(image)


@pytest.mark.usefixtures("small_image")
def test_a_registry_that_says_nothing_any_more_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = Image(f"docker://127.0.0.1:{silent.getsockname()[1]}/chai", "sha256:" + "0" * 64)
        with pytest.raises(ImageNotFetched, match=r"it did not come within 0:00:01; it is tried again"):
            fetch(image, tmp_path / "chai.sif", longest=timedelta(seconds=1))
    assert pulls_into(tmp_path) == []


def test_a_sif_file_on_the_web_comes_if_it_is_the_one_that_was_released(cache: SifCache, small_image: Path) -> None:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(small_image.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        reference = f"http://127.0.0.1:{server.server_port}/small.sif"
        digest = f"sha256:{hashlib.sha256(small_image.read_bytes()).hexdigest()}"
        assert cache.require(Image(reference, digest)).read_bytes() == small_image.read_bytes()
        with pytest.raises(ImageUnusable, match=r"its digest is sha256:\w+, and sha256:0+ was released"):
            cache.require(Image(reference, "sha256:" + "0" * 64))
        server.shutdown()


def test_a_worker_that_is_killed_while_it_pulls_leaves_the_lock_to_what_still_pulls(
    cache: SifCache, shelf: Registry, tmp_path: Path
) -> None:
    image = image_on(shelf)
    shelf.open.clear()
    words = [sys.executable, str(MORTAL), str(cache._directory), image.reference, image.digest]
    worker = subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)})
    wait_for(lambda: any("/blobs/" in asked for asked in shelf.asked))
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    with pytest.raises(ImageAwaited):
        cache.require(image)
    shelf.open.set()
    wait_for(lambda: is_here(cache, image))
    assert "FROM_IMAGE=yes" in run(cache.place(image.digest), "env")
    assert [path.name for path in cache._directory.glob(".*")] == []


def is_of_a_pull(point: str) -> bool:
    return "fetching._run:" in point


def test_there_are_points_at_which_who_fetches_may_die() -> None:
    assert any(is_of_a_pull(point) for point in POINTS)
    assert any("_copy" in point for point in POINTS)


@pytest.mark.parametrize("point", [point for point in POINTS if "killpg" in point])
@pytest.mark.usefixtures("small_image")
def test_who_dies_while_a_pull_is_given_up_leaves_no_more_than_that_pull(point: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reference = f"docker://127.0.0.1:{silent.getsockname()[1]}/chai"
        words = [sys.executable, str(MORTAL), str(tmp_path), reference, "sha256:" + "0" * 64, "0.3"]
        done = subprocess.run(words, env={**os.environ, "CCAT_CRASH_AT": point, "TMPDIR": str(tmp_path)}, check=False)
        assert done.returncode == -signal.SIGKILL
        assert len(pulls_into(tmp_path)) == ("before" in point)
    wait_for(lambda: not pulls_into(tmp_path))


def pulls_into(directory: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    return [one for one in found if str(directory) in " ".join(one.info["cmdline"] or ())]


@pytest.mark.parametrize("point", [point for point in POINTS if "killpg" not in point])
def test_who_dies_while_an_image_is_fetched_leaves_it_to_the_next(
    point: str, cache: SifCache, shelf: Registry, small_image: Path, tmp_path: Path
) -> None:
    digest = f"sha256:{hashlib.sha256(small_image.read_bytes()).hexdigest()}"
    image = image_on(shelf) if is_of_a_pull(point) else Image(str(small_image), digest)
    if ":mkdir:" not in point:
        cache._directory.mkdir()
        (cache._directory / f".{cache.place(image.digest).stem}.0badcafe.sif").write_bytes(b"half")
        old = cache._directory / "old.sif"
        old.write_bytes(b"old")
        os.utime(old, (1, 1))
    words = [sys.executable, str(MORTAL), str(cache._directory), image.reference, image.digest]
    environment = {**os.environ, "CCAT_CRASH_AT": point, "TMPDIR": str(tmp_path)}
    assert subprocess.run(words, env=environment, check=False).returncode == -signal.SIGKILL
    wait_for(lambda: is_here(cache, image))
    assert run(cache.place(image.digest), "id")
    another = build(small_image.with_name("another.sif"), small_image.parent / "sandbox")
    assert cache.require(Image(str(another), f"sha256:{hashlib.sha256(another.read_bytes()).hexdigest()}")).exists()
    wait_for(lambda: list(cache._directory.glob(".*")) == [])


def is_here(cache: SifCache, image: Image) -> bool:
    try:
        return cache.require(image).exists()
    except ImageAwaited:
        return False


def wait_for(condition: Callable[[], bool], *, within: float = 30) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
