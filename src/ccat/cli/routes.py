from datetime import timedelta
from typing import Annotated

import typer

from ccat.cli.errors import reported
from ccat.cli.numbers import MOST_GB, finite
from ccat.cli.output import AsJson, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db.plan.advice import span
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.spaces import size
from ccat_ops_db.states import Mover
from ccat_ops_db.verbs.routing import RouteNow, RouteSettings, add_route, change_route, list_routes

app = typer.Typer(no_args_is_help=True, help="One route between sites; `ccat routes` lists them.")

_COLUMNS = ["name", "from", "to", "type", "via", "method", "sent once it has", "or data waited", "active"]
_GB = 10**9
_MOST_MINUTES = 366 * 24 * 60

End = Annotated[str, typer.Argument(metavar="SITE[/LOCATION]")]
Method = Annotated[Mover | None, typer.Option(help="What moves the bytes.", show_default=False)]
Size = Annotated[
    float | None,
    typer.Option(
        "--package-gb", min=0.001, max=MOST_GB, callback=finite, help="A transfer package is sent once it has as much."
    ),
]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait-minutes",
        min=0,
        max=_MOST_MINUTES,
        callback=finite,
        help="Or with less, once its oldest data waited as long.",
    ),
]


@app.command()
def add(
    origin: End,
    destination: End,
    *,
    via: Annotated[str | None, typer.Option(metavar="SITE", help="Over the buffer of a third site.")] = None,
    name: Annotated[str | None, typer.Option(help="As it is called; by its ends otherwise.")] = None,
    method: Method = None,
    package_gb: Size = None,
    wait_minutes: Wait = None,
    json: AsJson = False,
) -> None:
    """Add a route between two sites, which leads to the buffer of the second one; or between two locations."""
    settings = _settings(method, package_gb, wait_minutes, active=None)
    with reported(as_json=json), transaction("route") as session:
        route = add_route(session, origin, destination, via=via, name=name, settings=settings)
        added = route.name
    print_json({"route": added}) if json else typer.echo(f"route {added} is added; what waits for it is sent")


@app.command(name="set")
def change(
    name: str,
    *,
    method: Method = None,
    package_gb: Size = None,
    wait_minutes: Wait = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Whether anything new takes it.")] = None,
    json: AsJson = False,
) -> None:
    """Change a route."""
    settings = _settings(method, package_gb, wait_minutes, active=active)
    if settings == RouteSettings():
        raise typer.BadParameter("name what is to be changed: --method, --package-gb, --wait-minutes, --inactive")
    with reported(as_json=json), transaction("route") as session:
        change_route(session, name, settings)
    print_json({"route": name}) if json else typer.echo(f"route {name} is changed")


def _settings(
    method: Mover | None, package_gb: float | None, wait_minutes: float | None, *, active: bool | None
) -> RouteSettings:
    return RouteSettings(
        method=method,
        package_bytes=None if package_gb is None else round(package_gb * _GB),
        package_wait=None if wait_minutes is None else timedelta(minutes=wait_minutes),
        active=active,
    )


def routes(*, json: AsJson = False) -> None:
    """List the routes along which raw packages go from site to site."""
    with reported(as_json=json), transaction("routes") as session:
        found = list_routes(session)
    if json:
        print_json(found)
    else:
        print_table(counted(len(found), "route", "routes"), _COLUMNS, [_row(one) for one in found])


def _row(one: RouteNow) -> tuple[object, ...]:
    waited = span(one.package_wait_seconds / 3600) if one.package_wait_seconds else "not at all"
    ways = (one.name, one.origin, one.destination, one.type, one.via, one.method)
    return (*ways, size(one.package_bytes), waited, "yes" if one.active else "no")
