"""Products that are directories: what identifies their content."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


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


def tree_checksum(files: Iterable[TreeFile]) -> str:
    """Return the checksum of a directory: SHA-256 of its listing."""
    return f"sha256:{hashlib.sha256(tree_listing(files)).hexdigest()}"
