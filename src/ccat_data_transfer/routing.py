"""Which way a package takes from where it is towards its archive, and what travels together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from ccat_ops_db.states import RouteType

MOST_TOGETHER: Final = 10_000
"""Raw packages in one transfer package."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A location, as far as routes care."""

    location_id: int
    site_id: int
    site: str
    """Short name of the site."""


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route that is in use."""

    id: int
    type: RouteType
    origin_site_id: int
    destination_site_id: int
    via_site_id: int | None = None
    origin_id: int | None = None
    destination_id: int | None = None
    leads_to_buffer: bool = True
    """False for a CUSTOM route into a location that does not receive what is on its way to another one."""
    package_bytes: int
    package_wait: timedelta


@dataclass(frozen=True)
class Straight:
    """It can be archived from where it is."""


@dataclass(frozen=True)
class Hop:
    """It has to be moved to another location first."""

    route: Route
    destination_id: int


@dataclass(frozen=True)
class NoWay:
    """Nothing leads there."""

    because: str


Way: TypeAlias = Straight | Hop | NoWay


def way(routes: Iterable[Route], buffers: Mapping[int, int], *, origin: Place, destination: Place) -> Way:
    """The way from a location towards an archive; `buffers` are the locations that sites receive at, by site.

    What is at the archive's site is there. From another one, a CUSTOM route of just these locations comes first, which
    leads straight into the archive; then one from that location to a buffer, then the route between the sites. A DIRECT
    one leads to the buffer of the archive's site, and straight into the archive where there is none; a RELAY leads to
    the buffer of the site on the way.
    """
    if origin.site_id == destination.site_id:
        return Straight()
    known = [one for one in routes if one.leads_to_buffer or one.destination_id == destination.location_id]
    sites = (origin.site_id, destination.site_id)
    if any((one.origin_id, one.destination_id) == (origin.location_id, destination.location_id) for one in known):
        return Straight()
    route = _first(known, sites, location_id=origin.location_id)
    if route is None:
        return NoWay(f"No route leads from site {origin.site} to {destination.site}: `ccat route add` makes one.")
    if _leads_back(route, known, buffers):
        return NoWay(
            f"The routes from site {origin.site} to {destination.site} lead in a circle: `ccat routes` lists them, and "
            "`ccat route set NAME --inactive` takes one of them out."
        )
    return _along(route, buffers, origin=origin, destination=destination)


def _first(routes: Iterable[Route], sites: tuple[int, int], *, location_id: int | None) -> Route | None:
    """The route between two sites that data at a location take; None where there is none."""
    fitting = (
        one
        for one in routes
        if (one.origin_site_id, one.destination_site_id) == sites
        and (one.type is not RouteType.CUSTOM or one.origin_id == location_id)
    )
    return min(fitting, key=lambda one: (one.type is not RouteType.CUSTOM, one.id), default=None)


def _leads_back(route: Route, routes: Iterable[Route], buffers: Mapping[int, int]) -> bool:
    """Whether relays send on to one another what takes this route, and never to where it should go."""
    passed, site_id = {route.origin_site_id}, route.via_site_id
    while site_id is not None and site_id not in passed:
        passed.add(site_id)
        goes_on = _first(routes, (site_id, route.destination_site_id), location_id=buffers.get(site_id))
        site_id = goes_on.via_site_id if goes_on else None
    return site_id is not None


def _along(route: Route, buffers: Mapping[int, int], *, origin: Place, destination: Place) -> Way:
    if route.destination_id is not None:
        return Hop(route, route.destination_id)
    next_site = route.via_site_id or route.destination_site_id
    if next_site in buffers:
        return Hop(route, buffers[next_site])
    if route.type is RouteType.DIRECT:
        return Straight()
    return NoWay(f"The route from site {origin.site} to {destination.site} leads over a site without an active buffer.")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A raw package that waits to be moved."""

    transfer_id: int
    """Its archive transfer."""
    size_bytes: int
    since: datetime
    """When it came to where it is."""


def together(waiting: Sequence[Waiting], route: Route, *, now: datetime) -> Iterator[Sequence[Waiting]]:
    """What travels together now, in the order in which it came: as much as the route likes, or what waited for long."""
    parcel: list[Waiting] = []
    size = 0
    for one in sorted(waiting, key=lambda found: (found.since, found.transfer_id)):
        parcel.append(one)
        size += one.size_bytes
        if size >= route.package_bytes or len(parcel) == MOST_TOGETHER:
            yield parcel
            parcel, size = [], 0
    if parcel and parcel[0].since + route.package_wait <= now:
        yield parcel


def fitting(needed: Mapping[str, int], room: int) -> list[str]:
    """Files, by the bytes that each still needs, that there is room for: in their order, and at least the smallest.

    What does not fit leaves its room to others.
    """
    found, left = list[str](), room
    for name, size in needed.items():
        if size <= max(left, 0):
            found.append(name)
            left -= size
    return found or sorted(needed, key=lambda name: needed[name])[:1]


def parcel_name(origin: str, destination: str, *, now: datetime, number: int) -> str:
    """Path-safe and unique name of a transfer package: `ccat-cologne-20260401T021500Z-17`."""
    return f"{origin}-{destination}-{now:%Y%m%dT%H%M%SZ}-{number}"


def parcel_path(name: str) -> str:
    """Path of the directory where a transfer package arrives, below the root of a buffer."""
    return f"transfer/{name}"
