"""Bytes on their way from or to a file, counted and hashed as they pass."""

import hashlib
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import Final, Protocol, Self

from ccat_data_transfer.backends.errors import FileDiffers
from ccat_data_transfer.backends.page_cache import WINDOW
from ccat_data_transfer.tar import CHUNK
from ccat_ops_db.errors import CcatError

_AHEAD: Final = 2
"""Pieces that may wait to be hashed."""
_WORTH_A_THREAD: Final = 1 << 18
"""Bytes of a piece; smaller ones are hashed on the way."""

Explain = Callable[[OSError], CcatError]
"""Makes an error of the system one that names the location."""


def checksum_of(digest: "hashlib._Hash") -> str:
    """Digest of bytes as it is written everywhere."""
    return f"sha256:{digest.hexdigest()}"


class Digest:
    """SHA-256 of bytes as they pass, worked out beside whoever moves them; closed by who is done with it."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._pieces: Queue[bytes | None] = Queue(maxsize=_AHEAD)
        self._thread: Thread | None = None

    def update(self, data: bytes) -> None:
        """Take a piece, which nobody changes any more."""
        if self._thread is None and len(data) < _WORTH_A_THREAD:
            self._digest.update(data)
            return
        if self._thread is None:
            self._thread = Thread(target=self._work, daemon=True)
            self._thread.start()
        self._pieces.put(data)

    def close(self) -> None:
        """Leave no thread; it can be gone on with all the same."""
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None

    @property
    def checksum(self) -> str:
        """Digest of all pieces so far."""
        self.close()
        return checksum_of(self._digest)

    def _work(self) -> None:
        while (data := self._pieces.get()) is not None:
            self._digest.update(data)  # it lets other threads go on meanwhile


class Opened(Protocol):
    """Bytes of a location that are there to be read."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, none at the end."""

    def close(self) -> None:
        """Give back what is needed to read on."""


class Reader:
    """A file of a location being read; closed at the end of its `with`."""

    def __init__(
        self, file: Opened, *, location: str, where: Path | str, progress: Callable[[], None], explain: Explain
    ) -> None:
        self._file = file
        self._location = location
        self._where = where
        self._progress = progress
        self._explain = explain
        self._digest = Digest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._digest.close()
        self._file.close()

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        try:
            data = self._file.read(size)
        except OSError as error:
            raise self._explain(error) from error
        self._digest.update(data)
        self._progress()
        return data

    def require(self, checksum: str) -> None:
        """Raise FileDiffers unless what was read so far has this digest."""
        if self.checksum != checksum:
            raise FileDiffers(self._location, self._where, registered=checksum, found=self.checksum)

    def drain(self) -> None:
        """Read the rest, for its digest only."""
        while self.read(CHUNK):
            pass

    @property
    def checksum(self) -> str:
        """Digest of what was read so far."""
        return self._digest.checksum


class Sink:
    """A file being written; its digest is worked out unless that is told before.

    At the end of each WINDOW, `on_window` is called with the size so far; no earlier byte is changed any more.
    """

    def __init__(
        self,
        file: FileIO,
        *,
        checksum: str | None = None,
        on_window: Callable[[int], None],
        progress: Callable[[], None],
        explain: Explain,
    ) -> None:
        self._file = file
        self._on_window = on_window
        self._progress = progress
        self._explain = explain
        self._digest = Digest() if checksum is None else None
        self._told = checksum or ""
        self._size = 0

    def write(self, data: bytes, /) -> int:
        """Write all of the data."""
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise self._explain(error) from error
        if self._digest is not None:
            self._digest.update(data)
        before, self._size = self._size, self._size + len(data)
        if self._size // WINDOW > before // WINDOW:
            self._on_window(self._size - self._size % WINDOW)
        self._progress()
        return len(data)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._size

    def close(self) -> None:
        """Leave no thread."""
        if self._digest is not None:
            self._digest.close()

    @property
    def checksum(self) -> str:
        """Digest of what was written so far, or that which it is told to have in the end."""
        return self._told if self._digest is None else self._digest.checksum
