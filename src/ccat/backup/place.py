"""The directory in which backups lie: each is there whole under its name, or not at all."""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from ccat.backup.errors import BackupExists, BackupNotWritten, BackupUnderWay, NoPlaceForBackups, NotABackup
from ccat.backup.manifest import MANIFEST, Manifest, read_manifest
from ccat.stack.private import PRIVATE

_PARTIAL: Final = ".ccat-*.partial"
_DOOMED: Final = ".ccat-*.removed"


@dataclass(frozen=True)
class Backup:
    """A backup that lies there."""

    path: Path
    manifest: Manifest


def name_of(taken_at: datetime) -> str:
    """Name of the backup of a moment."""
    return f"ccat-{taken_at:%Y%m%dT%H%M%SZ}"


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """The directory, made where it is missing, for us alone; what a killed backup left there is removed first."""
    descriptor = _open(directory)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BackupUnderWay(directory) from None
    else:
        for pattern in (_PARTIAL, _DOOMED):
            for leftover in directory.glob(pattern):
                shutil.rmtree(leftover)
        yield
    finally:
        os.close(descriptor)


def _open(directory: Path) -> int:
    if (directory / MANIFEST).exists():
        raise NoPlaceForBackups(directory, "it is a backup itself")
    try:
        directory.mkdir(mode=PRIVATE, exist_ok=True)
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise NoPlaceForBackups(directory, error.strerror or str(error)) from error


@contextmanager
def draft(directory: Path, name: str) -> Iterator[Path]:
    """A private directory to write a backup into; at the end of the block it is on disk, and gets its name.

    Where the block raises an error nothing is left. Raises BackupExists and BackupNotWritten.
    """
    final, partial = directory / name, directory / f".{name}.partial"
    if final.exists():
        raise BackupExists(final)
    try:
        partial.mkdir(mode=PRIVATE)
        yield partial
        for path in (*partial.iterdir(), partial):
            _sync(path)
        partial.rename(final)
        _sync(directory)
    except OSError as error:
        raise BackupNotWritten(directory, error.strerror or str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def backups_in(directory: Path) -> list[Backup]:
    """Every directory there that carries our manifest, the oldest backup first; what is not ours is passed over."""
    found = []
    for path in directory.glob("ccat-*"):
        with suppress(NotABackup):
            if not path.is_symlink():
                found.append(Backup(path, read_manifest(path)))
    return sorted(found, key=lambda one: one.manifest.taken_at)


def superfluous(backups: Sequence[Backup], made: Manifest, *, keep: int) -> list[Backup]:
    """Of backups, the oldest first, the older ones of an installation where `keep` stay with the one that was made."""
    older = [one for one in _ours(backups, made) if one.manifest.taken_at < made.taken_at]
    return older[: max(len(older) + 1 - keep, 0)]


def dated_later(backups: Iterable[Backup], made: Manifest) -> list[Backup]:
    """Of backups those of an installation dated later than the one that was made: some clock was wrong."""
    return [one for one in _ours(backups, made) if one.manifest.taken_at > made.taken_at]


def _ours(backups: Iterable[Backup], made: Manifest) -> Iterator[Backup]:
    return (one for one in backups if one.manifest.installation_id == made.installation_id)


def remove(backup: Backup) -> None:
    """Remove a backup: its name goes first, so that never half of one has it."""
    doomed = backup.path.with_name(f".{backup.path.name}.removed")
    backup.path.rename(doomed)
    shutil.rmtree(doomed)
