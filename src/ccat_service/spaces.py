"""What is free on the disks that a worker serves, and whether it can write there.

It is written down for those who see the database only.
"""

import os
import platform
import shutil
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from errno import EDQUOT, EEXIST, ENOENT, ENOMEDIUM, ENOSPC
from functools import partial
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ccat_ops_db.plan.marks import MARK, UNFINISHED_MARK, Mark, read
from ccat_ops_db.plan.spaces import UNREAD, trouble_of, without_inodes
from ccat_ops_db.queries.spaces import bore_mark, holds_data, identity_of, takes_files
from ccat_ops_db.session import database_time, transaction
from ccat_ops_db.verbs.spaces import record_marked, record_space, record_trouble
from ccat_service.looking import EVERY, Look, looking
from ccat_service.stop import Stop

PROBE: Final = ".ccat-can-be-written"
"""One name for all who look: what one that died has left is removed by the next."""


class NothingThere(FileNotFoundError):
    """The directory of a location is empty, as where its disk is not mounted."""

    def __init__(self, root: Path) -> None:
        super().__init__(ENOENT, "it is empty, as a directory where nothing is mounted", str(root))


class AnothersDirectory(OSError):
    """The directory of a location is that of another one."""

    def __init__(self, root: Path, of: str) -> None:
        super().__init__(EEXIST, f"it is the directory of {of}, as its file {MARK} says", str(root))


class UnmarkedDirectory(OSError):
    """The directory of a location has files, and not the mark that it bore: another disk, or none, is mounted."""

    def __init__(self, root: Path) -> None:
        super().__init__(ENOMEDIUM, f"it has files, and not the file {MARK} that it bore", str(root))


@dataclass(frozen=True)
class _Seen:
    free: int | None = None
    total: int | None = None
    trouble: str | None = None
    is_empty: bool = False


@dataclass(frozen=True)
class _Found:
    """What the directory of a location says of itself."""

    root: Path
    mark: Mark | None
    is_empty: bool
    lacks_mark: bool


@contextmanager
def watching_space(
    engine: Engine,
    roots: Callable[[], Mapping[int, Path]],
    *,
    bases: Mapping[int, Path] = MappingProxyType({}),
    stop: Stop,
    interval: timedelta = EVERY,
) -> Iterator[None]:
    """Look at the disks of locations again and again, inside the `with` block.

    `roots` are their directories by then: it is asked each time, as locations are added and moved. `bases` are the
    directories of their runs, where it is tried to write.
    """

    def looks() -> Mapping[Hashable, Look]:
        found = roots().items()
        return {(one, root): partial(measure_space, engine, one, root, base=bases.get(one)) for one, root in found}

    with looking(looks, "tell how much space is free", stop=stop, interval=interval):
        yield


def measure_space(engine: Engine, location_id: int, root: Path, *, base: Path | None = None) -> None:
    """Write down what is free on the disk of a location, and whether its runs can be written in `base`, if it is given.

    Without a `base`, whether a buffer or an archive can be written. Raises OSError then where the disk cannot be seen,
    or another lies in its place, as its mark says or as it is empty; that is written down too. By the database's clock,
    when it began: what went since then is not seen.
    """
    began = monotonic()
    seen = _see(root, base) if base else _see_place(engine, location_id, root)
    with transaction(engine) as session:
        is_new = base is not None and seen.is_empty and not holds_data(session, location_id)
        trouble = None if is_new else seen.trouble
        # Else nothing of it can be used, or it is that of another disk.
        is_known = trouble is None or seen.free == 0 or base is None
        free, total = (seen.free, seen.total) if is_known else (None, None)
        then = database_time(session) - timedelta(seconds=monotonic() - began)
        record_space(session, location_id, free=free, total=total, trouble=trouble, now=then)


def _see_place(engine: Engine, location_id: int, root: Path) -> _Seen:
    """What is free where no runs are; raises OSError where nothing can be read, and writes down why."""
    try:
        seen, found = _measure(root), _Found(root, mark_of(root), _is_empty(root), lacks_mark(root))
        with transaction(engine) as session:
            is_written = takes_files(session, location_id)
            _require_own(session, location_id, found)
    except OSError as error:
        trouble = trouble_of(error, host=platform.node(), usually=UNREAD)
        with transaction(engine) as session:
            record_trouble(session, location_id, trouble=trouble, now=database_time(session))
        raise
    return _if_written(root, seen) if is_written else seen


def _require_own(session: Session, location_id: int, found: _Found) -> None:
    """Raise OSError where what was found is not the disk of a location; its mark is noted."""
    identity = identity_of(session, location_id)
    if found.mark is not None and identity is not None:
        if found.mark.identity != identity:
            raise AnothersDirectory(found.root, found.mark.location)
        record_marked(session, location_id)
    if found.is_empty and holds_data(session, location_id):
        raise NothingThere(found.root)
    if found.lacks_mark and bore_mark(session, location_id):
        raise UnmarkedDirectory(found.root)


def _if_written(root: Path, seen: _Seen) -> _Seen:
    """What is free, and what keeps files from being put there: what lies there can be read all the same."""
    try:
        _write_in(root)
    except OSError as error:
        if error.errno == ENOSPC:  # told of by what is free
            return seen
        return replace(seen, free=0 if error.errno == EDQUOT else seen.free, trouble=told(error))
    return seen


def _measure(root: Path) -> _Seen:
    usage = shutil.disk_usage(root)
    if not has_inodes(root):  # to delete something helps, as on a full disk
        return _Seen(0, usage.total, trouble=without_inodes(host=platform.node()))
    return _Seen(usage.free, usage.total)


def has_inodes(root: Path) -> bool:
    """Whether a file system takes another file, as far as it says so: some make inodes as they are needed."""
    found = os.statvfs(root)
    return found.f_files == 0 or found.f_favail > 0


def _see(root: Path, base: Path) -> _Seen:
    measured = _Seen()
    try:
        measured = _measure(root)
        try_to_write(root, base)
    except OSError as error:
        if error.errno == EDQUOT:
            return replace(measured, free=0, trouble=told(error))
        if error.errno == ENOSPC:
            return replace(measured, free=0)
        return replace(measured, trouble=told(error), is_empty=isinstance(error, NothingThere))
    return measured


def told(error: OSError) -> str:
    """What the matter is with a location where a process here could not write."""
    return trouble_of(error, host=platform.node())


def try_to_write(root: Path, base: Path) -> None:
    """Make a small file where the runs of a location lie, and remove it; raises OSError that names the directory."""
    require_mounted(root)
    _write_in(base if base.exists() or base.is_symlink() else root)


def _write_in(directory: Path) -> None:
    probe = directory / PROBE
    try:
        with probe.open("wb") as file:
            file.write(b"\n")
            file.flush()
            os.fsync(file.fileno())
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(directory)) from error


def require_mounted(root: Path) -> None:
    """Raise OSError where the disk of a location is away."""
    if _is_empty(root):
        raise NothingThere(root)


def _is_empty(root: Path) -> bool:
    """Whether a directory has nothing but the mark or a probe, which may have been left while nothing was mounted."""
    with os.scandir(root) as entries:
        return all(one.name in {MARK, UNFINISHED_MARK, PROBE} for one in entries)


def mark_of(root: Path) -> Mark | None:
    """Which location a directory says that it is; None where it does not say. Raises OSError."""
    try:
        return read((root / MARK).read_bytes())
    except FileNotFoundError:
        return None


def lacks_mark(root: Path) -> bool:
    """Whether a directory has files, and no mark, not even one that is damaged or empty. Raises OSError."""
    return not (root / MARK).exists() and not _is_empty(root)
