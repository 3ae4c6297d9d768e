"""What every kind of storage does for a transfer, whatever it stores on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ccat_data_transfer.backends.streams import Reader
from ccat_data_transfer.tar import CHUNK, Writable


@dataclass(frozen=True)
class Seal:
    """By what a file, a directory or an object is recognised without reading it."""

    mtime_ns: int
    inode: int | None
    """None for an object: it has none."""

    def __str__(self) -> str:
        return f"inode {self.inode} of {self.mtime_ns} ns"


@dataclass(frozen=True)
class Stored:
    """What was written."""

    size_bytes: int
    checksum: str | None
    """Digest of a file as read back; None for a directory."""
    seal: Seal


@dataclass(frozen=True)
class Listed:
    """A file that is there, as it is seen without reading it."""

    path: str
    size_bytes: int
    seal: Seal


class Store(Protocol):
    """A location that keeps files, as one try of one transfer uses it.

    Paths are relative to its root and never lead out of it. Errors are a LocationTrouble or a BadFile. Whatever moves
    bytes calls `progress` after every chunk; what that raises ends the work.
    """

    @property
    def name(self) -> str:
        """`site/location`."""

    def where(self, path: str) -> Path | str:
        """A file as people would look for it."""

    def open(self, path: str, *, size_bytes: int | None = None) -> Reader:
        """Reader of a file, for a `with`; raises FileMissing, or FileDiffers where its size is not `size_bytes`."""

    def checksum(self, path: str) -> str:
        """Digest of a file; raises FileMissing."""

    def publish(self, path: str, write: Callable[[Writable], object], *, needs: int, checksum: str) -> Stored:
        """Make a file of what `write` gives, in place of any that is there; raises FileDiffers for another digest.

        It appears under its name whole, and counts once it was read back and found right. `write` may be called twice,
        or not at all where an earlier try left the file. `needs` is the space that it takes at most.
        """

    def size(self, path: str) -> int | None:
        """Size of a file in bytes; None where there is none."""

    def listed(self, directory: str) -> Iterator[Listed]:
        """All files below a directory, those of each directory in it together; none where there is no such directory.

        Raises LocationTrouble where the location has nothing at all.
        """

    def was_put_as(self, path: str, checksum: str) -> bool:
        """Whether a file was put there as what has this digest: an object says so, and a file on disk has it."""

    def seal(self, path: str) -> Seal | None:
        """Seal of what has this name; None where nothing has."""

    def seal_anew(self, path: str) -> Seal | None:
        """The same, after it got another seal than who began to remove it knows.

        That of an object is never another, nor that of a file which may not be changed. What was half removed gets its
        name back.
        """

    def remove_unfinished(self, path: str) -> None:
        """Remove all that tries to make a file or directory have left, and nothing that has its name."""

    def remove(self, path: str, *, sealed: Seal | None = None) -> None:
        """Remove a file or directory, with what is unfinished of it; nothing being there is fine.

        With `sealed`, only what has this seal: raises FileDiffers where something else has the name by now.
        """


def pour(store: Store, path: str, sink: Writable, *, size_bytes: int | None, checksum: str) -> None:
    """Write what a file holds into a sink; raises BadFile where it is gone, or not what it should be."""
    with store.open(path, size_bytes=size_bytes) as source:
        while data := source.read(CHUNK):
            sink.write(data)
        source.require(checksum)


def load(store: Store, path: str, *, checksum: str | None = None) -> bytes:
    """What a small file holds; raises FileMissing, or FileDiffers where it has not the digest that is given."""
    with store.open(path) as source:
        content = b"".join(iter(lambda: source.read(CHUNK), b""))
        if checksum is not None:
            source.require(checksum)
        return content
