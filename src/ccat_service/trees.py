"""What a directory looks like without its files being read."""

from pathlib import Path


def last_change(path: Path) -> int:
    """When a file, or anything in a directory, changed last, in ns since 1970.

    A file that is removed from a directory, or put into it, changes that directory.
    """
    inside = path.rglob("*") if path.is_dir() else ()
    return max(path.stat().st_mtime_ns, *(one.lstat().st_mtime_ns for one in inside), 0)
