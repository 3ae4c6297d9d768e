import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.live import Live

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, console, counted, print_json, table, titled
from ccat.wiring import open_database, process_name, transaction
from ccat_data_transfer.status import Level, TransferStatus, transfer_status
from ccat_data_transfer.verbs.retrying import retry_transfer
from ccat_ops_db.plan.spaces import size
from ccat_service.database import DatabaseConnection

app = typer.Typer(no_args_is_help=True, help="Raw data on their way into the archive.")

_PAUSE: Final = timedelta(seconds=2)
_BAR: Final = 20


@app.command()
def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Go on looking, until Ctrl-C.")] = False,
    json: AsJson = False,
) -> None:
    """Show where raw data are, how fast they go, and how long each source has room for more."""
    with reported(as_json=json), closing(open_database("transfer")) as database:
        database.require_current_schema()
        if json:
            print_json(_look(database))
        elif watch:
            _watch(database)
        else:
            console().print(_picture(_look(database)))


@app.command()
def retry(
    transfer: Annotated[int, typer.Argument(min=1, help="Number of the transfer between sites.")],
    *,
    json: AsJson = False,
) -> None:
    """Take a transfer between sites up again that has failed, once its trouble is mended."""
    with reported(as_json=json), transaction("transfer") as session:
        number = retry_transfer(session, transfer, by=process_name("transfer"))
    told = f"transfer {transfer} is tried again, with {counted(number, 'raw package', 'raw packages')}"
    print_json({"transfer": transfer, "packages": number}) if json else typer.echo(told)


def _look(database: DatabaseConnection) -> TransferStatus:
    with database.transaction() as session:
        return transfer_status(session)


def _watch(database: DatabaseConnection) -> None:
    with Live(_picture(_look(database)), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(_PAUSE.total_seconds())
            live.update(_picture(_look(database)), refresh=True)


def _picture(found: TransferStatus) -> RenderableType:
    return Group(*_parts(found))


def _parts(found: TransferStatus) -> Iterator[RenderableType]:
    yield titled(_summary(found))
    stages = [(one.stage, one.packages, one.files or None, size(one.size_bytes), one.oldest) for one in found.stages]
    yield table(["stage", "packages", "files", "size", "oldest since"], stages)
    if found.crossings:
        yield titled(counted(len(found.crossings), "transfer between sites", "transfers between sites"))
        rows = [
            (
                one.id,
                f"{one.origin} → {one.destination}",
                one.status,
                f"{_bar(one.arrived, one.packages)} {one.arrived} of {one.packages}",
                size(one.size_bytes),
                one.failure,
            )
            for one in found.crossings
        ]
        yield table(["id", "way", "status", "unpacked", "size", "what went wrong"], rows)
    if found.products:
        products = counted(sum(one.products for one in found.products), "product", "products")
        runs = counted(sum(one.runs for one in found.products), "run", "runs")
        yield titled(f"{products} of {runs} to archive")
        kept = [
            (one.status, one.runs, one.products, size(one.size_bytes), one.destination, one.oldest_run, one.failure)
            for one in found.products
        ]
        yield table(["status", "runs", "products", "size", "to", "first run", "what went wrong"], kept)
    yield titled(counted(len(found.levels), "location", "locations"))
    yield table(["location", "type", "level", "free", "fills by", "full in"], [_level(one) for one in found.levels])


def _summary(found: TransferStatus) -> str:
    backlog = size(found.backlog_bytes)
    left = f", {found.backlog_hours:g} h at the rate of late" if found.backlog_hours is not None else ""
    come, gone = size(found.registered_per_hour), size(found.archived_per_hour)
    return f"{backlog} not archived yet{left}; in the last hours {come}/h registered, {gone}/h archived"


def _level(one: Level) -> tuple[object, ...]:
    if one.kept_bytes is not None:
        return one.location, one.type, f"{size(one.kept_bytes)} of ours", "an object store does not tell", None, None
    if one.free_bytes is None or not one.total_bytes:
        return one.location, one.type, None, None, None, None
    used = one.total_bytes - one.free_bytes
    level = f"{_bar(used, one.total_bytes)} {used / one.total_bytes:.0%}"
    fills = f"{size(one.filled_per_hour)}/h" if one.filled_per_hour and one.filled_per_hour > 0 else None
    full = f"{one.hours_left:g} h" if one.hours_left is not None else None
    return one.location, one.type, level, size(one.free_bytes), fills, full


def _bar(part: int, whole: int) -> str:
    filled = round(_BAR * part / whole) if whole else 0
    return "█" * filled + "░" * (_BAR - filled)
