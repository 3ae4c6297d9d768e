"""What brings files from a location of another site; each can be cut off anywhere, and goes on where it was."""

import errno
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Final, Protocol, TypeAlias

from ccat_data_transfer.backends.errors import (
    BadFile,
    FileMissing,
    FileUnreadable,
    LocationFails,
    MoverFails,
    MoverMissing,
    PathLeavesLocation,
)
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.tar import CHUNK
from ccat_ops_db.plan.marks import MARK
from ccat_service.processes import dying_with

_LOOK_S: Final = 0.5
_SILENT_S: Final = 120
"""After so long without a byte, rsync gives up; it is tried again."""
_FLUSHED_AFTER: Final = 256 << 20
_WRITABLE: Final = 0o600
_SAID: Final = 400
"""Characters of what a program said last that people are told."""
_NOT_ALL: Final = 23
"""How rsync ends where some files could not be read."""
_UNREAD: Final = re.compile(
    r'(?:link_stat|change_dir|opendir|send_files failed to open|read errors mapping) "(.+?)/?"(?: failed)?: '
    r"(.+) \((\d+)\)"
)
"""How it says why a file is not read, or the directory that it should be in: with the number of the error."""

_Why: TypeAlias = tuple[str, int]
"""What the system says, and the number of the error."""
_ABSENT: Final = ("no such file", errno.ENOENT)
_ENTRY: Final = re.compile(rf"^[a-z-][rwxsStT-]{{9}} (?!.* {re.escape(MARK)}(\.new)?$)", re.MULTILINE)
"""How it begins a line about something in a directory, but for its mark; a host may greet us before."""


@dataclass(frozen=True)
class Parcel:
    """Files of a location that are brought together."""

    origin: Disk
    host: str | None
    """Host of the origin, perhaps with `user@` before; None where it is seen from here."""
    files: Sequence[tuple[str, int | None]]
    """Path below the root of the origin, and size in bytes, None where that is not known; without `top` no two have the
    same name."""
    top: str | None = None
    """Directory below the root of the origin that files keep their paths from; then directories are brought as a whole,
    with their permissions. None: files arrive under their names."""

    def inside(self, path: str) -> PurePosixPath:
        """Where a file arrives, below the directory that it is brought into."""
        return (
            PurePosixPath(PurePosixPath(path).name) if self.top is None else PurePosixPath(path).relative_to(self.top)
        )


NotBrought: TypeAlias = Mapping[str, BadFile | FileUnreadable]
"""What is the matter with single files, by path."""


class MovesFiles(Protocol):
    """Brings a parcel into a directory, each file under its name; what is there of it already is kept.

    The bytes are on the disk at the end, and nobody has compared them. Raises LocationTrouble or MoverFails. `progress`
    is called again and again; what it raises ends the work.
    """

    def __call__(self, parcel: Parcel, into: Path, *, progress: Callable[[], None]) -> NotBrought:
        """What is not at the origin as it should be, or cannot be read there; all others are brought."""


def copy(parcel: Parcel, into: Path, *, progress: Callable[[], None]) -> NotBrought:
    """Bring files from a disk that is seen from here."""
    bad: dict[str, BadFile | FileUnreadable] = {}
    for path, size in parcel.files:
        try:
            _copy_any(parcel, (path, size), into)
        except BadFile as problem:
            bad[path] = problem
        except (LocationFails, PathLeavesLocation) as trouble:
            bad[path] = unreadable(parcel.origin, path, trouble)
        progress()
    return bad


def unreadable(origin: Disk, path: str, trouble: LocationFails | PathLeavesLocation) -> FileUnreadable:
    """Trouble with a file; raises LocationFails where the location as a whole is in trouble."""
    origin.require_there()
    return FileUnreadable(origin.name, origin.root / path, said=trouble.reason)


def _copy_any(parcel: Parcel, file: tuple[str, int | None], into: Path) -> None:
    """Bring a file, or all of a directory."""
    (path, size), origin = file, parcel.origin
    if origin.size(path) is not None or origin.seal(path) is None:
        _copy_one(origin, (path, size), into / parcel.inside(path))
        return
    for inner in sorted(origin.files(path)):
        place = f"{path}/{inner}"
        target = into / parcel.inside(place)
        _copy_one(origin, (place, None), target)
        target.chmod(origin.mode(place))


def _copy_one(origin: Disk, file: tuple[str, int | None], place: Path) -> None:
    path, known = file
    size = origin.size(path) or 0 if known is None else known
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.chmod(_WRITABLE)
    flushed = done = min(place.stat().st_size, size) if place.exists() else 0
    with origin.open(path, size_bytes=known, start=done) as source, place.open("ab") as target:
        target.truncate(done)
        while data := source.read(CHUNK):
            target.write(data)
            if target.tell() - flushed >= _FLUSHED_AFTER:
                flushed = _flush(target)
        _flush(target)


def _flush(target: IO[bytes]) -> int:
    target.flush()
    os.fsync(target.fileno())
    os.posix_fadvise(target.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return target.tell()


@dataclass(frozen=True)
class Rsync:
    """Brings files with rsync over SSH; a host of None is this one."""

    shell: str = "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4"
    """What rsync is told to reach the other host with."""

    def __call__(self, parcel: Parcel, into: Path, *, progress: Callable[[], None]) -> NotBrought:
        """See MovesFiles."""
        wanted = b"".join(_named(parcel, path).encode() + b"\0" for path, _ in parcel.files)
        code, said = _run(self.command(parcel, into), given=wanted, progress=progress)
        if code == 0:
            absent = [path for path, _ in parcel.files if not (into / parcel.inside(path)).exists()]
            return self._told(parcel, dict.fromkeys(absent, _ABSENT), progress=progress)
        unread = _unread(parcel, said) if code == _NOT_ALL else {}
        if not unread:
            raise MoverFails("rsync", parcel.origin.name, parcel.host, said=_last_words(said) or f"exit code {code}")
        told = self._told(parcel, unread, progress=progress)
        rest = [(path, size) for path, size in parcel.files if path not in told]
        return {**told, **(self(replace(parcel, files=rest), into, progress=progress) if rest else {})}

    def command(self, parcel: Parcel, into: Path) -> list[str]:
        """Return the command, to which the paths are given on standard input."""
        top = "" if parcel.top is None else f"{parcel.top}/"
        kept = ("--no-relative",) if parcel.top is None else ("--relative", "--recursive", "--perms")
        return [
            *("rsync", "--from0", "--files-from=-", *kept, "--no-implied-dirs"),
            *("--append-verify", "--fsync", *self._far, "--", f"{_root(parcel)}{top}", f"{into}/"),
        ]

    @property
    def _far(self) -> tuple[str, str]:
        return f"--timeout={_SILENT_S}", f"--rsh={self.shell}"

    def _told(self, parcel: Parcel, unread: Mapping[str, _Why], *, progress: Callable[[], None]) -> NotBrought:
        """Call files missing, or not to be read; not where the root of their location is empty, as its disk is away."""
        if unread:
            command = ["rsync", "--list-only", "--dirs", *self._far, "--", _root(parcel)]
            code, said = _run(command, progress=progress)
            if code != 0 or len(_ENTRY.findall(said)) <= 1:  # the root itself
                why = f"its directory {parcel.origin.root} is empty, as one where nothing is mounted"
                said = _last_words(said) if code else why
                raise MoverFails("rsync", parcel.origin.name, parcel.host, said=said)
        return {path: _trouble(parcel.origin, path, why) for path, why in unread.items()}


def _root(parcel: Parcel) -> str:
    """The root of the location that a parcel is at, as rsync is told."""
    return f"{parcel.host}:{parcel.origin.root}/" if parcel.host else f"{parcel.origin.root}/"


def _named(parcel: Parcel, path: str) -> str:
    """How rsync is told of a file."""
    return path if parcel.top is None else str(parcel.inside(path))


def _unread(parcel: Parcel, said: str) -> dict[str, _Why]:
    """Files of a parcel of which rsync said why it does not read them; of a whole location it says something else."""
    of_places: dict[Path, _Why] = {Path(place): (why, int(number)) for place, why, number in _UNREAD.findall(said)}
    of_insides = {top: why for place, why in of_places.items() for top in place.parents}
    found: dict[str, _Why] = {}
    for path, _ in parcel.files:
        file = parcel.origin.root / path
        known = [of_places[place] for place in (file, *_between(parcel, file)) if place in of_places]
        if why := next(iter(known), of_insides.get(file)):
            found[path] = why
    return found


def _between(parcel: Parcel, file: Path) -> list[Path]:
    """Directories that a file is in, below the root of its location."""
    root = parcel.origin.root
    return [directory for directory in file.parents if directory != root and directory.is_relative_to(root)]


def _trouble(origin: Disk, path: str, why: _Why) -> BadFile | FileUnreadable:
    said, number = why
    place = origin.root / path
    is_absent = number == errno.ENOENT
    return FileMissing(origin.name, place) if is_absent else FileUnreadable(origin.name, place, said=said)


def _run(command: Sequence[str], *, given: bytes = b"", progress: Callable[[], None]) -> tuple[int, str]:
    """Run a program to its end, or to that of our lease; its exit code, and what it said."""
    with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as told:
        names.write(given)
        names.seek(0)
        code = _watched(command, given=names, said=told, progress=progress)
        told.seek(0)
        return code, told.read().decode(errors="replace")


def _watched(command: Sequence[str], *, given: IO[bytes], said: IO[bytes], progress: Callable[[], None]) -> int:
    try:
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=said,
            stderr=said,
            start_new_session=True,
            preexec_fn=dying_with(os.getpid(), signal.SIGTERM),  # noqa: PLW1509 a death signal is set after fork
        )
    except FileNotFoundError as error:
        raise MoverMissing(command[0], socket.gethostname()) from error
    with process:
        try:
            while True:
                try:
                    return process.wait(timeout=_LOOK_S)
                except subprocess.TimeoutExpired:
                    progress()
        except BaseException:
            os.killpg(process.pid, 9)
            raise


def _last_words(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))[:_SAID]
