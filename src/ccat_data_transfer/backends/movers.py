"""What brings files from a location of another site; each can be cut off anywhere, and goes on where it was."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import FileMissing, MoverFails, MoverMissing
from ccat_data_transfer.tar import CHUNK

_LOOK_S: Final = 0.5
_SILENT_S: Final = 120
"""After so long without a byte, rsync gives up; it is tried again."""
_FLUSHED_AFTER: Final = 256 << 20
_SAID: Final = 400
"""Characters of what a program said last that people are told."""


@dataclass(frozen=True)
class Parcel:
    """Files of a location that are brought together."""

    origin: Disk
    host: str | None
    """Host of the origin, perhaps with `user@` before; None where it is seen from here."""
    files: Sequence[tuple[str, int]]
    """Path below the root of the origin, and size in bytes; no two have the same name."""


class MovesFiles(Protocol):
    """Brings a parcel into a directory, each file under its name; what is there of it already is kept.

    The bytes are on the disk at the end, and nobody has compared them. Raises LocationTrouble, MoverFails, FileMissing.
    `progress` is called again and again; what it raises ends the work.
    """

    def __call__(self, parcel: Parcel, into: Path, *, progress: Callable[[], None]) -> None:
        """Bring them."""


def copy(parcel: Parcel, into: Path, *, progress: Callable[[], None]) -> None:
    """Bring files from a disk that is seen from here."""
    for path, size in parcel.files:
        with (into / Path(path).name).open("ab") as target:
            flushed = done = min(target.tell(), size)
            target.truncate(done)
            with parcel.origin.open(path, size_bytes=size, start=done) as source:
                while data := source.read(CHUNK):
                    target.write(data)
                    if target.tell() - flushed >= _FLUSHED_AFTER:
                        flushed = _flush(target)
            _flush(target)
            progress()


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

    def __call__(self, parcel: Parcel, into: Path, *, progress: Callable[[], None]) -> None:
        """See MovesFiles."""
        wanted = b"".join(path.encode() + b"\0" for path, _ in parcel.files)
        with tempfile.TemporaryFile() as names, tempfile.TemporaryFile() as said:
            names.write(wanted)
            names.seek(0)
            code = _watched(self.command(parcel, into), given=names, said=said, progress=progress)
            if code != 0:
                raise MoverFails(
                    "rsync", parcel.origin.name, parcel.host, said=_last_words(said) or f"exit code {code}"
                )
        self._require_all(parcel, into)

    def command(self, parcel: Parcel, into: Path) -> list[str]:
        """Return the command, to which the paths are given on standard input."""
        root = f"{parcel.origin.root}/"
        return [
            *("rsync", "--from0", "--files-from=-", "--no-relative", "--no-implied-dirs"),
            *("--append-verify", "--fsync", f"--timeout={_SILENT_S}", f"--rsh={self.shell}"),
            *("--", f"{parcel.host}:{root}" if parcel.host else root, f"{into}/"),
        ]

    def _require_all(self, parcel: Parcel, into: Path) -> None:
        for path, _ in parcel.files:
            if not (into / Path(path).name).is_file():
                raise FileMissing(parcel.origin.name, parcel.origin.root / path)


def _watched(command: Sequence[str], *, given: IO[bytes], said: IO[bytes], progress: Callable[[], None]) -> int:
    """Run a program to its end, or to that of our lease."""
    try:
        process = subprocess.Popen(command, stdin=given, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True)
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


def _last_words(said: IO[bytes]) -> str:
    said.seek(0)
    lines = [line.strip() for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines))[:_SAID]
