"""`ccat package retry`: one raw package, or all that failed, or failed alike."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.wiring import open_database, process_name, transaction
from ccat_data_transfer.verbs.retrying import retry_package
from ccat_data_transfer.verbs.retrying_many import retry_packages
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.failed_packages import failed_packages, packages_alike
from ccat_ops_db.queries.roots import Kind, find_one
from ccat_ops_db.verbs.retrying import Retried

Package = Annotated[str | None, typer.Argument(metavar="[PACKAGE]", help="Name or number of the package.")]
Failed = Annotated[bool, typer.Option("--failed", help="Instead: all that failed and were not given up.")]
Like = Annotated[
    str | None, typer.Option(metavar="PACKAGE", help="Instead: those of them that failed for the same reason.")
]


def retry(package: Package = None, *, failed: Failed = False, like: Like = None, json: AsJson = False) -> None:
    """Take packages up again once their trouble is mended: one that failed, or waits, or has archive copies back.

    With --failed or --like many at once, of those that failed.
    """
    if [package is not None, failed, like is not None].count(True) != 1:
        raise typer.BadParameter("name a package, or say --failed or --like PACKAGE")
    with reported(as_json=json):
        if package is not None:
            _retry_one(package, json=json)
        else:
            _tell(_retry_many(like), json=json)


def _retry_one(name: str, *, json: bool) -> None:
    with transaction("packages") as session:
        [number] = find_one(session, Kind.PACKAGE, name).ids
        retry_package(session, number, by=process_name("package"))
    print_json({"package": number}) if json else typer.echo(f"package {name} is tried again")


def _retry_many(like: str | None) -> Retried:
    with transaction("packages") as session:
        chosen = failed_packages(session) if like is None else _alike(session, like)
    with closing(open_database("package")) as database, _progress(of=len(chosen)) as show:
        return retry_packages(database.engine, chosen, by=process_name("package"), progress=show)


def _alike(session: Session, name: str) -> Sequence[int]:
    [number] = find_one(session, Kind.PACKAGE, name).ids
    return packages_alike(session, number)


@contextmanager
def _progress(*, of: int) -> Iterator[Callable[[int], None]]:
    """Shows on stderr how many packages were looked at."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as line:
        task = line.add_task("Taking packages up again", total=of)
        yield lambda done: line.update(task, completed=done)


def _tell(done: Retried, *, json: bool) -> None:
    number = len(done.retried)
    if json:
        print_json({"retried": done.retried, "refused": done.refused})
    else:
        told = counted(number, "package is", "packages are") if number else "no package is"
        typer.echo("\n".join([f"{told} tried again", *done.refused.values()]))
    if done.refused and not done.retried:
        raise typer.Exit(1)
