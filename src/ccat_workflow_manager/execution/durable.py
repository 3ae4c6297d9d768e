"""Files that are there whole or not at all, whatever happens meanwhile."""

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

READ_ONLY: Final = 0o444
_ANY_EXECUTE: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


def write_read_only(path: Path, content: bytes, *, is_kept: bool = False) -> None:
    """Make or replace a file in one step; one that is kept is on disk, under its name, on return."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with draft.open("xb") as file:
        file.write(content)
        os.fchmod(file.fileno(), READ_ONLY)
        if is_kept:
            file.flush()
            os.fsync(file.fileno())
    draft.replace(path)
    if is_kept:
        sync_directory(path.parent)


def read_only_mode(mode: int) -> int:
    """Return the permissions of a published file: as executable as before, and the same whatever the umask was."""
    return 0o555 if mode & _ANY_EXECUTE else READ_ONLY


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[bool]:
    """Whether no other process or thread is inside a block with the same lock; does not wait for it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
