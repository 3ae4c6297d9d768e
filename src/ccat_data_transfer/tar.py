"""Tars whose bytes depend on nothing but the names, the order and the contents of their files."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Final, Protocol, cast

CHUNK: Final = 1 << 20
"""Bytes that are read, hashed and written at a time."""


class Readable(Protocol):
    """Where bytes come from."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class Writable(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> int:
        """Take the bytes."""

    def tell(self) -> int:
        """Return how many bytes were taken."""


class DamagedTar(Exception):
    """A tar cannot be read to its end; the message is half a sentence."""


class TarWriter:
    """Adds files to a tar one by one."""

    def __init__(self, out: Writable) -> None:
        file = cast("IO[bytes]", out)  # of a file, tarfile needs write() and tell() only
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, copybufsize=CHUNK)

    def add(self, name: str, size: int, content: Readable) -> None:
        """Add a file; raises EOFError where its content ends before `size` bytes."""
        member = tarfile.TarInfo(name)
        member.size = size
        member.mode = 0o444
        try:
            self._tar.addfile(member, cast("IO[bytes]", content))  # it needs read() only
        except OSError as error:
            raise EOFError(name) from error

    def close(self) -> None:
        """Write the end."""
        self._tar.close()


@contextmanager
def _damage_explained() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise DamagedTar(f"cannot be read as a tar ({error})") from error


class _Forward:
    """What tarfile reads a tar from, which seeks forward only: every byte is read once, and never copied."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._at = 0

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, fewer at the end only."""
        data = self._stream.read(min(size, CHUNK))
        while 0 < len(data) < size and (more := self._stream.read(min(size - len(data), CHUNK))):
            data += more
        self._at += len(data)
        return data

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at

    def seek(self, position: int, /) -> None:
        """Pass over what nobody reads; at the end of the stream it stays there."""
        while self._at < position and self.read(min(CHUNK, position - self._at)):
            pass


class _Content:
    def __init__(self, file: _Forward, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes of this file of the tar, none at its end."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        if len(data) < wanted:
            raise DamagedTar("cannot be read as a tar (unexpected end of data)")
        self._left -= wanted
        return data


def read_tar(stream: Readable) -> Iterator[tuple[str, Readable]]:
    """Name and content of each file of a tar, in one pass; raises DamagedTar, also where it holds more than files.

    A content is valid until the next one. A name is what the tar says: look it up, never write to it.
    """
    forward = _Forward(stream)
    with _damage_explained(), tarfile.TarFile(fileobj=cast("IO[bytes]", forward)) as tar:
        for member in tar:
            if not member.isreg():
                raise DamagedTar(f"holds {member.name!r}, which is no plain file")
            yield member.name, _Content(forward, member.size)
