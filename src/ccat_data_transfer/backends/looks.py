"""What is seen of a file or directory without reading it."""

from pathlib import Path

from ccat_data_transfer.backends.base import Seal, Stored
from ccat_data_transfer.backends.directories import Progress, unwatched
from ccat_service.trees import last_change


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def seal_of(path: Path, progress: Progress = unwatched) -> Seal:
    """By what a file or directory is recognised."""
    return Seal(last_change(path, progress), path.stat().st_ino)


def look_of(tree: Path, progress: Progress) -> Stored:
    """What a directory looks like as a whole."""
    size = 0
    for file in tree.rglob("*"):
        size += file.stat().st_size if file.is_file() else 0
        progress()
    return Stored(size, None, seal_of(tree, progress))
