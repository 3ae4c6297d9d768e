"""The one directory under which a stack keeps everything, and the lock that gives it to one supervisor."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ccat.stack.errors import (
    AlreadyRunning,
    DataDirectoryIsAFile,
    ForeignOwner,
    NoStack,
    NotEnoughSpace,
    NotWritable,
    ParentMissing,
)
from ccat.stack.private import PRIVATE
from ccat.stack.state import read_state

ENOUGH_SPACE = 500_000_000
"""Bytes that must be free before a stack is started."""


@dataclass(frozen=True)
class StackDirectory:
    """What lies where under a data directory."""

    root: Path

    @property
    def postgresql(self) -> Path:
        """The database cluster and its password."""
        return self.root / "postgresql"

    @property
    def redis(self) -> Path:
        """Redis's configuration and append-only file."""
        return self.root / "redis"

    @property
    def pipelines(self) -> Path:
        """The run directories of the local processing location."""
        return self.storage / "cologne" / "ramses" / "pipelines"

    @property
    def images(self) -> Path:
        """The container images of the local processing location."""
        return self.root / "images"

    @property
    def storage(self) -> Path:
        """The files at the seeded data locations."""
        return self.root / "storage"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.root / "logs"

    @property
    def settings(self) -> Path:
        """The settings that our own processes read."""
        return self.root / "ccat.toml"

    @property
    def state(self) -> Path:
        """What the supervisor says about its processes."""
        return self.root / "run" / "stack.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor for as long as it lives."""
        return self.root / "run" / "lock"

    def parts(self) -> Sequence[Path]:
        """The directories that a stack needs, outer ones first."""
        return self.root, self.postgresql, self.redis, self.storage, self.logs, self.state.parent

    def log_of(self, name: str) -> Path:
        """Where a process's output goes."""
        return self.logs / f"{name}.log"


def open_directory(path: Path, *, enough_space: int = ENOUGH_SPACE) -> StackDirectory:
    """Make or check a data directory, closed to everybody else; raise DataDirectoryError when it cannot be used."""
    path = path.absolute()
    _check_place(path)
    free = shutil.disk_usage(path if path.exists() else path.parent).free
    if free < enough_space:
        raise NotEnoughSpace(path, free=free, needed=enough_space)
    directory = StackDirectory(path.resolve())
    try:
        for part in directory.parts():
            part.mkdir(exist_ok=True)
            part.chmod(PRIVATE)
    except OSError as error:
        raise NotWritable(path, error) from error
    return directory


def existing_directory(path: Path) -> StackDirectory:
    """The data directory of a stack that was started at least once; raise StackError when it is none or not ours."""
    path = path.absolute()
    if not path.exists():
        raise NoStack(path)
    _check_place(path)
    directory = StackDirectory(path.resolve())
    if not directory.lock.exists():
        raise NoStack(path)
    return directory


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise ParentMissing(path)
    if path.exists() and not path.is_dir():
        raise DataDirectoryIsAFile(path)
    if path.exists() and path.stat().st_uid != os.geteuid():
        raise ForeignOwner(path, path.stat().st_uid)


@contextlib.contextmanager
def exclusive(directory: StackDirectory) -> Iterator[None]:
    """Hold the directory inside the `with` block; raise AlreadyRunning when somebody else does.

    The kernel takes the lock back when its holder ends, however that happens.
    """
    with directory.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = read_state(directory.state)
            raise AlreadyRunning(directory.root, holder.supervisor.pid if holder else None) from None
        yield
