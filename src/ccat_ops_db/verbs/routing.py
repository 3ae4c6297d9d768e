"""Routes along which data go from site to site."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION, ROUTE, SITE, find, names
from ccat_ops_db.naming import listed
from ccat_ops_db.states import LocationType, Mover, RouteType

_RECEIVES = (LocationType.BUFFER, LocationType.LONG_TERM_ARCHIVE)
_NOT_BUILT = frozenset({Mover.BBCP})


class RouteRefused(CcatError):
    """A route is asked for that leads nowhere."""

    code = "route_refused"

    def __init__(self, origin: str, destination: str, problem: str) -> None:
        super().__init__(f"There can be no route from {origin} to {destination}: {problem}.")


class MethodRefused(CcatError):
    """A route is to have a method that is foreseen, and that nothing can carry out."""

    code = "method_refused"

    def __init__(self, route: str, method: Mover) -> None:
        built = listed(sorted(set(Mover) - _NOT_BUILT))
        super().__init__(
            f"Route {route} cannot be of the method {method}, which is foreseen and not built; there is {built}. "
            "Nothing was changed."
        )


@dataclass(frozen=True, kw_only=True)
class RouteSettings:
    """What can be changed of a route; None stays as it is."""

    method: Mover | None = None
    package_bytes: int | None = None
    package_wait: timedelta | None = None
    active: bool | None = None


@dataclass(frozen=True, kw_only=True)
class RouteNow:
    """A route as a list shows it."""

    name: str
    origin: str
    destination: str
    type: RouteType
    via: str | None
    method: Mover
    package_bytes: int
    package_wait_seconds: int
    active: bool


@dataclass(frozen=True)
class _End:
    """A site, or a location of it."""

    named: str
    site: models.Site
    location: models.DataLocation | None


def add_route(
    session: Session,
    origin: str,
    destination: str,
    *,
    via: str | None = None,
    name: str | None = None,
    settings: RouteSettings,
) -> models.DataTransferRoute:
    """Add a route between two sites, over a third one where that is given, or between two locations, `site/name`.

    Raises UnknownName and RouteRefused.
    """
    ends = _end(session, origin), _end(session, destination)
    over = find(session, SITE, via) if via else None
    name = name or f"{origin}_to_{destination}".replace("/", "-")
    if problem := _problem(*ends, over) or _taken(session, name):
        raise RouteRefused(origin, destination, problem)
    route = models.DataTransferRoute(
        name=name,
        origin_site_id=ends[0].site.id,
        destination_site_id=ends[1].site.id,
        route_type=RouteType.RELAY if over else RouteType.CUSTOM if ends[0].location else RouteType.DIRECT,
        method=Mover.RSYNC,
        via_site_id=over.id if over else None,
        origin_id=ends[0].location.id if ends[0].location else None,
        destination_id=ends[1].location.id if ends[1].location else None,
    )
    session.add(route)
    _change(session, route, settings)
    return route


def change_route(session: Session, name: str, settings: RouteSettings) -> models.DataTransferRoute:
    """Change a route; what is on its way already goes on. Raises UnknownName."""
    route = find(session, ROUTE, name)
    _change(session, route, settings)
    return route


def list_routes(session: Session) -> Sequence[RouteNow]:
    """Every route, by its name."""
    sites = dict(session.execute(sa.select(models.Site.id, models.Site.short_name)).all())
    places = dict(session.execute(LOCATION.rows.with_only_columns(models.DataLocation.id, LOCATION.label)).all())
    return [
        RouteNow(
            name=one.name,
            origin=places[one.origin_id] if one.origin_id else sites[one.origin_site_id],
            destination=places[one.destination_id] if one.destination_id else sites[one.destination_site_id],
            type=one.route_type,
            via=sites[one.via_site_id] if one.via_site_id else None,
            method=one.method,
            package_bytes=one.package_bytes,
            package_wait_seconds=one.package_wait_seconds,
            active=one.active,
        )
        for one in session.scalars(ROUTE.rows.order_by(ROUTE.label))
    ]


def _change(session: Session, route: models.DataTransferRoute, settings: RouteSettings) -> None:
    if settings.method in _NOT_BUILT:
        raise MethodRefused(route.name, settings.method)
    if settings.method is not None:
        route.method = settings.method
    if settings.package_bytes is not None:
        route.package_bytes = settings.package_bytes
    if settings.package_wait is not None:
        route.package_wait_seconds = round(settings.package_wait.total_seconds())
    if settings.active is not None:
        route.active = settings.active
    session.flush()


def _end(session: Session, name: str) -> _End:
    if "/" not in name:
        return _End(name, find(session, SITE, name), None)
    location = find(session, LOCATION, name)
    return _End(name, location.site, location)


def _problem(origin: _End, destination: _End, over: models.Site | None) -> str | None:
    """Why there is no such route; None where there may be."""
    sites, places = (origin.site, destination.site), (origin.location, destination.location)
    is_relay, is_custom = over is not None, all(places)
    leaves = origin.location.location_type if origin.location else LocationType.BUFFER
    receives = destination.location.location_type if destination.location else LocationType.BUFFER
    checks = (
        (sites[0] is sites[1], "both are at one site, which needs none"),
        (any(places) and not is_custom, "name two sites, or two locations as SITE/NAME"),
        (is_relay and is_custom, "one over another site leads between sites, and not between locations"),
        (over in sites, "one over a third site has to lead from and to other sites"),
        (receives not in _RECEIVES, f"{destination.named} is a {receives} location; take a buffer or an archive"),
        (leaves is not LocationType.BUFFER, f"{origin.named} is a {leaves} location; packages leave from a buffer"),
    )
    return next((words for is_so, words in checks if is_so), None)


def _taken(session: Session, name: str) -> str | None:
    is_taken = name in names(session, ROUTE)
    return f"there is a route of the name {name}: `ccat route set` changes it" if is_taken else None
