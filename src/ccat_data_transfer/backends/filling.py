"""A directory of a disk that is being filled with files."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ccat_data_transfer.backends.behind import Behind
from ccat_data_transfer.backends.page_cache import flush_file
from ccat_data_transfer.backends.streams import Sink

READ_ONLY: Final = 0o444
"""Permissions of a file that is whole, unless it is to have others."""


@dataclass(frozen=True)
class Filling:
    """A directory while its files are written."""

    top: Path
    behind: Behind
    write: Callable[..., AbstractContextManager[Sink]]

    @contextmanager
    def writing(self, relative_path: str, *, mode: int = READ_ONLY) -> Iterator[Sink]:
        """Write a file of it; each window, and the whole file, is flushed while others are written."""
        file = self.top / relative_path
        file.parent.mkdir(parents=True, exist_ok=True)
        flush = partial(flush_file, file)
        writing = partial(self.write, mode=mode, on_window=lambda _: self.behind.do(flush))
        with file.open("xb", buffering=0) as out, writing(out) as sink:
            yield sink
        self.behind.do(flush)
