"""Files and directories lose their name before anything of them is removed, so that what has a name is whole."""

import os
from pathlib import Path

from ccat_data_transfer.backends.base import Seal
from ccat_data_transfer.backends.directories import Progress, delete, flush_directory
from ccat_data_transfer.backends.looks import seal_of
from ccat_data_transfer.backends.names import beside, left_of
from ccat_ops_db.plan.names import REMOVED


def remove(target: Path, *, token: str, sealed: Seal | None, progress: Progress) -> Seal | None:
    """Remove what has a name, and what somebody who died has left of it; nothing being there is fine.

    With `sealed`, only what has this seal: that of anything else is returned, and it is there as before.
    """
    removed = beside(target, f"{REMOVED}{token}")
    try:
        target.rename(removed)
    except FileNotFoundError:
        remove_left(target, REMOVED, progress)
        return None
    found = _seal_or_give_back(removed, target, progress) if sealed is not None else None
    if found != sealed:
        removed.rename(target)
        return found
    delete(removed, progress)
    flush_directory(target.parent)
    return None


def give_back(target: Path) -> None:
    """Have what was half removed have its name again, where nothing else has that, and only one thing can be it."""
    if os.path.lexists(target) or not target.parent.is_dir():
        return
    left = left_of(target, REMOVED, [one.name for one in target.parent.iterdir()])
    if len(left) == 1:
        left[0].rename(target)
        flush_directory(target.parent)


def remove_left(target: Path, ending: str, progress: Progress) -> None:
    """Remove what tries have left of a file or directory, and have that on the disk."""
    if target.parent.is_dir():
        for found in left_of(target, ending, [one.name for one in target.parent.iterdir()]):
            delete(found, progress)
        flush_directory(target.parent)


def _seal_or_give_back(removed: Path, target: Path, progress: Progress) -> Seal:
    """Seal of what has lost its name, which it gets back where that cannot be seen."""
    try:
        return seal_of(removed, progress)
    except BaseException:
        removed.rename(target)
        raise
