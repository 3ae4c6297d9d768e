"""How large files pass through memory: a window at a time, so that they push nothing else out of the page cache.

It is faster too: the same few pages are used again and again, and never many are flushed at once.
"""

import os
from io import FileIO
from pathlib import Path
from typing import Final

WINDOW: Final = 32 << 20
"""Bytes that are flushed together, and leave the page cache together."""


def forget(file: FileIO, start: int = 0, end: int = 0) -> None:
    """Have a part of a file leave the page cache, as far as it is on the disk; without an end, all behind the start."""
    os.posix_fadvise(file.fileno(), start, max(end - start, 0), os.POSIX_FADV_DONTNEED)


def is_cached(file: FileIO) -> bool:
    """Whether the next byte of a file is in the page cache; True where the file system cannot tell."""
    try:
        os.preadv(file.fileno(), [bytearray(1)], file.tell(), os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


class Passing:
    """A file being read that leaves the page cache again, if it is a large one."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._kept = 0
        self._is_large = False

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        data = self._file.read(size)
        self._kept += len(data)
        if self._kept >= WINDOW:
            forget(self._file, end=self._file.tell())
            self._kept, self._is_large = 0, True
        return data

    def close(self) -> None:
        """Close the file."""
        if self._is_large:
            forget(self._file)
        self._file.close()


class FromDisk:
    """A file being read as its disk gives it: each window leaves the page cache before it is read, and after."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._start = self._end = file.tell()

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, none at the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(WINDOW), b""))
        if self._file.tell() >= self._end:
            self._go_on()
        return self._file.read(min(size, self._end - self._file.tell()))

    def _go_on(self) -> None:
        os.fdatasync(self._file.fileno())  # what is not on the disk yet cannot leave
        before, self._start, self._end = self._start, self._end, self._end + WINDOW
        forget(self._file, before, self._end)

    def close(self) -> None:
        """Close the file."""
        forget(self._file, self._start, self._end)
        self._file.close()


def open_to_read(file: Path, *, start: int = 0, from_disk: bool = False) -> "FileIO | Passing | FromDisk":
    """A file, to be read once from `start` on: what others put into the page cache stays there.

    With `from_disk` it does not, and tells nothing of the disk: that itself is asked for each byte.
    """
    opened = file.open("rb", buffering=0)
    opened.seek(start)
    if from_disk:
        return FromDisk(opened)
    return opened if is_cached(opened) else Passing(opened)


def flush_file(file: Path) -> None:
    """Return once all of a file is on the disk; it leaves the page cache."""
    with file.open("rb", buffering=0) as opened:
        os.fsync(opened.fileno())
        forget(opened)
