"""Images on a disk that all hosts of a location see: each fetched once, by one, and known by its digest."""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Lock, Thread
from typing import Final

from ccat_ops_db.errors import CcatError
from ccat_service.logging import StructuredLogger
from ccat_workflow_manager.hpc.images.errors import ImageAwaited, ImageNotFetched
from ccat_workflow_manager.hpc.images.fetching import Image, confirm, fetch

_READ_ONLY: Final = 0o444
_SUFFIX: Final = ".sif"
_REMEMBERED_S: Final = 10.0
"""How long all that ask are told of one failure, before the image is asked for again."""
_SETTLING_S: Final = 3600.0
"""An image wanted so lately stays, as the job that it was wanted for may not be written down yet."""
_DEFECT: Final = "an unexpected error, which the log of the worker tells"
_log = StructuredLogger(__name__)


def nothing_in_use() -> Collection[str]:
    """No image is in use."""
    return ()


@dataclass
class _Failed:
    """Why an image is not here, and when that was first told."""

    error: CcatError
    told_at: float | None = None


class SifCache:
    """SIF files in one directory, none of which ever changes.

    Past `most_bytes` those go that were wanted least recently, but none whose digest `in_use` gives. Who asks first
    for an image waits as long as `patience`, as a small one is here by then.
    """

    def __init__(
        self,
        directory: Path,
        *,
        most_bytes: int,
        in_use: Callable[[], Collection[str]] = nothing_in_use,
        patience: timedelta = timedelta(seconds=1),
    ) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        self._in_use = in_use
        self._patience = patience.total_seconds()
        self._mutex = Lock()
        self._fetches: dict[str, Thread] = {}
        self._failed: dict[str, _Failed] = {}

    def place(self, digest: str) -> Path:
        """Where the image with a digest lies once it is here."""
        return self._directory / f"{digest.removeprefix('sha256:')}{_SUFFIX}"

    def require(self, image: Image) -> Path:
        """Return the file of an image, and begin to fetch it where it is not here.

        Raises ImageAwaited as long as that takes, and ImageUnusable or ImageNotFetched where it failed.
        """
        path = self.place(image.digest)
        if _touch(path):
            return path
        self._raise_failure(image)
        begun = self._begin(image)
        if begun is not None:
            begun.join(self._patience)
            self._raise_failure(image)
            if _touch(path):
                return path
        raise ImageAwaited(image.reference)

    def _raise_failure(self, image: Image) -> None:
        with self._mutex:
            failed = self._failed.get(image.digest)
            if failed is None:
                return
            if failed.told_at is None or time.monotonic() - failed.told_at < _REMEMBERED_S:
                failed.told_at = failed.told_at or time.monotonic()
                raise failed.error
            del self._failed[image.digest]

    def _begin(self, image: Image) -> Thread | None:
        """Start to fetch an image; None where we are at it."""
        with self._mutex:
            if image.digest in self._fetches:
                return None
            thread = Thread(target=self._fetch, args=(image,), name=f"fetch {image.reference}", daemon=True)
            self._fetches[image.digest] = thread
        thread.start()
        return thread

    def _fetch(self, image: Image) -> None:
        failed: CcatError | None = ImageNotFetched(image.reference, _DEFECT)
        try:
            self._fetch_alone(image)
            failed = None
        except CcatError as error:
            failed = error
        except OSError as error:
            failed = ImageNotFetched(image.reference, f"{error.strerror or error} ({self._directory})")
        finally:
            with self._mutex:
                if failed is not None:
                    self._failed[image.digest] = _Failed(failed)
                del self._fetches[image.digest]

    def _fetch_alone(self, image: Image) -> None:
        """Fetch an image, unless another worker is at it."""
        path = self.place(image.digest)
        self._directory.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")) as lock:
            if lock is None or path.exists():
                return
            for left in self._directory.glob(f".{path.stem}.*{_SUFFIX}"):  # by one who died at it
                left.unlink(missing_ok=True)
            draft = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{_SUFFIX}")
            try:
                fetch(image, draft, held=[lock])
                confirm(image, draft)
                draft.chmod(_READ_ONLY)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
            self._evict(path)
        _log.info("image fetched", image=image.reference, file=str(path))

    def _evict(self, kept: Path) -> None:
        """Remove what was wanted least recently, until the rest is within bounds."""
        found = {path: path.stat() for path in self._directory.glob(f"[!.]*{_SUFFIX}")}
        excess = sum(status.st_size for status in found.values()) - self._most_bytes
        if excess <= 0:
            return
        stay = {kept, *map(self.place, self._in_use())}
        oldest, now = sorted(found, key=lambda path: found[path].st_mtime), time.time()
        for path in oldest:
            if excess > 0 and path not in stay and now - found[path].st_mtime > _SETTLING_S:
                path.unlink(missing_ok=True)
                excess -= found[path].st_size
                _log.info("image removed, as the cache is full", file=str(path))
        if excess > 0:
            _log.warning("the images in use are more than the cache is to hold", excess_bytes=excess)


def _touch(path: Path) -> bool:
    """Note that a file is wanted; False where there is none."""
    try:
        os.utime(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # it is somebody else's, or its disk cannot be written: it is here all the same
        return path.exists()
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """A lock that who is given its number keeps, too; None where others have it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield None
    else:
        yield descriptor
    finally:
        os.close(descriptor)
