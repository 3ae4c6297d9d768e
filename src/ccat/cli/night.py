from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final

import typer
from rich.text import Text

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, console, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db.plan.nights import Night, Observed, Place, StepNight
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.spaces import size
from ccat_ops_db.queries.night import look_up_night

_LINES: Final = 8
"""So many rows of each part are shown: the whole fits on a screen, however much there was."""
_BAR: Final = 30
_PARTS: Final = (
    ("green", {Place.REDUCED}),
    ("yellow", {Place.RUNNING, Place.WAITING, Place.WANTED, Place.COOLING, Place.RETRIED}),
    ("red", {Place.FAILED, Place.CANCELLED}),
)
"""Colours of a bar, in its order; what is left is blocked."""
_BLOCKS: Final = {"green": "█", "yellow": "▒", "red": "!"}

Day = Annotated[
    datetime | None,
    typer.Argument(
        metavar="[DATE]", formats=["%Y-%m-%d"], help="Date of the evening; the last night if none is given."
    ),
]


def night(day: Day = None, *, json: AsJson = False) -> None:
    """Tell of one observing night: scans taken, archived, reduced, blocked and why."""
    with reported(as_json=json), transaction("night") as session:
        found = look_up_night(session, day.date() if day else None)
    if json:
        print_json({"verdict": found.verdict, "is_complete": found.is_complete, **vars(found)})
    else:
        _show(found)


def _show(found: Night) -> None:
    typer.echo(f"night of {found.night}: {found.verdict}" if found.night else found.verdict)
    if not found.scans:
        return
    files, size_bytes = sum(one.files for one in found.observed), sum(one.size_bytes for one in found.observed)
    packages = ", ".join(f"{number:,} {state}" for state, number in sorted(found.packages.items())) or "none yet"
    typer.echo(f"raw data: {counted(files, 'file', 'files')}, {size(size_bytes)}; packages: {packages}")
    columns = ["instrument", "source", "scans", "files", "size"]
    print_table("\nobserved", columns, map(_cells, found.observed[:_LINES]))
    _more(len(found.observed))
    _bars(found)
    print_table(
        "\nin the way" if found.hindrances else "",
        ["where", "what", "number", "why"],
        [(one.where, one.place, one.number, one.sentence) for one in found.hindrances[:_LINES]],
    )
    _more(len(found.hindrances))


def _cells(one: Observed) -> tuple[object, ...]:
    return one.instrument, one.source, one.scans, one.files, size(one.size_bytes)


def _more(number: int) -> None:
    if number > _LINES:
        typer.echo(f"and {number - _LINES:,} more lines: `--json` has all")


def _bars(found: Night) -> None:
    width = max((len(f"{one.pipeline}/{one.step}") for one in found.steps), default=0)
    for one in found.steps[: 2 * _LINES]:
        console().print(
            Text(f"{one.pipeline}/{one.step}".ljust(width) + "  "), _bar(one), Text(f"  {_numbers(one)}"), sep=""
        )


def _bar(one: StepNight) -> Text:
    """A bar of which every part that is there has at least one character, as far as there is room."""
    bar = Text()
    for colour, places in _PARTS:
        number = sum(one.places.get(place, 0) for place in places)
        length = max(bool(number), number * _BAR // one.sub_groups)
        bar.append(_BLOCKS[colour] * min(length, _BAR - len(bar)), style=colour)
    return bar.append("·" * (_BAR - len(bar)), style="dim")


def _numbers(one: StepNight) -> str:
    """How many sub-groups are where."""
    return f"{one.places.get(Place.REDUCED, 0):,} of {one.sub_groups:,} reduced" + "".join(_others(one))


def _others(one: StepNight) -> Iterator[str]:
    for place in Place:
        if place is not Place.REDUCED and one.places.get(place):
            yield f", {one.places[place]:,} {place}"
