"""`ccat location lost`: its copies are missing, and others are made in their place."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.wiring import open_database, person, transaction
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.verbs.losing import Loss, foresee_loss, lose_location

Name = Annotated[str, typer.Argument(metavar="SITE/NAME")]
Because = Annotated[str, typer.Option(help="What happened, for those who read it later.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; else it is only told what would be lost.")]


def lost(name: Name, *, because: Because, yes: Yes = False, json: AsJson = False) -> None:
    """Say that what lies at a location is lost for good: its copies are missing, and are made anew in other places.

    Without --yes it is told what that would be. It cannot be undone.
    """
    with reported(as_json=json):
        loss, done = _lose(name, because=because, dry_run=not yes)
    print_json({**asdict(loss), "dry_run": not yes, "missing": done}) if json else typer.echo(_told(loss, done))


def _lose(name: str, *, because: str, dry_run: bool) -> tuple[Loss, int | None]:
    with transaction("location") as session:
        loss = foresee_loss(session, name)
    if dry_run:
        return loss, None
    with closing(open_database("location")) as database, _progress(name, of=loss.copies) as show:
        return loss, lose_location(database.engine, name, because=because, by=person(), progress=show)


@contextmanager
def _progress(name: str, *, of: int) -> Iterator[Callable[[int], None]]:
    """Shows on stderr how many copies are called missing."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as line:
        task = line.add_task(f"Calling what {name} had missing", total=of)
        yield lambda done: line.update(task, completed=done)


def _told(loss: Loss, done: int | None) -> str:
    if done is not None:
        return (
            f"{loss.location} is lost: {counted(done, 'copy is', 'copies are')} missing, and nothing new is put there. "
            "What is wanted of it is made anew elsewhere, of what is sound; `ccat alerts` tells of the rest"
        )
    copies, last = counted(loss.copies, "copy", "copies"), counted(loss.last, "is", "are")
    warning = "" if loss.unreadable or loss.seen_at is None else _warning(loss)
    return (
        f"{loss.location} has {copies}, of these {loss.raw_files:,} of raw files. Of the others {last} the only sound "
        f"one that is known, and would be lost.{warning}\nIt cannot be undone. Where this is so, say it with `--yes`"
    )


def _warning(loss: Loss) -> str:
    return (
        f"\nWARNING: a worker saw {loss.location} at {loss.seen_at:%F %H:%M} UTC, and could read it. If it is there, "
        "or comes back, this is wrong: what it has would be forgotten"
    )
