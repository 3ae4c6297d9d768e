from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import sqlalchemy as sa
import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.excluding import Because, Pixels
from ccat.cli.output import AsJson, Before, Limit, print_json, print_table
from ccat.wiring import person, transaction
from ccat_data_transfer.verbs.losing_raw_files import find_files, lose_files
from ccat_ops_db import models
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.spaces import size
from ccat_ops_db.queries.packages import list_packages
from ccat_ops_db.queries.roots import Kind, find_one
from ccat_ops_db.states import PackageState
from ccat_ops_db.verbs.excluding import exclude_package, readmit_package
from ccat_ops_db.verbs.giving_up import give_up_package

Package = Annotated[str, typer.Argument(metavar="PACKAGE", help="Name or number of the package.")]

Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Paths of its raw files, as in the package.")]

_COLUMNS: Final = (
    "id",
    "name",
    "state",
    "size_bytes",
    "archived_at",
    "checksum",
    "transfer_package",
    "copies",
    "failure",
    "tried_again_at",
    "given_up",
    "excluded",
    "excluded_pixels",
    "lost_files",
)

_ALWAYS: Final = ("id", "name", "state", "size_bytes", "archived_at")
_FOR_PROGRAMS: Final = {"checksum"}
"""Left out of what people see: so much that nobody reads leaves no room for the rest."""
_BELOW: Final = {"failure", "tried_again_at"}
"""What is too long for a column."""
_NAMED: Final = 10
"""Lost files that people are told the names of; the others are counted."""

app = typer.Typer(no_args_is_help=True, help="One raw package.")


def packages(
    *,
    state: Annotated[PackageState | None, typer.Option(case_sensitive=False, help="Only those in it.")] = None,
    limit: Limit = 50,
    before: Before = None,
    json: AsJson = False,
) -> None:
    """List raw packages, the newest first: what became of each, in which transfer package it crossed, where it is."""
    with reported(as_json=json), transaction("packages") as session:
        found = list_packages(session, state, limit=limit, before=before)
        rows = [{name: getattr(one, name) for name in _COLUMNS} for one in found]
    if json:
        print_json(rows)
    else:
        _show(rows)


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of what there is to say of packages, and below it what is in the way of each."""
    shown = [one for one in _COLUMNS if one not in _FOR_PROGRAMS | _BELOW]
    columns = [one for one in shown if one in _ALWAYS or any(row[one] for row in rows)]
    cells = ([_cell(one, row[one]) for one in columns] for row in rows)
    titles = [one.removesuffix("_bytes").replace("_", " ") for one in columns]
    print_table(counted(len(rows), "package", "packages"), titles, cells)
    for row in rows:
        if row["failure"]:
            again = f" (tried again at {row['tried_again_at']:%F %T} UTC)" if row["tried_again_at"] else ""
            typer.echo(f"{row['id']}: {row['failure']}{again}")
        for told in _lost(row["lost_files"]):
            typer.echo(f"{row['id']}: lost of it: {told}")


def _lost(files: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Which raw files of a package are lost, for each reason."""
    by_reason: dict[str, list[str]] = {}
    for file in files:
        by_reason.setdefault(file["because"], []).append(file["path"])
    for because, paths in by_reason.items():
        more = [f"and {len(paths) - _NAMED:,} more"] if len(paths) > _NAMED else []
        yield f"{', '.join([*paths[:_NAMED], *more])}: {because}"


@app.command()
def give_up(package: Package, *, because: Because, json: AsJson = False) -> None:
    """Say that a package that failed, or was lost, is gone for good: no alert is about it; `retry` takes it up."""
    with reported(as_json=json), transaction("packages") as session:
        number = _number(session, package)
        is_new = give_up_package(session, number, because=because, now=datetime.now(UTC), by=person())
    told = "is given up" if is_new else "was given up already; the first reason stays"
    told += f". What waits for it is made without it after `ccat package exclude {package}`"
    print_json({"package": number, "changed": is_new}) if json else typer.echo(f"package {package} {told}")


@app.command()
def lost(package: Package, files: Files, *, because: Because, json: AsJson = False) -> None:
    """Say that raw files of a failed package are lost: it is built of the rest, and tells so for ever."""
    with reported(as_json=json), transaction("packages") as session:
        number, now = _number(session, package), datetime.now(UTC)
        gone = lose_files(session, number, files, because=because, now=now, by=person())
    told = f"{counted(len(gone), 'raw file is lost', 'raw files are lost')}; package {package} is built of the rest"
    print_json({"package": number, "lost": gone}) if json else typer.echo(told)


@app.command()
def found(package: Package, files: Files, *, json: AsJson = False) -> None:
    """Say that raw files which were lost lie at their source again: they become another package of their scan."""
    with reported(as_json=json), transaction("packages") as session:
        number = _number(session, package)
        back = find_files(session, number, files, by=person())
    told = f"{counted(len(back), 'raw file is packed', 'raw files are packed')} as the next part of its scan"
    print_json({"package": number, "found": back}) if json else typer.echo(told)


@app.command()
def exclude(
    package: Package,
    *,
    because: Because,
    pixel: Pixels = None,
    json: AsJson = False,
) -> None:
    """Take a package, or some of its pixels, out of what is made; what was made with it is made again without."""
    with reported(as_json=json), transaction("packages") as session:
        number = _number(session, package)
        made = exclude_package(session, number, because=because, pixels=pixel or (), by=person())
    told = f"is excluded{_without(pixel)}" if made else "was excluded already; the first reason stays"
    print_json({"package": number, "changed": made is not None}) if json else typer.echo(f"package {package} {told}")


@app.command()
def readmit(package: Package, *, because: Because = "no reason was given", json: AsJson = False) -> None:
    """Lift all exclusions of this one package; those of its module or instrument stay."""
    now = datetime.now(UTC)
    with reported(as_json=json), transaction("packages") as session:
        number = _number(session, package)
        lifted = readmit_package(session, number, because=because, now=now, by=person())
        held = session.scalar(sa.select(models.RawDataPackage.excluded_because).filter_by(id=number))
    told = _readmitted(lifted, held)
    print_json({"package": number, "changed": bool(lifted)}) if json else typer.echo(f"package {package} {told}")


def _readmitted(lifted: Sequence[int], held: str | None) -> str:
    """What became of a package, given the exclusions of it that were lifted, and what still keeps it out."""
    if held is not None:
        return f"stays out: {held}"
    return "is in again" if lifted else "was not excluded"


def _without(pixels: list[str] | None) -> str:
    return f": its pixels {', '.join(pixels)}" if pixels else ""


def _cell(name: str, value: object) -> object:
    if name == "lost_files" and isinstance(value, list):
        return len(value) or None
    if isinstance(value, list):
        return ", ".join(value)
    return size(value) if name == "size_bytes" and isinstance(value, int) else value


def _number(session: Session, name: str) -> int:
    [number] = find_one(session, Kind.PACKAGE, name).ids
    return number
