from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.wiring import open_database, person
from ccat_data_transfer.adoption import Refused
from ccat_data_transfer.verbs.stocktaking import Stock, take_stock
from ccat_ops_db.plan.numbers import counted

Archive = Annotated[str, typer.Argument(metavar="SITE/NAME", help="Long-term archive that is looked through.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; else it is only told what would be done.")]
_SHOWN: Final = 10
"""Paths that are told of what is refused for one reason."""


def adopt(location: Archive, *, yes: Yes = False, json: AsJson = False) -> None:
    """Take up packages that an archive has and that are not known here, as files beside them tell: after a restore.

    Say it on a host that sees the archive. Without --yes it is told what would be done, and what not and why.
    """
    with reported(as_json=json):
        stock = _take_stock(location, dry_run=not yes)
    print_json(_record(stock)) if json else typer.echo(_told(stock))


def _take_stock(location: str, *, dry_run: bool) -> Stock:
    with closing(open_database("package")) as database, _progress(location) as show:
        database.require_current_schema()
        return take_stock(database.engine, location, dry_run=dry_run, by=person(), progress=show)


@contextmanager
def _progress(location: str) -> Iterator[Callable[[int], None]]:
    """Shows on stderr how many packages were looked at; nobody knows how many there are."""
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("Looking through {task.description}: {task.completed:,.0f} packages"))
    line = Progress(*columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal)
    with line:
        task = line.add_task(location, total=None)
        yield lambda done: line.update(task, completed=done)


def _record(stock: Stock) -> Mapping[str, object]:
    return {
        "location": stock.location,
        "dry_run": stock.is_dry_run,
        "known": stock.known,
        "adopted": stock.adopted,
        "refused": stock.refused,
    }


def _told(stock: Stock) -> str:
    known, adopted = (counted(number, "package", "packages") for number in (stock.known, len(stock.adopted)))
    does, do_it = ("would be adopted", f" Adopt with `ccat package adopt {stock.location} --yes`.")
    if not stock.is_dry_run:
        does, do_it = ("adopted; they count once they were read there", "")
    lines = [f"{stock.location}: {known} known there; {adopted} {does}.{do_it if stock.adopted else ''}"]
    return "\n".join([*lines, *_refusals(stock.refused)])


def _refusals(refused: Iterable[Refused]) -> Iterator[str]:
    """What is not taken up, by the reason, of which some have one for thousands."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for one in refused:
        alike[one.because].append(one.path)
    for because, paths in alike.items():
        yield f"not adopted, {because}: {_listed(paths)}"


def _listed(paths: Sequence[str]) -> str:
    more = len(paths) - _SHOWN
    return ", ".join([*paths[:_SHOWN], *([f"and {more:,} more"] if more > 0 else [])])
