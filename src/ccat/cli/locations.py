from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.losing import lost
from ccat.cli.numbers import MOST_GB, finite
from ccat.cli.output import AsJson, print_json, print_table
from ccat.cli.places import absent_here, backend_at, place_of, split, told
from ccat.wiring import transaction
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.spaces import SpaceState, size
from ccat_ops_db.queries.spaces import LocationNow, list_locations, place_told
from ccat_ops_db.session import database_time
from ccat_ops_db.states import BackendName, LocationType, StorageType
from ccat_ops_db.verbs.locating import add_location, change_location, change_scrubbing, move_location
from ccat_ops_db.verbs.removing import remove_location
from ccat_workflow_manager.places import serve

app = typer.Typer(no_args_is_help=True, help="One location.")
app.command()(lost)

_COLUMNS = ["id", "location", "type", "backend", "free", "reserve", "state", "live", "paused", "place"]

_NOWHERE = Path("/nowhere")
Name = Annotated[str, typer.Argument(metavar="SITE/NAME")]
Reserve = Annotated[
    float | None,
    typer.Option(
        metavar="GB", min=0, max=MOST_GB, callback=finite, help="Nothing is staged or submitted while less is free."
    ),
]
PathOf = Annotated[Path | None, typer.Option("--path", help="Directory, the same for all that serve it.")]
Host = Annotated[
    str | None,
    typer.Option(metavar="[USER@]HOST", help="Host whose disk it is, as rsync reaches it from other sites."),
]
Priority = Annotated[
    int | None, typer.Option(min=-1000, max=1000, help="Higher is used first among equals; 0 if it is not said.")
]
Bucket = Annotated[str | None, typer.Option(help="Bucket of an object store.")]
Prefix = Annotated[str | None, typer.Option(help="What every key begins with.")]
Endpoint = Annotated[str | None, typer.Option("--endpoint-url", metavar="URL", help="The object store; else AWS.")]
Region = Annotated[str | None, typer.Option(help="Region, where the store has any.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of its backend, such as cpus=8; `KEY=` removes.")
]


@app.command()
def add(
    name: Name,
    *,
    location_type: Annotated[LocationType, typer.Option("--type", help="What it is for.")] = LocationType.PROCESSING,
    storage: Annotated[StorageType, typer.Option(help="What it is on.")] = StorageType.DISK,
    path: PathOf = None,
    host: Host = None,
    bucket: Bucket = None,
    prefix: Prefix = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    backend: Annotated[BackendName | None, typer.Option(help="Where jobs run; `local` if not said.")] = None,
    priority: Priority = None,
    reserve: Reserve = None,
    settings: Settings = None,
    json: AsJson = False,
) -> None:
    """Add a place for data or jobs: a directory, or a bucket as a long-term archive; it needs no other configuration.

    Jobs run on the host of the workers that serve the directory, or on a cluster that shares it.
    """
    site, short = split(name)
    of_bucket = {"bucket": bucket, "prefix": prefix, "endpoint_url": endpoint_url, "region": region}
    place = place_of(storage, path=path, host=host, **of_bucket)
    at = backend_at(location_type, backend)
    with reported(as_json=json), transaction("location") as session:
        add_location(session, site, short, place=place, location_type=location_type, backend=at, priority=priority or 0)
        number = _change(session, name, reserve=reserve, settings=settings)
    said = told(name, number, location_type=location_type, place=place)
    print_json({"id": number, "location": name}) if json else typer.echo(said)


@app.command(name="set")
def change(
    name: Name,
    *,
    reserve: Reserve = None,
    settings: Settings = None,
    scrub_days: Annotated[
        int | None, typer.Option(min=0, max=36_600, help="Archives: copies are read again; 0 is never.")
    ] = None,
    scrub_rate: Annotated[
        float | None,
        typer.Option(metavar="MB/S", min=0.1, max=1_000_000, callback=finite, help="At most so fast."),
    ] = None,
    priority: Priority = None,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="Whether new packages and products are put there.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Change what is asked of a location, how an archive is read again, or settings of its backend, read at a start."""
    if {reserve, scrub_days, scrub_rate, priority, active} == {None} and not settings:
        raise typer.BadParameter("name --reserve, --scrub-days, --scrub-rate, --priority, --inactive or --set")
    with reported(as_json=json), transaction("location") as session:
        number = _change(session, name, reserve=reserve, settings=settings, active=active, priority=priority)
        change_scrubbing(session, name, days=scrub_days, mb_per_s=scrub_rate)
    print_json({"id": number, "location": name}) if json else typer.echo(f"{name} is changed")


@app.command()
def move(
    name: Name,
    *,
    path: PathOf = None,
    host: Host = None,
    bucket: Bucket = None,
    prefix: Prefix = None,
    endpoint_url: Endpoint = None,
    region: Region = None,
    json: AsJson = False,
) -> None:
    """Say where the files of a location lie now; an empty --host, --prefix, --endpoint-url or --region takes it away.

    Nothing is copied: stop what reads or writes there, move the files, say it here, and start it again. Copies count
    once they were read where they are now.
    """
    now = {"host": host, "bucket": bucket, "prefix": prefix, "endpoint_url": endpoint_url, "region": region}
    now["path"] = None if path is None else str(path)
    if set(now.values()) == {None}:
        raise typer.BadParameter("name what changed: --path, --host, --bucket, --prefix, --endpoint-url or --region")
    with reported(as_json=json), transaction("location") as session:
        unread = move_location(session, name, **now)
        place = place_told(find(session, LOCATION, name))
    said = {"location": name, "place": place, "unread": unread}
    print_json(said) if json else typer.echo(_moved(name, place, unread) + absent_here(path, host))


def _moved(name: str, place: str, unread: int) -> str:
    said = f"{name} is at {place} now; start what serves it again"
    copies = counted(unread, "copy there counts once it was", "copies there count once they were")
    return f"{said}. {copies} read" if unread else said


@app.command()
def remove(name: Name, *, json: AsJson = False) -> None:
    """Take away a location that was added by mistake; one that ever held data, or ran jobs, stays."""
    with reported(as_json=json), transaction("location") as session:
        remove_location(session, name)
    print_json({"location": name, "removed": True}) if json else typer.echo(f"{name} is removed")


def _change(
    session: Session,
    name: str,
    *,
    reserve: float | None,
    settings: list[str] | None,
    active: bool | None = None,
    priority: int | None = None,
) -> int:
    """Change a location, and refuse what nobody could serve then."""
    pairs = [one.partition("=") for one in settings or ()]
    if any(not equals for _, equals, _ in pairs):
        raise typer.BadParameter("a setting is written KEY=VALUE", param_hint="--set")
    reserve_bytes = None if reserve is None else round(reserve * 10**9)
    given = {key: value or None for key, _, value in pairs}
    changes: dict[str, Any] = {"reserve_bytes": reserve_bytes, "active": active, "priority": priority}
    location = change_location(session, name, settings=given, **changes)
    if given or location.location_type is LocationType.PROCESSING:
        serve(location, default_base=_NOWHERE)
    return location.id


def locations(*, json: AsJson = False) -> None:
    """List where data lie and are processed, with the room that is left and what is the matter there."""
    with reported(as_json=json), transaction("locations") as session:
        found = list_locations(session, now=database_time(session))
    if json:
        print_json(found)
    else:
        print_table(counted(len(found), "location", "locations"), _COLUMNS, _rows(found))


def _rows(found: Iterable[LocationNow]) -> Iterable[Sequence[object]]:
    for one in found:
        free = None if one.free_bytes is None else f"{size(one.free_bytes)} of {size(one.total_bytes or 0)}"
        reserve = size(one.reserve_bytes) if one.reserve_bytes else None
        live = f"{one.live} of {one.live_limit}" if one.live_limit else str(one.live)
        runs = live if one.backend else None
        yield one.id, one.name, one.type, one.backend, free, reserve, _state(one), runs, one.paused, one.place


def _unread(one: LocationNow) -> str:
    by_some = (f"cannot be read by {worker}: {because}" for worker, because in one.unread_by.items())
    return f"cannot be read: {one.unreadable}" if one.unreadable else "; ".join(by_some)


def _state(one: LocationNow) -> str | None:
    if not one.active:
        return f"lost since {one.lost_at:%F}" if one.lost_at else "inactive"
    if one.unreadable or one.unread_by:
        return _unread(one)
    if one.storage is StorageType.S3:
        return None  # nobody looks: a bucket has no free space
    if one.state is SpaceState.UNKNOWN and one.checked_at:
        return f"unknown since {one.checked_at:%F %T}"
    if one.state is SpaceState.UNUSABLE and one.trouble:
        return one.trouble
    return one.state
