"""What jobs write into files: the end of it, and more as it comes."""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 64 * 1024
_PAUSE: Final = timedelta(milliseconds=200)


def tail(paths: Sequence[Path], *, lines: int) -> str:
    """Return the last lines of files, one file after the other; nothing of a file that is not there."""
    written = [line for path in paths for line in _Log(path).rest_of(_TAIL_BYTES).splitlines()]
    return "\n".join(written[-lines:]) if lines > 0 else ""


def follow(
    paths: Sequence[Path], *, is_over: Callable[[], bool], lines: int = 50, pause: timedelta = _PAUSE
) -> Iterator[str]:
    """Give the last lines of files, then whole lines as they are written, until nothing more can come."""
    logs = [_Log(path) for path in paths]
    was_over = is_over()  # asked before the files are read: what it wrote is there by then
    written = [log.rest_of(_TAIL_BYTES, whole_lines=not was_over) for log in logs]
    before = [line for text in written for line in text.splitlines(keepends=True)]
    yield from before[-lines:] if lines > 0 else []
    while not was_over:
        was_over = is_over()
        pieces = [piece for log in logs for piece in log.pieces(is_over=was_over)]
        yield from pieces
        if not pieces and not was_over:
            time.sleep(pause.total_seconds())


class Throttled:
    """A question that costs something, asked no oftener than `every`; its last answer counts meanwhile."""

    def __init__(self, question: Callable[[], bool], *, every: timedelta = timedelta(seconds=2)) -> None:
        self._question = question
        self._every = every.total_seconds()
        self._asked_at: float | None = None
        self._answer = False

    def __call__(self) -> bool:
        """Give the answer of now, or of a moment ago."""
        now = time.monotonic()
        if self._asked_at is None or now - self._asked_at >= self._every:
            self._asked_at, self._answer = now, self._question()
        return self._answer


class _Log:
    """A file that grows, and how far it was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def rest_of(self, size: int, *, whole_lines: bool = False) -> str:
        """What is in it, no more than its last bytes."""
        try:
            self._offset = max(0, self._path.stat().st_size - size)
        except OSError:
            return ""
        return self._read(size, whole_lines=whole_lines)

    def pieces(self, *, is_over: bool) -> Iterator[str]:
        """What came since, in whole lines; at the end what is left, too."""
        while piece := self._read(_PIECE_BYTES, whole_lines=not is_over):
            yield piece

    def _read(self, size: int, *, whole_lines: bool = False) -> str:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                found = file.read(size)
        except OSError:  # not there yet, or no longer
            return ""
        end = found.rfind(b"\n") + 1
        if whole_lines and (end or len(found) < size):  # a line longer than that comes in pieces
            found = found[:end]
        self._offset += len(found)
        return found.decode(errors="replace")
