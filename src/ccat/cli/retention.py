from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json, print_table
from ccat.wiring import person, transaction
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.retention import lines
from ccat_ops_db.plan.spaces import size
from ccat_ops_db.queries.retention import DataClassNow, Forecast, data_classes, forecast, number_of_archives, places
from ccat_ops_db.session import database_time
from ccat_ops_db.states import StorageType
from ccat_ops_db.verbs.retention import (
    forget_retention,
    pause_retention,
    resume_retention,
    retry_deletions,
    set_data_class,
    set_retention,
)

app = typer.Typer(no_args_is_help=True, help="How long copies are kept, and which go.")

Name = Annotated[str, typer.Argument(metavar="SITE/NAME")]
Somewhere = Annotated[str | None, typer.Argument(metavar="SITE/NAME", help="Everywhere, if it is left out.")]


@app.command()
def plan(
    *,
    location: Annotated[str | None, typer.Option(metavar="SITE/NAME", help="Only what is there.")] = None,
    json: AsJson = False,
) -> None:
    """Show what would go now, how much that is and why, and what keeps the rest; nothing is changed."""
    with reported(as_json=json), transaction("retention") as session:
        ids = None if location is None else [find(session, LOCATION, location).id]
        found = forecast(session, places(session, ids), now=database_time(session))
    rows = [row for one in found for row in _rows(one)]
    print_json(_for_programs(found, rows)) if json else _tell(found, rows)


@dataclass(frozen=True)
class _Row:
    """Copies of which the same is to be said."""

    location: str
    what: str
    copies: int
    bytes: int
    goes: bool = field(kw_only=True)
    why: str = field(kw_only=True)


def _rows(one: Forecast) -> Iterator[_Row]:
    where = one.place.name
    for line in lines(one.groups, one.for_room, paused=one.place.paused):
        yield _Row(where, line.kind, line.copies, line.bytes, goes=line.goes, why=line.why)
    for line in lines(one.damaged, (), paused=one.place.paused):
        yield _Row(where, f"damaged {line.kind}", line.copies, line.bytes, goes=line.goes, why=line.why)
    for going in one.going:
        why = going.failure or "it is on its way"
        yield _Row(where, going.status, going.copies, going.bytes, goes=True, why=why)


def _totals(rows: Sequence[_Row]) -> Mapping[str, int]:
    goes = [one for one in rows if one.goes]
    return {
        "copies": sum(one.copies for one in goes),
        "bytes": sum(one.bytes for one in goes),
        "kept_copies": sum(one.copies for one in rows if not one.goes),
        "kept_bytes": sum(one.bytes for one in rows if not one.goes),
    }


def _for_programs(found: Sequence[Forecast], rows: Sequence[_Row]) -> Any:
    where = [
        {
            "location": one.place.name,
            **asdict(one.place.keeping),
            "paused": one.place.paused,
            "room_bytes": one.room_bytes,
        }
        for one in found
    ]
    return {"locations": where, "rows": rows, "total": _totals(rows)}


def _tell(found: Iterable[Forecast], rows: Sequence[_Row]) -> None:
    for one in found:
        typer.echo(_sentence(one))
    total = _totals(rows)
    title = f"{counted(total['copies'], 'copy goes', 'copies go')}, {size(total['bytes'])}; "
    title += f"{counted(total['kept_copies'], 'stays', 'stay')}, {size(total['kept_bytes'])}"
    cells = [
        (one.location, one.what, one.copies, size(one.bytes), "goes" if one.goes else "stays", one.why) for one in rows
    ]
    print_table(title, ["location", "what", "copies", "size", "now", "because"], cells)


def _sentence(one: Forecast) -> str:
    """How a location keeps copies."""
    kept, name = one.place.keeping, one.place.name
    days = "for ever" if kept.days is None else f"for {counted(kept.days, 'day', 'days')}"
    if one.place.storage is StorageType.DISK:
        full = "however full its disk is"
    else:
        full = "by time only: an object store does not tell how full it is"
    if kept.high is not None and kept.low is not None:
        full = f"and makes room above {kept.high:.0%} of its disk down to {kept.low:.0%}"
    parts = [f"{name} keeps copies {days}, {full}"]
    if kept.days is None and kept.high is None:
        parts.append(f"`ccat retention set {name} --days N` says for how long")
    if one.room_bytes:
        parts.append(f"{size(one.room_bytes)} have to go now")
    if one.place.paused:
        parts.append(f"paused: {one.place.paused}")
    return "; ".join(parts)


@app.command(name="set")
def change(
    name: Name,
    *,
    days: Annotated[
        int | None,
        typer.Option(
            "--days", "--staged-days", min=0, max=36_600, help="How long, since it was archived or used last."
        ),
    ] = None,
    high: Annotated[
        float | None, typer.Option(metavar="FRACTION", help="Above it, copies go before their time.")
    ] = None,
    low: Annotated[float | None, typer.Option(metavar="FRACTION", help="Down to it.")] = None,
    usual: Annotated[bool, typer.Option("--usual", help="As is usual for locations of its type.")] = False,
    json: AsJson = False,
) -> None:
    """Say how long a location keeps copies, and how full its disk may be.

    Of a source and of an archive nothing goes before that; of an archive then what others have, and products that do
    not count any more.
    """
    if usual == any(one is not None for one in (days, high, low)):
        raise typer.BadParameter("name --days, --high or --low, or --usual alone")
    with reported(as_json=json), transaction("retention") as session:
        by = person()
        forget_retention(session, name, by=by) if usual else set_retention(
            session, name, days=days, high=high, low=low, by=by
        )
        [found] = forecast(session, places(session, [find(session, LOCATION, name).id]), now=database_time(session))
    print_json({"location": name, **asdict(found.place.keeping)}) if json else typer.echo(_sentence(found))


@app.command()
def pause(
    name: Somewhere = None,
    *,
    because: Annotated[str, typer.Option(help="Why, for those who read it later.")],
    json: AsJson = False,
) -> None:
    """Let nothing go, at a location or anywhere; what is being removed is removed."""
    with reported(as_json=json), transaction("retention") as session:
        number = pause_retention(session, name, because=because, by=person())
    told = f"deleting is paused at {counted(number, 'location', 'locations')} more"
    print_json({"location": name, "changed": number}) if json else typer.echo(told)


@app.command()
def resume(name: Somewhere = None, *, json: AsJson = False) -> None:
    """Let go again what may go, at a location or anywhere."""
    with reported(as_json=json), transaction("retention") as session:
        number = resume_retention(session, name, by=person())
    told = f"deleting goes on at {counted(number, 'location', 'locations')}"
    print_json({"location": name, "changed": number}) if json else typer.echo(told)


@app.command()
def retry(name: Somewhere = None, *, json: AsJson = False) -> None:
    """Try again at once to delete what could not be deleted, at a location or anywhere."""
    with reported(as_json=json), transaction("retention") as session:
        number = retry_deletions(session, name)
    told = f"{counted(number, 'copy is', 'copies are')} tried again"
    print_json({"location": name, "changed": number}) if json else typer.echo(told)


@app.command()
def classes(*, json: AsJson = False) -> None:
    """List the classes of raw data: how many verified archive copies each needs before its source may go."""
    with reported(as_json=json), transaction("retention") as session:
        found = data_classes(session)
    rows = [(one.name, one.min_copies, ", ".join(one.instruments)) for one in found]
    columns = ["name", "min copies", "instruments"]
    print_json(found) if json else print_table(counted(len(rows), "class", "classes"), columns, rows)


@app.command(name="class")
def change_class(
    name: Annotated[str, typer.Argument(metavar="CLASS", help="`raw` is that of instruments that name none.")],
    *,
    copies: Annotated[int | None, typer.Option(min=1, max=100, help="Verified archive copies that it needs.")] = None,
    instrument: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Put into it.")] = None,
    json: AsJson = False,
) -> None:
    """Make or change a class of raw data, and put instruments into it."""
    with reported(as_json=json), transaction("retention") as session:
        is_new = set_data_class(session, name, copies=copies, instruments=instrument or ())
        [now] = [one for one in data_classes(session) if one.name == name]
        archives = number_of_archives(session)
    if json:
        print_json({"class": name, "changed": True, "made": is_new})
    else:
        typer.echo(_class_told(now, is_new=is_new, archives=archives))


def _class_told(now: DataClassNow, *, is_new: bool, archives: int) -> str:
    told = f"class {now.name} is {'made' if is_new else 'changed'}"
    if not now.instruments:
        told += "; no instrument is in it: `--instrument NAME` puts one there, and all that name none are in `raw`"
    if now.min_copies > archives:
        there = counted(archives, "active archive", "active archives")
        told += f"; with {there}, nothing of it will have {now.min_copies} copies, and no source lets go of any"
    return told
