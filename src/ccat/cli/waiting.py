import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Annotated, Final

import sqlalchemy as sa
import typer
from rich.console import Console

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.wiring import open_database
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.activity import Activity, activity, longest_under_way
from ccat_service.database import DatabaseConnection

_PAUSE = timedelta(milliseconds=500)
_ONE_SNAPSHOT: Final = sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
"""Otherwise a run that ends between two statements would be seen neither as active nor in what follows from it."""

Timeout = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Give up after so long.")]


class StillBusy(CcatError):
    """There was still work under way when the time was over."""

    code = "still_busy"

    def __init__(self, found: Activity, longest: Sequence[str], timeout: timedelta) -> None:
        super().__init__(
            f"after {timeout.total_seconds():g} s there is still work under way: {describe(found)}. "
            f"Longest so: {'; '.join(longest) or 'nothing that has begun'}. "
            "`ccat packages` says what keeps packages, `ccat runs` lists the runs, `ccat run why RUN` explains one."
        )


def wait(*, timeout: Timeout = 3600, json: AsJson = False) -> None:
    """Wait until nothing is under way and no cooldown runs; say what failed."""
    with reported(as_json=json), closing(open_database("wait")) as database:
        found = wait_until_quiet(database, timedelta(seconds=timeout))
    print_json(found) if json else typer.echo(conclude(found))


def wait_until_quiet(database: DatabaseConnection, timeout: timedelta) -> Activity:
    """Show what is under way until nothing is; raises StillBusy."""
    started = time.monotonic()
    with _line_on_stderr() as show:
        while True:
            with database.transaction() as session:
                session.execute(_ONE_SNAPSHOT)
                found = activity(session)
                is_late = time.monotonic() - started > timeout.total_seconds()
                longest = longest_under_way(session) if is_late and not found.is_over else ()
            if found.is_over:
                return found
            show(describe(found))
            if is_late:
                raise StillBusy(found, longest, timeout)
            time.sleep(_PAUSE.total_seconds())


@contextmanager
def _line_on_stderr() -> Iterator[Callable[[str], None]]:
    """Function that shows a text: one line that changes at a terminal, elsewhere a line whenever it is another text."""
    console, last = Console(stderr=True), ""

    def tell(text: str) -> None:
        nonlocal last
        if text != last:
            typer.echo(text, err=True)
        last = text

    if console.is_terminal:
        with console.status("looking") as line:
            yield line.update
    else:
        yield tell


def conclude(found: Activity) -> str:
    """What is to be said once nothing is under way: also what failed on the way."""
    failed = [
        f"{counted(number, one, several)} failed: {command}"
        for number, one, several, command in (
            (found.failed_packages, "raw package", "raw packages", "`ccat packages --state failed`"),
            (found.failed_sub_groups, "sub-group", "sub-groups", "`ccat runs --status failed`"),
        )
        if number
    ]
    return "\n".join(["nothing is under way", *failed])


def describe(found: Activity) -> str:
    """What is under way, in one line."""
    active = ((number, "run", "runs", status.replace("_", " ")) for status, number in found.active_runs.items())
    parts = (
        (found.unpackaged_files, "file", "files", "to be packed"),
        (found.moving_packages, "package", "packages", "on the way"),
        *active,
        (found.wanted, "run", "runs", "wanted"),
        (found.cooling, "sub-group", "sub-groups", "resting"),
    )
    told = [f"{counted(number, one, several)} {how}" for number, one, several, how in parts if number]
    return ", ".join(told) or "nothing"
