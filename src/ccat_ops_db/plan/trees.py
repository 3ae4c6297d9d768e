"""Products that are directories: what identifies their content."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_LINE: Final = re.compile(rb"([^\0]+)\0([0-7]+)\0([0-9a-f]{64})\n")


@dataclass(frozen=True)
class TreeFile:
    """A file of a product that is a directory: its path in it, its permissions and the digest of its bytes."""

    path: str
    mode: int
    sha256: str


def tree_listing(files: Iterable[TreeFile]) -> bytes:
    """One line per file, sorted by the bytes of the path: path, NUL, permissions in octal, NUL, digest, newline.

    Empty directories do not count.
    """
    ordered = sorted(files, key=lambda file: file.path.encode())
    return b"".join(f"{file.path}\0{file.mode:o}\0{file.sha256}\n".encode() for file in ordered)


def listed(listing: bytes) -> Iterator[TreeFile]:
    """The files of what `tree_listing` wrote."""
    for line in _LINE.finditer(listing):
        path, mode, sha256 = (part.decode() for part in line.groups())
        yield TreeFile(path, int(mode, 8), sha256)


def tree_checksum(files: Iterable[TreeFile]) -> str:
    """Return the checksum of a directory: SHA-256 of its listing."""
    return f"sha256:{hashlib.sha256(tree_listing(files)).hexdigest()}"
