"""Directories of a disk: made, flushed to the disk, and removed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def make_directory(directory: Path) -> None:
    """Make a directory with all above it, each on the disk by then."""
    missing = [one for one in (directory, *directory.parents) if not one.is_dir()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        flush_directory(one.parent)


def flush_directory(directory: Path) -> None:
    """Return once the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_directories(top: Path) -> None:
    """The same, of a directory and all below it."""
    for directory, _, _ in os.walk(top):
        flush_directory(Path(directory))


def files_below(top: Path) -> Iterator[Path]:
    """Files of a directory and of all below it, directory after directory in their order; none where there is none."""
    if not top.is_dir():
        return
    for directory, below, names in os.walk(top, onerror=_raise):
        below.sort()
        yield from (Path(directory, name) for name in sorted(names))


def _raise(error: OSError) -> None:
    raise error


def remove_quietly(unfinished: Path) -> None:
    """Remove what is unfinished, if that can be; what stays is removed by the next try."""
    with suppress(OSError):
        delete(unfinished)


def remove_all(directory: Path, start: str) -> None:
    """Remove whatever in a directory has a name that starts like this, and have that on the disk."""
    if directory.is_dir():
        for found in list(directory.iterdir()):
            if found.name.startswith(start):
                delete(found)
        flush_directory(directory)


def delete(found: Path) -> None:
    """Remove a file, or a directory with all that is in it; nothing being there is fine."""
    if found.is_dir() and not found.is_symlink():
        shutil.rmtree(found)
    else:
        found.unlink(missing_ok=True)
