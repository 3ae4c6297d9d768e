"""Where the products of a run go and come from: which archive by which way, which paths, and which copy is fetched."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ccat_data_transfer.routing import Hop, NoWay, Place, Route, Straight, way
from ccat_ops_db.states import LocationType, RouteType, StorageType


@dataclass(frozen=True)
class Archive:
    """A long-term archive."""

    location_id: int
    site_id: int
    storage: StorageType
    priority: int
    is_active: bool = True


@dataclass(frozen=True, kw_only=True)
class Network:
    """Where everything is, and what leads where."""

    places: Mapping[int, Place]
    """By location."""
    routes: Sequence[Route]
    buffers: Mapping[int, int]
    """Location that receives data at a site, by site."""
    mounted: Collection[tuple[int, int]]
    """Pairs of sites: the workers of the second see the files of the first."""
    away: Collection[int] = frozenset()
    """Locations where nothing can be read now, or that nobody has looked at for long."""
    shut: Collection[int] = frozenset()
    """Locations where what is to go there would wait now: these, and those that are full or cannot be written."""

    def seen_from(self, site_id: int) -> set[int]:
        """Other sites whose files are seen from a site."""
        return {seen for seen, by in self.mounted if by == site_id}


@dataclass(frozen=True)
class Aim:
    """Where products of a run go: an archive, and first a buffer along a route, where they cannot get there at once."""

    archive_id: int | None = None
    next_id: int | None = None
    route_id: int | None = None


NOWHERE: Final = Aim()


def aim_from(origin: Place, archives: Iterable[Archive], here: Network, *, kept: int | None = None) -> Aim:
    """Where products go from a location; NOWHERE where no archive can be got to.

    An archive that was chosen before is kept for as long as it can be got to. Of the others one that is shut is taken
    only where all are; one of the site itself is preferred, then priority decides. Into an object store, and a disk of
    a site that sees these files, they are copied from where they are; else they take the way of raw packages, over
    buffers.
    """
    usable = [one for one in archives if one.is_active or one.location_id == kept]
    led = {archive: aim for archive in usable if (aim := _aim(origin, archive, here)) is not None}
    before = [aim for aim in led.values() if aim.archive_id == kept]
    ordered = sorted(led, key=lambda one: _preference(one, origin, here))
    return next(iter([*before, *(led[one] for one in ordered)]), NOWHERE)


def _preference(archive: Archive, origin: Place, here: Network) -> tuple[bool, bool, int, int]:
    number = archive.location_id
    return number in here.shut, archive.site_id != origin.site_id, -archive.priority, number


def _aim(origin: Place, archive: Archive, here: Network) -> Aim | None:
    number = archive.location_id
    if archive.storage is StorageType.S3 or origin.site_id in here.seen_from(archive.site_id):
        return Aim(number)
    match way(here.routes, here.buffers, origin=origin, destination=here.places[number]):
        case Straight():
            return Aim(number)
        case Hop(route, buffer):
            return Aim(number, buffer, route.id)
        case NoWay():
            return None


def directory_of(pipeline: str, step: str, *, sub_group: str, run_id: int) -> str:
    """Directory of the products of a run below the root of an archive; `sub_group` is the path form of its key."""
    return f"products/{pipeline}/{step}/{sub_group}/{run_id}"


def description_path(directory: str) -> str:
    """What is known of a run and its products, beside their directory: no product can be called so."""
    return f"{directory}.json"


def listing_path(directory: str, tree: str) -> str:
    """Listing of a product that is a directory itself; its digest is that of the product."""
    return f"{directory}.trees/{tree}.listing"


def inbox_of(copy_id: int) -> str:
    """Directory that a product arrives in which a copy at a processing location is made of."""
    return f"transfer/product-{copy_id}"


def inbox_of_run(run_id: int) -> str:
    """Directory of a buffer that the products of a run arrive in."""
    return f"transfer/run-{run_id}"


def top_of(path: str | None, relative_path: str) -> str:
    """Directory that the products of a run lie in, where one of them has this path below the root of a location."""
    return (path or "").removesuffix(f"/{relative_path}")


def listing_beside(path: str, relative_path: str) -> str:
    """The same for a copy: `path` is that of the copy below the root of its location."""
    return listing_path(top_of(path, relative_path), relative_path)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A sound copy of a product, at another location than it is wanted at."""

    copy_id: int
    place: Place
    type: LocationType
    storage: StorageType
    priority: int = 0
    is_verified: bool = True
    """Whether it was read and found right; else it was not yet, or is in doubt."""
    is_doubted: bool = False
    """Whether there is a reason to think that it is bad."""
    is_refused: bool = False
    """Whether who fetches it could not have it, though its location reads it and finds it right."""
    is_to_go: bool = False
    """Whether it was to be deleted, and is taken back to be read."""
    is_away: bool = False
    """Whether its location is."""


@dataclass(frozen=True)
class Fetch:
    """How a product is fetched."""

    source: Source
    route: Route | None
    """What its files are moved along; None: they are read where they are."""

    @property
    def waits(self) -> bool:
        """Whether it is to be read where it lies first: what is in doubt is not sent over networks."""
        return self.route is not None and self.source.is_doubted


def fetch_from(
    sources: Iterable[Source], site_id: int, *, seen: Collection[int], routes: Iterable[Route]
) -> Fetch | None:
    """The copy that a product is fetched from to a location of a site; None where none can be got to.

    `seen` are the other sites whose files are seen from there. What is at the site, or seen, is read where it is, disks
    before archives; so is an object store anywhere. Else a route has to lead there, from the location or from its site.
    One that was not read yet is taken where no verified one can be got to, one that was refused before where there is
    none of these, one at a location that is away after that, and one in doubt where there is no other. Of those that
    are read alike, what is to stay comes first.
    """
    ordered = sorted(sources, key=lambda one: _order(one, site_id))
    by_age = sorted(routes, key=lambda route: route.id)
    at_hand = [one for one in ordered if not one.is_away]
    found = (_first(some, site_id, seen=seen, by_age=by_age) for some in (*_pools(at_hand), *_pools(ordered), ordered))
    return next((one for one in found if one is not None), None)


def _pools(ordered: Sequence[Source]) -> Iterator[Sequence[Source]]:
    """Copies that are not in doubt, the best first."""
    undoubted = [one for one in ordered if not one.is_doubted]
    untried = [one for one in undoubted if not one.is_refused]
    yield from ([one for one in untried if one.is_verified], untried, undoubted)


def _first(ordered: Sequence[Source], site_id: int, *, seen: Collection[int], by_age: Sequence[Route]) -> Fetch | None:
    near = [one for one in ordered if one.place.site_id in {site_id, *seen} or one.storage is StorageType.S3]
    if near:
        return Fetch(near[0], None)
    led = [Fetch(one, route) for one in ordered if (route := _route(by_age, one.place, site_id)) is not None]
    return led[0] if led else None


def _order(source: Source, site_id: int) -> tuple[bool, bool, bool, int, int]:
    is_archive = source.type is LocationType.LONG_TERM_ARCHIVE
    return source.is_to_go, source.place.site_id != site_id, is_archive, -source.priority, source.copy_id


def _route(routes: Iterable[Route], origin: Place, site_id: int) -> Route | None:
    """The first route that leads from a location to a site without another on the way."""
    between = [one for one in routes if (one.origin_site_id, one.destination_site_id) == (origin.site_id, site_id)]
    custom = [one for one in between if one.type is RouteType.CUSTOM and one.origin_id == origin.location_id]
    direct = [one for one in between if one.type is RouteType.DIRECT]
    return next(iter([*custom, *direct]), None)
