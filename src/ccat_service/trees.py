"""What a directory looks like without its files being read."""

from collections.abc import Callable
from pathlib import Path


def last_change(path: Path, progress: Callable[[], None] | None = None) -> int:
    """When a file, or anything in a directory, changed last, in ns since 1970; `progress` is called for each.

    A file that is removed from a directory, or put into it, changes that directory.
    """
    newest = path.stat().st_mtime_ns
    for one in path.rglob("*") if path.is_dir() else ():
        newest = max(newest, one.lstat().st_mtime_ns)
        if progress is not None:
            progress()
    return max(newest, 0)
