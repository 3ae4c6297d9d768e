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


class _Content:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        with _damage_explained():
            return self._file.read(size)


def read_tar(stream: Readable) -> Iterator[tuple[str, Readable]]:
    """Name and content of each file of a tar, in one pass; raises DamagedTar, also where it holds more than files.

    A content is valid until the next one. A name is what the tar says: look it up, never write to it.
    """
    file = cast("IO[bytes]", stream)  # it needs read() only
    with _damage_explained(), tarfile.open(fileobj=file, mode="r|", bufsize=CHUNK) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise DamagedTar(f"holds {member.name!r}, which is no plain file")
            yield member.name, _Content(content)
