"""A buffer or an archive bears a mark, so that no two locations are the same directory or bucket in truth.

Then one copy would count as two, and what is deleted at the one would be gone at the other.
"""

import os
from contextlib import suppress
from pathlib import Path

from ccat_data_transfer.backends.directories import flush_directory
from ccat_data_transfer.backends.errors import AnotherDisk, AnotherLocation
from ccat_ops_db.plan.marks import MARK, UNFINISHED_MARK, Mark, written
from ccat_service.spaces import lacks_mark, mark_of


def require_own(mark: Mark | None, found: Mark | None, *, place: Path | str) -> None:
    """Raise AnotherLocation where a place bears the mark of another location than this, if this bears one at all."""
    if mark is not None and found is not None and found.identity != mark.identity:
        raise AnotherLocation(mark.location, place, of=found.location)


def require_own_disk(mark: Mark, root: Path, *, bore_mark: bool) -> None:
    """Raise AnotherLocation where a directory bears the mark of another location than this, or OSError.

    Raises AnotherDisk where it has files and bears none, while that of the location did.
    """
    require_own(mark, mark_of(root), place=root)
    if bore_mark and lacks_mark(root):
        raise AnotherDisk(mark.location, root)


def leave_mark(root: Path, mark: Mark) -> None:
    """Have a directory bear a mark, if it bears none; one that takes no file goes without."""
    unfinished = root / UNFINISHED_MARK  # one name for all: what one that died has left is removed by the next
    with suppress(OSError):
        if mark_of(root) is not None:
            return
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as file:
            file.write(written(mark))
            file.flush()
            os.fchmod(file.fileno(), 0o444)
            os.fsync(file.fileno())
        unfinished.replace(root / MARK)
        flush_directory(root)
