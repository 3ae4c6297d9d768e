import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from typing import Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.live import Live

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, console, print_json, table, titled
from ccat.wiring import open_database, process_name, transaction
from ccat_data_transfer.awaited import Awaited
from ccat_data_transfer.levels import Level
from ccat_data_transfer.status import Crossed, Crossing, OnItsWay, Stage, TransferStatus, transfer_status
from ccat_data_transfer.verbs.retrying import find_transfer, retry_transfer
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.spaces import SpaceState, size
from ccat_ops_db.queries.damage import COUNTED_FOR
from ccat_ops_db.queries.unread import ReadAgain
from ccat_service.database import DatabaseConnection

app = typer.Typer(
    no_args_is_help=True,
    help="Raw data on their way into the archive: packed where they were recorded, sent to the archive's site along a "
    "route with others (`ccat routes`), unpacked and verified there, archived. `ccat packages` lists them one by one.",
)

_PAUSE: Final = timedelta(seconds=2)
_BAR: Final = 20
_LINES: Final = 10
"""So many scans are shown that files wait for."""
_DAYS_FROM: Final = 48
"""Hours from which on time is told in days."""
_OF_CROSSINGS: Final = (
    "id",
    "way",
    "transfer package",
    "status",
    "since",
    "brought",
    "unpacked",
    "what went wrong",
    "tried again at",
)
_NEXT: Final[Mapping[Stage, str]] = {
    Stage.REGISTERED: "put into packages once their scan is complete, or nothing came for a while",
    Stage.TO_PACK: "written as a tar into the buffer of their site",
    Stage.TO_SEND: "put into a transfer package with others, as their route says (`ccat routes`)",
    Stage.CROSSING: "moved to another site, unpacked there, and verified",
    Stage.TO_ARCHIVE: "copied into the archive, and read back",
    Stage.FAILED: "mended by a person: `ccat packages --state failed` says what it is",
    Stage.ARCHIVED: "staged wherever a run, or a person (`ccat package stage`), wants them",
    Stage.LOST: "restored by a person from wherever there is another copy: `ccat alerts` names the first",
    Stage.GIVEN_UP: "nothing, as a person said that it is gone; `ccat package retry PACKAGE` takes it up again",
}
"""Stage → what happens next to what is there."""


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
    transfer: Annotated[str, typer.Argument(help="Number of the transfer between sites, or its transfer package.")],
    *,
    json: AsJson = False,
) -> None:
    """Take a transfer between sites up again that has failed, once its trouble is mended."""
    with reported(as_json=json), transaction("transfer") as session:
        transfer_id = find_transfer(session, transfer)
        number = retry_transfer(session, transfer_id, by=process_name("transfer"))
    told = f"transfer {transfer} is tried again, with {counted(number, 'raw package', 'raw packages')}"
    print_json({"transfer": transfer_id, "packages": number}) if json else typer.echo(told)


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
    yield table(["stage", "packages", "files", "size", "oldest since", "next"], [_stage(one) for one in found.stages])
    yield from _in_the_way(found)
    yield from _awaited(found)
    yield from _unplanned(found)
    yield from _between_sites(found)
    yield from _products(found)
    yield from _staged(found)
    yield from _doubtful(found)
    yield from _damaged(found)
    yield titled(counted(len(found.levels), "location", "locations"))
    yield table(["location", "type", "level", "free", "fills by", "full in"], [_level(one) for one in found.levels])
    read = [_read(one) for one in found.archives if one.oldest is not None or one.overdue_copies]
    if read:
        yield titled(f"{counted(len(read), 'archive', 'archives')} to read again")
        yield table(["archive", "every", "longest unread since", "overdue", "size"], read)


def _unplanned(found: TransferStatus) -> Iterator[RenderableType]:
    if found.unplanned:
        files = counted(sum(one.files for one in found.unplanned), "registered file", "registered files")
        yield titled(f"{files} that cannot be put into packages")
        held = [(one.scans, one.files, size(one.size_bytes), one.since, one.failure) for one in found.unplanned]
        yield table(["scans", "files", "size", "since", "what is wrong"], held)


def _between_sites(found: TransferStatus) -> Iterator[RenderableType]:
    if found.crossed:
        number = counted(sum(one.transfers for one in found.crossed), "transfer package", "transfer packages")
        yield titled(f"{number} arrived whole in the last {found.window_hours:g} h")
        arrived = [(_way(one), one.transfers, size(one.size_bytes)) for one in found.crossed]
        yield table(["way", "transfer packages", "size"], arrived)
    if found.crossings:
        yield titled(counted(len(found.crossings), "transfer between sites", "transfers between sites"))
        rows = [
            (
                one.id,
                _way(one),
                one.name,
                one.status,
                one.since,
                _brought(one),
                f"{one.arrived} of {one.packages}",
                one.failure,
                one.tried_again_at,
            )
            for one in found.crossings
        ]
        yield table(_OF_CROSSINGS, rows)


def _in_the_way(found: TransferStatus) -> Iterator[RenderableType]:
    rows = [(one.stage, one.packages, one.troubled, one.in_the_way) for one in found.stages if one.in_the_way]
    if rows:
        yield titled("in the way of raw packages, the most frequent at each stage")
        yield table(["stage", "packages", "of which", "what went wrong"], rows)


def _awaited(found: TransferStatus) -> Iterator[RenderableType]:
    if found.awaited:
        more = len(found.awaited) - _LINES
        first = f", the first {_LINES}; `--json` has all" if more > 0 else ""
        number = counted(sum(one.files for one in found.awaited), "registered file waits", "registered files wait")
        yield titled(f"{number} for the rest of the scan{first}")
        rows = [
            (one.scan, one.module, one.files, _came(one), one.waits_for, one.last_file_at, one.packed_at)
            for one in found.awaited[:_LINES]
        ]
        yield table(["scan", "module", "files", "came", "waits for", "last file", "packed at the latest"], rows)


def _came(one: Awaited) -> str:
    return f"{one.came:,}" if one.expected is None else f"{one.came:,} of {one.expected:,}"


def _products(found: TransferStatus) -> Iterator[RenderableType]:
    if found.products:
        products = counted(sum(one.products for one in found.products), "product", "products")
        runs = counted(sum(one.runs for one in found.products), "run", "runs")
        yield titled(f"{products} of {runs} to archive")
        kept = [
            (one.status, one.runs, one.products, size(one.size_bytes), " → ".join(one.way), one.oldest_run, one.failure)
            for one in found.products
        ]
        yield table(["status", "runs", "products", "size", "way", "first run", "what went wrong"], kept)
    if found.fetched:
        yield titled(f"{counted(sum(one.products for one in found.fetched), 'product', 'products')} to bring back")
        brought = [
            (one.status, one.products, size(one.size_bytes), one.destination, one.failure) for one in found.fetched
        ]
        yield table(["status", "products", "size", "to", "what went wrong"], brought)


def _staged(found: TransferStatus) -> Iterator[RenderableType]:
    if found.staged:
        yield titled(f"{counted(sum(one.packages for one in found.staged), 'raw package', 'raw packages')} to stage")
        wanted = [
            (
                *(one.status, one.packages, size(one.size_bytes), one.destination),
                *("a person" if one.by_hand else "runs", one.failure),
            )
            for one in found.staged
        ]
        yield table(["status", "packages", "size", "to", "for", "what went wrong"], wanted)


def _doubtful(found: TransferStatus) -> Iterator[RenderableType]:
    if found.doubtful:
        yield titled(
            f"{counted(sum(one.copies for one in found.doubtful), 'copy', 'copies')} to be read before they count"
        )
        rows = [
            (
                *(one.location, one.copies, one.doubted or None, size(one.size_bytes)),
                *(one.in_vain or None, one.example, one.failure),
            )
            for one in found.doubtful
        ]
        yield table(["location", "copies", "in doubt", "size", "read in vain", "such as", "why"], rows)


def _damaged(found: TransferStatus) -> Iterator[RenderableType]:
    if found.damage:
        number = sum(one.damaged + one.gone for one in found.damage)
        copies = counted(number, "archive copy was", "archive copies were")
        yield titled(f"{copies} found bad in the last {COUNTED_FOR.days} days: `ccat transfer damage` lists them")
        rows = [(one.archive, one.damaged, one.gone, one.unmended, one.last_at) for one in found.damage]
        yield table(["archive", "damaged", "gone", "bad still", "the last at"], rows)


def _summary(found: TransferStatus) -> str:
    come, gone = size(found.registered_bytes), size(found.archived_bytes)
    of_late = f"{_backlog(found)}; in the last {found.window_hours:g} h {come} were registered, and {gone} archived"
    if not found.backlog_bytes or found.archived_last is None:
        return of_late
    return f"{of_late}, the last at {found.archived_last:%F %H:%M} UTC"


def _backlog(found: TransferStatus) -> str:
    if not found.backlog_bytes:
        return "all that was registered is archived"
    left = "" if found.backlog_hours is None else f", {_span(found.backlog_hours)} at the rate of late"
    return f"{size(found.backlog_bytes)} not archived yet{left}"


def _stage(one: OnItsWay) -> tuple[object, ...]:
    bytes_there = size(one.size_bytes) if one.size_bytes else None
    return one.stage, one.packages, one.files or None, bytes_there, one.oldest, _NEXT[one.stage]


def _way(one: Crossing | Crossed) -> str:
    return f"{one.origin} → {one.destination}"


def _brought(one: Crossing) -> str:
    """How much of it is where it goes to, and then how much of that is unpacked."""
    if one.arrived_bytes is None:
        return f"{size(one.size_bytes)}, not seen to move yet"
    is_there = one.arrived_bytes >= one.size_bytes
    bar = _bar(one.arrived, one.packages) if is_there else _bar(one.arrived_bytes, one.size_bytes)
    return f"{bar} {size(one.arrived_bytes)} of {size(one.size_bytes)}"


def _level(one: Level) -> tuple[object, ...]:
    if one.kept_bytes is not None:
        return one.location, one.type, f"{size(one.kept_bytes)} of ours", "an object store does not tell", None, None
    fills = f"{size(one.filled_per_hour)}/h" if one.filled_per_hour and one.filled_per_hour > 0 else None
    if one.state is SpaceState.UNKNOWN:
        return one.location, one.type, *_unknown(one), fills, fills and "unknown"
    if one.state is SpaceState.UNUSABLE or one.free_bytes is None or not one.total_bytes:
        free = None if one.free_bytes is None else size(one.free_bytes)
        return one.location, one.type, "unusable: `ccat locations` says why", free, fills, None
    used = one.total_bytes - one.free_bytes
    level = f"{_bar(used, one.total_bytes)} {used / one.total_bytes:.0%}"
    full = None if one.hours_left is None else _span(one.hours_left)
    return one.location, one.type, level, size(one.free_bytes), fills, full


def _read(one: ReadAgain) -> tuple[object, ...]:
    copies = counted(one.overdue_copies, "copy", "copies") if one.overdue_copies else "nothing"
    overdue = size(one.overdue_bytes) if one.overdue_copies else None
    return one.archive, f"{one.every_days} days", one.oldest, copies, overdue


def _unknown(one: Level) -> tuple[str, str | None]:
    """What is said of a level that no worker has seen of late, and of what was free then."""
    if one.seen_at is None:
        return "unknown: no worker has ever looked", None
    then = None if one.free_bytes is None else f"{size(one.free_bytes)} then"
    return f"unknown since {one.seen_at:%F %H:%M} UTC", then


def _span(hours: float) -> str:
    return f"{hours:g} h" if hours < _DAYS_FROM else f"{hours / 24:,.0f} days"


def _bar(part: int, whole: int) -> str:
    filled = round(_BAR * part / whole) if whole else 0
    return "█" * filled + "░" * (_BAR - filled)
