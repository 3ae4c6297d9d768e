import time
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.wiring import open_database
from ccat_ops_db.errors import CcatError
from ccat_ops_db.queries.activity import Activity, activity
from ccat_service.database import DatabaseConnection

_PAUSE = timedelta(milliseconds=500)

Timeout = Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Give up after so long.")]


class StillBusy(CcatError):
    """There was still work under way when the time was over."""

    code = "still_busy"

    def __init__(self, found: Activity, timeout: timedelta) -> None:
        super().__init__(
            f"after {timeout.total_seconds():g} s there is still work under way: {describe(found)}. "
            "`ccat runs` lists the runs, `ccat run why RUN` explains one."
        )


def wait(*, timeout: Timeout = 3600, json: AsJson = False) -> None:
    """Wait until everything that came in is packed, archived and reduced, and no cooldown runs."""
    with reported(as_json=json):
        found = wait_until_quiet(open_database("wait"), timedelta(seconds=timeout))
    print_json(found) if json else typer.echo("nothing is under way")


def wait_until_quiet(database: DatabaseConnection, timeout: timedelta) -> Activity:
    """Show what is under way until nothing is; raises StillBusy."""
    started = time.monotonic()
    with Console(stderr=True).status("looking") as line:
        while True:
            with database.transaction() as session:
                found = activity(session, now=datetime.now(UTC))
            if found.is_over:
                return found
            line.update(describe(found))
            if time.monotonic() - started > timeout.total_seconds():
                raise StillBusy(found, timeout)
            time.sleep(_PAUSE.total_seconds())


def describe(found: Activity) -> str:
    """What is under way, in one line."""
    parts = {
        "files to be packed": found.unpackaged_files,
        "packages on their way": found.moving_packages,
        **{f"runs {status.replace('_', ' ')}": number for status, number in found.active_runs.items()},
        "runs wanted": found.wanted,
        "sub-groups resting": found.cooling,
    }
    return ", ".join(f"{number} {what}" for what, number in parts.items() if number) or "nothing"
