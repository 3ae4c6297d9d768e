from collections.abc import Collection
from typing import Annotated

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json
from ccat.cli.retrying import RunIds
from ccat.wiring import process_name, transaction
from ccat_data_transfer.verbs.products.retrying import archive_again, retry_failed_archiving
from ccat_ops_db.plan.numbers import counted

Failed = Annotated[bool, typer.Option("--failed", help="Instead: all runs whose products could not be archived.")]


def archive(run: RunIds = None, *, failed: Failed = False, json: AsJson = False) -> None:
    """Archive the products of runs again, once what was wrong is mended: what failed, and what is in no archive."""
    if bool(run) is failed:
        raise typer.BadParameter("name runs, or say --failed")
    with reported(as_json=json):
        transfers = _archive(run or ())
    told = f"products of {counted(len(transfers), 'run', 'runs')} are archived again"
    print_json({"transfers": transfers}) if json else typer.echo(told)


def _archive(runs: Collection[int]) -> list[int]:
    with transaction("archive") as session:
        by = process_name("archive")
        return archive_again(session, runs, by=by) if runs else retry_failed_archiving(session, by=by)
