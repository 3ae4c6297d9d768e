import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
LARGEST_ID = 2**63 - 1
"""That a row of the database can have."""
Before = Annotated[
    int | None, typer.Option(min=1, max=LARGEST_ID, help="Continue below this number, where the last page ended.")
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Show at most so many, the newest.")]


def print_json(value: Any) -> None:
    """Print a value as JSON; dataclasses become objects, moments ISO 8601."""
    typer.echo(as_json(value))


def as_json(value: Any) -> str:
    """A value as JSON, as `print_json` prints it."""
    return json.dumps(value, default=_plain, indent=2, ensure_ascii=False)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table for people, only its title where it has no rows. What stands in it is never read as markup."""
    screen, found = console(), table(columns, rows)
    screen.print(titled(title), soft_wrap=True)
    if found.row_count:
        screen.print(found)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table for people; what stands in it is never read as markup."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(_cell(value)) for value in row))
    return made


def titled(title: str) -> Text:
    """The line above a table."""
    return Text(title, style="italic")


def console() -> Console:
    """Where to print for people; wide where nobody looks at a terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=240)


def labels(values: Mapping[str, object]) -> str:
    """Labels of a sub-group in one line."""
    return ", ".join(str(value) for value in values.values()) or "all"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:%F %T}" if isinstance(value, datetime) else str(value)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID | Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
