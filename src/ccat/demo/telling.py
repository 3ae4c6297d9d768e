"""How the demo speaks: sentences, and while something takes its time a progress bar, where somebody looks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Teller:
    """Tells what happens; at a terminal with a bar that counts the beats of the story."""

    def __init__(self, console: Console, *, beats: int) -> None:
        self.console = console
        self._started = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task("", total=beats)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._started

    def title(self, text: str) -> None:
        """Begin a new part."""
        self.console.print(f"\n[bold]{escape(text)}[/bold]", highlight=False)

    def say(self, text: str) -> None:
        """Tell one thing that happened, with the seconds since the beginning."""
        self.console.print(f"[dim]{self.seconds:4.0f} s[/dim]  {escape(text)}", highlight=False)

    @contextmanager
    def beat(self, text: str) -> Iterator[None]:
        """Show what is being done until the block ends."""
        self.update(text)
        with self._progress:
            yield
        self._progress.advance(self._bar)

    def update(self, text: str) -> None:
        """Show what is under way just now."""
        self._progress.update(self._bar, description=escape(text))
