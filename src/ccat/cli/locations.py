from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, counted, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db.plan.spaces import SpaceState, size
from ccat_ops_db.queries.spaces import LocationNow, list_locations
from ccat_ops_db.states import BackendName, LocationType
from ccat_ops_db.verbs.locating import add_processing_location, change_location
from ccat_workflow_manager.places import serve

app = typer.Typer(no_args_is_help=True, help="One location.")

_COLUMNS = ["id", "location", "type", "backend", "free", "reserve", "state", "live", "paused", "path"]

_NOWHERE = Path("/nowhere")
Name = Annotated[str, typer.Argument(metavar="SITE/NAME")]
Reserve = Annotated[
    float | None, typer.Option(metavar="GB", min=0, help="Nothing is staged or submitted while less than this is free.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Of its backend, such as cpus=8; `KEY=` removes.")
]


@app.command()
def add(
    name: Name,
    *,
    path: Annotated[Path, typer.Option(help="Directory, the same for all that serve it.")],
    backend: Annotated[BackendName, typer.Option(help="Where its jobs run.")] = BackendName.LOCAL,
    reserve: Reserve = None,
    settings: Settings = None,
    json: AsJson = False,
) -> None:
    """Add a directory where jobs run: on the host of the workers that serve it, or on a cluster that shares it."""
    site, _, short = name.partition("/")
    if not short:
        raise typer.BadParameter(f"{name!r} names a site and no location; say {site}/NAME", param_hint="SITE/NAME")
    with reported(as_json=json), transaction("location") as session:
        add_processing_location(session, site, short, path=str(path.absolute()), backend=backend)
        number = _change(session, name, reserve=reserve, settings=settings)
    told = (
        f"{name} is location {number}; name it in CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID of those that serve it"
    )
    print_json({"id": number, "location": name}) if json else typer.echo(told)


@app.command(name="set")
def change(name: Name, *, reserve: Reserve = None, settings: Settings = None, json: AsJson = False) -> None:
    """Change the reserve of a location, or settings of its backend, which processes read when they start."""
    if reserve is None and not settings:
        raise typer.BadParameter("name --reserve or --set")
    with reported(as_json=json), transaction("location") as session:
        number = _change(session, name, reserve=reserve, settings=settings)
    print_json({"id": number, "location": name}) if json else typer.echo(f"{name} is changed")


def _change(session: Session, name: str, *, reserve: float | None, settings: list[str] | None) -> int:
    """Change a location, and refuse what nobody could serve then."""
    pairs = [one.partition("=") for one in settings or ()]
    if any(not equals for _, equals, _ in pairs):
        raise typer.BadParameter("a setting is written KEY=VALUE", param_hint="--set")
    reserve_bytes = None if reserve is None else round(reserve * 10**9)
    given = {key: value or None for key, _, value in pairs}
    location = change_location(session, name, reserve_bytes=reserve_bytes, settings=given)
    if given or location.location_type is LocationType.PROCESSING:
        serve(location, default_base=_NOWHERE)
    return location.id


def locations(*, json: AsJson = False) -> None:
    """List where data lie and are processed, with the room that is left and what is the matter there."""
    with reported(as_json=json), transaction("locations") as session:
        found = list_locations(session, now=datetime.now(UTC))
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
        yield one.id, one.name, one.type, one.backend, free, reserve, _state(one), runs, one.paused, one.path


def _state(one: LocationNow) -> str:
    if one.state is SpaceState.UNKNOWN and one.checked_at:
        return f"unknown since {one.checked_at:%F %T}"
    if one.state is SpaceState.UNUSABLE and one.trouble:
        return one.trouble
    return one.state
