"""Images on a disk that all hosts of a location see: each fetched once, by one, and known by its digest."""

import contextlib
import errno
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
from ccat_workflow_manager.hpc.images.fetching import Image, Signature, confirm, fetch, signature

_READ_ONLY: Final = 0o444
_SUFFIX: Final = ".sif"
_REMEMBERED_S: Final = 30.0
"""How long all that ask are told of a failure, before the image is asked for again."""
_SETTLING_S: Final = 3600.0
"""An image wanted so lately stays, as the job that it was wanted for may not be written down yet."""
_DEFECT: Final = "an unexpected error, which the log of the worker tells"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_LOCKS: Final = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
_log = StructuredLogger(__name__)


def nothing_in_use() -> Collection[str]:
    """No image is in use."""
    return ()


@dataclass(frozen=True)
class _Failed:
    """Why an image is not here, since when, and what the file looked like that it was to be made of."""

    error: CcatError
    at: float
    source: Signature


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
            if _touch(path):
                return path
            self._raise_failure(image)
        raise ImageAwaited(image.reference)

    def _raise_failure(self, image: Image) -> None:
        with self._mutex:
            failed = self._failed.get(image.digest)
            if failed is None:
                return
            is_old = time.monotonic() - failed.at > _REMEMBERED_S
            if is_old or failed.source != signature(image):
                del self._failed[image.digest]
                return
        raise failed.error.with_traceback(None)

    def _begin(self, image: Image) -> Thread | None:
        """Start to fetch an image; None where we are at it."""
        with self._mutex:
            if image.digest in self._fetches:
                return None
            thread = Thread(target=self._fetch, args=(image,), name=f"fetch {image.reference}", daemon=True)
            thread.start()
            self._fetches[image.digest] = thread
        return thread

    def _fetch(self, image: Image) -> None:
        source, is_new = signature(image), False
        failed: CcatError | None = ImageNotFetched(image.reference, _DEFECT)
        try:
            is_new, failed = self._fetch_alone(image), None
        except CcatError as error:
            failed = error
        except OSError as error:
            problem = "its disk has no file locks" if error.errno in _NO_LOCKS else error.strerror or str(error)
            failed = ImageNotFetched(image.reference, f"{problem} ({self._directory})")
        finally:
            with self._mutex:
                self._failed.pop(image.digest, None)
                if failed is not None:
                    self._failed[image.digest] = _Failed(failed, time.monotonic(), source)
                del self._fetches[image.digest]
        if is_new:  # what goes wrong now is no trouble of the image
            self._evict(self._most_bytes, but=image.digest)

    def _fetch_alone(self, image: Image) -> bool:
        """Fetch an image, where the disk is full at the cost of others; False where another worker is at it, or was."""
        path = self.place(image.digest)
        self._directory.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")) as lock:
            if lock is None or path.exists():
                return False
            self._remove_drafts(path.stem)
            try:
                self._bring(image, path, lock)
            except (OSError, ImageNotFetched) as error:
                if not _is_full(error):
                    raise
                self._evict(0, but=image.digest)
                self._bring(image, path, lock)
        _log.info("image fetched", image=image.reference, file=str(path))
        return True

    def _bring(self, image: Image, path: Path, lock: int) -> None:
        draft = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{_SUFFIX}")
        try:
            fetch(image, draft, held=[lock])
            confirm(image, draft)
            draft.chmod(_READ_ONLY)
            with contextlib.suppress(FileExistsError):  # by a host whose locks are its own: jobs may have it open
                path.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)

    def _remove_drafts(self, stem: str) -> None:
        """Remove what was left by those who died at fetching an image; we hold its lock."""
        for left in self._directory.glob(f".{stem}.*{_SUFFIX}"):
            left.unlink(missing_ok=True)

    def _evict(self, most_bytes: int, *, but: str) -> None:
        """Remove what was wanted least recently, until the rest is within bounds, and drafts that nobody is at."""
        stay = {self.place(digest) for digest in (but, *self._in_use())}  # asked first: what is wanted since is young
        for lock in self._directory.glob("*.lock"):
            if lock.stem != self.place(but).stem and any(self._directory.glob(f".{lock.stem}.*{_SUFFIX}")):
                self._remove_drafts_of_the_dead(lock)
        found = {path: status for path in self._directory.glob(f"[!.]*{_SUFFIX}") if (status := _status(path))}
        excess = sum(status.st_size for status in found.values()) - most_bytes
        for path in sorted(found, key=lambda path: found[path].st_mtime):
            if excess > 0 and path not in stay and _is_settled(path):
                path.unlink(missing_ok=True)
                excess -= found[path].st_size
                _log.info("image removed, as the cache is full", file=str(path))
        if excess > 0 and most_bytes:
            _log.warning("the images in use, or wanted lately, are more than the cache is to hold", excess_bytes=excess)

    def _remove_drafts_of_the_dead(self, lock: Path) -> None:
        with _locked(lock) as held:
            if held is not None:
                self._remove_drafts(lock.stem)


def _is_full(error: Exception) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return number in _FULL or "no space left" in str(error).lower()


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:  # removed by another worker
        return None


def _is_settled(path: Path) -> bool:
    """Whether nobody wanted a file for a while: looked at once more, as somebody may just now."""
    status = _status(path)
    return status is not None and time.time() - status.st_mtime > _SETTLING_S


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
