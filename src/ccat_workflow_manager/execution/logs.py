"""What software wrote while it ran, as far as its files are here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from io import SEEK_END
from pathlib import Path
from typing import Final

from ccat_workflow_manager.execution.layout import AttemptLayout

_BLOCK: Final = 64 * 1024
_MOST: Final = 64 * 1024 * 1024
"""Bytes of a file that are looked through for its last lines, at most."""


class Stream(StrEnum):
    """Where software writes to."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True)
class Line:
    """A line that software wrote."""

    stream: Stream
    text: str


@dataclass
class Log:
    """The log of an attempt, read from where it was read last."""

    layout: AttemptLayout
    _read: dict[Stream, int] = field(default_factory=dict)
    _begun: dict[Stream, bytes] = field(default_factory=dict)

    @property
    def is_here(self) -> bool:
        """Whether the directory of the log can be seen from here."""
        return self.layout.logs.is_dir()

    def last(self, lines: int) -> Sequence[Line]:
        """The last lines of each stream, which `more` goes on after."""
        found = []
        for stream, path in self._files():
            content, self._read[stream] = _end_of(path, lines=lines)
            whole, self._begun[stream] = _whole_lines(content)
            found += [Line(stream, text) for text in whole[-lines:]] if lines else []
        return found

    def more(self) -> Sequence[Line]:
        """Lines that are whole by now, and were not when this was asked last."""
        found = []
        for stream, path in self._files():
            content, self._read[stream] = _from(path, self._read.get(stream, 0))
            whole, self._begun[stream] = _whole_lines(self._begun.get(stream, b"") + content)
            found += [Line(stream, text) for text in whole]
        return found

    def rest(self) -> Sequence[Line]:
        """What was begun and has no end of line, once nothing more is written."""
        begun, self._begun = self._begun, {}
        return [Line(stream, _text(content)) for stream, content in begun.items() if content]

    def _files(self) -> Iterator[tuple[Stream, Path]]:
        yield Stream.STDOUT, self.layout.stdout
        yield Stream.STDERR, self.layout.stderr


def _whole_lines(content: bytes) -> tuple[list[str], bytes]:
    """Whole lines, and the beginning of the next."""
    *whole, begun = content.split(b"\n")
    return [_text(line) for line in whole], begun


def _text(line: bytes) -> str:
    return line.decode(errors="replace").removesuffix("\r")


def _end_of(path: Path, *, lines: int) -> tuple[bytes, int]:
    """The end of a file with at least so many lines, if it has them, and its size."""
    try:
        with path.open("rb") as file:
            size = start = file.seek(0, SEEK_END)
            content = b""
            while start and content.count(b"\n") <= lines and size - start < _MOST:
                begin = max(0, start - _BLOCK)
                file.seek(begin)
                content, start = file.read(start - begin) + content, begin
            return content, size
    except FileNotFoundError:
        return b"", 0


def _from(path: Path, start: int) -> tuple[bytes, int]:
    """A block of a file after a place, and the place where it ends."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read(_MOST)
            return content, start + len(content)
    except FileNotFoundError:
        return b"", start
