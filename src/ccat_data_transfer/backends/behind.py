"""What is done beside whoever writes a file: it is brought to the disk, and read back from there."""

import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Final

from ccat_data_transfer.backends.page_cache import flush_file, forget
from ccat_data_transfer.backends.streams import Explain, checksum_of
from ccat_data_transfer.tar import CHUNK

_LOOK_S: Final = 1.0
"""While a disk is waited for, progress is told so often."""


class Behind:
    """Work that threads do beside whoever goes on: so much at once, and as much again may wait for it."""

    def __init__(self, at_once: int, *, progress: Callable[[], None], explain: Explain) -> None:
        self._pool = ThreadPoolExecutor(at_once)
        self._most = 2 * at_once
        self._under_way: deque[Future[object]] = deque()
        self._progress = progress
        self._explain = explain

    def do(self, work: Callable[[], object]) -> None:
        """Have this done; raises what earlier work met."""
        while self._under_way and (self._under_way[0].done() or len(self._under_way) >= self._most):
            self._await_first()
        self._under_way.append(self._pool.submit(work))

    def finish(self) -> None:
        """Return once everything is done; raises what it met."""
        while self._under_way:
            self._await_first()

    def close(self) -> None:
        """Leave no thread; what was not begun is not done."""
        self._pool.shutdown(cancel_futures=True)

    def _await_first(self) -> None:
        first = self._under_way.popleft()
        while not wait([first], timeout=_LOOK_S).done:
            self._progress()
        try:
            first.result()
        except OSError as error:
            raise self._explain(error) from error


def flush_files(top: Path, behind: Behind) -> None:
    """Return once all files of a directory are on the disk: many at a time, as each waits for the disk alone."""
    for directory, _, names in os.walk(top):
        for name in names:
            behind.do(partial(flush_file, Path(directory, name)))
    behind.finish()


class ReadBack:
    """A file as its disk gives it back, read window by window behind whoever writes it."""

    def __init__(self, file: FileIO, *, behind: Behind, progress: Callable[[], None]) -> None:
        """`file` can be read; `behind` does one thing at once."""
        self._file = file
        self._behind = behind
        self._progress = progress
        self._digest = hashlib.sha256()
        self._asked = 0

    def follow(self, size: int) -> None:
        """Have it read up to this size, which it has by now and nobody changes; raises what was met before."""
        self._behind.do(partial(self._read, self._asked, size))
        self._asked = size

    def checksum(self) -> str:
        """Digest of all that the disk gives, once everything was written."""
        self._behind.finish()
        self._read(self._asked, os.fstat(self._file.fileno()).st_size, progress=self._progress)
        return checksum_of(self._digest)

    def _read(self, start: int, end: int, *, progress: Callable[[], None] = lambda: None) -> None:
        os.fdatasync(self._file.fileno())
        forget(self._file, start, end)  # so that it is the disk that answers, and not the page cache
        at, buffer = start, memoryview(bytearray(min(CHUNK, end - start)))
        while got := os.preadv(self._file.fileno(), [buffer[: end - at]], at):
            self._digest.update(buffer[:got])
            at += got
            progress()
        forget(self._file, start, end)
