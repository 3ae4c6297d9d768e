"""`ccat package stage` and `unstage`: raw packages where a person wants to look at them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.wiring import person, transaction
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.roots import Kind, find_one
from ccat_ops_db.verbs.bringing import Brought, LetGo, stage_packages, unstage_packages

Packages = Annotated[list[str], typer.Argument(metavar="PACKAGE...", help="Names or numbers of packages.")]
At = Annotated[str, typer.Option("--at", metavar="SITE/NAME", help="Processing location, as `ccat locations` has it.")]


def stage(package: Packages, *, at: At, json: AsJson = False) -> None:
    """Have packages unpacked at a processing location; there they are kept for as long as after a run used them."""
    with reported(as_json=json), transaction("package") as session:
        found = stage_packages(session, _numbers(session, package), at)
    if json:
        told = {"asked": found.asked, "on_their_way": found.on_their_way, "staged": found.staged}
        print_json({"location": at, **told})
    else:
        typer.echo(f"{at}: {'; '.join(_brought(found))}")


def unstage(package: Packages, *, at: At, json: AsJson = False) -> None:
    """Let packages go from a processing location, staged or on their way there, unless a run takes them."""
    with reported(as_json=json), transaction("package") as session:
        names = _numbers(session, package)
        found = unstage_packages(session, names, at, by=person())
    if json:
        told = {"cancelled": found.cancelled, "going": found.going, "kept": found.kept, "absent": found.absent}
        print_json({"location": at, **told})
    else:
        typer.echo("\n".join([f"{at}: {'; '.join(_gone(found))}", *_kept(found, names)]))
    if found.kept and not found.cancelled and not found.going:
        raise typer.Exit(1)


def _numbers(session: Session, names: Sequence[str]) -> Mapping[int, str]:
    """Number of each package, and what it was called."""
    found = [(find_one(session, Kind.PACKAGE, name).ids, name) for name in names]
    return {number: name for [number], name in found}


def _brought(found: Brought) -> Iterator[str]:
    for packages, told in (
        (found.asked, "asked for; `ccat transfer status` says how far"),
        (found.on_their_way, "on the way there already"),
        (found.staged, "there already, and used as of now"),
    ):
        if packages:
            yield f"{counted(len(packages), 'package is', 'packages are')} {told}"


def _gone(found: LetGo) -> Iterator[str]:
    if found.cancelled:
        yield f"staging of {counted(len(found.cancelled), 'package', 'packages')} is cancelled"
    if found.going:
        yield f"{counted(len(found.going), 'package is', 'packages are')} removed"
    if found.absent:
        yield f"{counted(len(found.absent), 'package is', 'packages are')} not there"
    if found.kept:
        yield counted(len(found.kept), "package stays", "packages stay")


def _kept(found: LetGo, names: Mapping[int, str]) -> Iterator[str]:
    for number, why in found.kept.items():
        yield f"package {names[number]} stays: {why}"
