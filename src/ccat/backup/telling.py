"""Progress of what takes long, for whoever looks at a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Show = Callable[[int], None]
"""Shows how many bytes are done."""


@contextmanager
def progress(what: str, *, total: int | None = None) -> Iterator[Show]:
    """Shows a line on stderr until the block ends; the function tells it how many bytes are done, of as many."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), DownloadColumn())
    line = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal)
    with line:
        task = line.add_task(what, total=total)
        yield lambda done: line.update(task, completed=done)
