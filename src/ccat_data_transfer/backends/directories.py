"""Directories of a disk: made, flushed to the disk, and removed."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISLNK

Progress = Callable[[], None]
"""Called for each file or directory, of which there may be very many; what it raises ends the work."""


def unwatched() -> None:
    """Progress that nobody asks about."""


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


def flush_directories(top: Path, progress: Progress) -> None:
    """The same, of a directory and all below it."""
    for directory, _, _ in os.walk(top):
        flush_directory(Path(directory))
        progress()


def files_below(top: Path) -> Iterator[Path]:
    """Files of a directory and of all below it, directory after directory in their order; none where there is none."""
    if not top.is_dir():
        return
    for directory, below, names in os.walk(top, onerror=_raise):
        below.sort()
        yield from (Path(directory, name) for name in sorted(names))


def _raise(error: OSError) -> None:
    raise error


def remove_quietly(unfinished: Path, progress: Progress = unwatched) -> None:
    """Remove what is unfinished, if that can be; what stays is removed by the next try."""
    with suppress(OSError):
        delete(unfinished, progress)


def delete(found: Path, progress: Progress) -> None:
    """Remove a file, or a directory with all that is in it; what is gone already, or by then, is fine."""
    if not found.is_dir() or found.is_symlink():
        found.unlink(missing_ok=True)
        return
    with suppress(FileNotFoundError):
        for _, below, names, inside in os.fwalk(found, topdown=False, onerror=_raise_unless_gone):
            directories = {name for name in below if not _is_link(name, inside)}
            for name in (*names, *below):
                progress()
                with suppress(FileNotFoundError):
                    (os.rmdir if name in directories else os.unlink)(name, dir_fd=inside)
        found.rmdir()


def _is_link(name: str, inside: int) -> bool:
    try:
        return S_ISLNK(os.stat(name, dir_fd=inside, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
