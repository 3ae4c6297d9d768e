"""Where the products of a run go and come from: which archive, which paths there, and which copy is fetched."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from ccat_data_transfer.routing import Place, Route
from ccat_ops_db.states import LocationType, RouteType, StorageType


@dataclass(frozen=True)
class Archive:
    """A long-term archive that is in use."""

    location_id: int
    site_id: int
    storage: StorageType
    priority: int


def archive_for(site_id: int, archives: Iterable[Archive], *, shares: Collection[int]) -> int | None:
    """Archive that products of a site are copied into; None where none can be written from there.

    One of the site itself is preferred, then priority decides. Of another site it is an object store, or a disk of a
    site whose workers see these files too: those of `shares`.
    """
    reached = [
        one for one in archives if one.storage is StorageType.S3 or one.site_id == site_id or one.site_id in shares
    ]
    preferred = min(reached, key=lambda one: (one.site_id != site_id, -one.priority, one.location_id), default=None)
    return preferred.location_id if preferred else None


def directory_of(pipeline: str, step: str, *, sub_group: str, run_id: int) -> str:
    """Directory of the products of a run below the root of an archive; `sub_group` is the path form of its key."""
    return f"products/{pipeline}/{step}/{sub_group}/{run_id}"


def description_path(directory: str) -> str:
    """What is known of a run and its products, beside their directory: no product can be called so."""
    return f"{directory}.json"


def listing_path(directory: str, tree: str) -> str:
    """Listing of a product that is a directory itself; its digest is that of the product."""
    return f"{directory}.trees/{tree}.listing"


def listing_beside(path: str, relative_path: str) -> str:
    """The same for a copy: `path` is that of the copy below the root of its location."""
    return listing_path(path.removesuffix(f"/{relative_path}"), relative_path)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A sound copy of a product, at another location than it is wanted at."""

    copy_id: int
    place: Place
    type: LocationType
    storage: StorageType
    priority: int = 0


@dataclass(frozen=True)
class Fetch:
    """How a product is fetched."""

    source: Source
    route: Route | None
    """What its files are moved along; None: they are read where they are."""


def fetch_from(
    sources: Iterable[Source], site_id: int, *, seen: Collection[int], routes: Iterable[Route]
) -> Fetch | None:
    """The copy that a product is fetched from to a location of a site; None where none can be got to.

    `seen` are the other sites whose files are seen from there. What is at the site, or seen, is read where it is, disks
    before archives; so is an object store anywhere. Else a route has to lead there, from the location or from its site.
    """
    ordered = sorted(sources, key=lambda one: _order(one, site_id))
    near = [one for one in ordered if one.place.site_id in {site_id, *seen} or one.storage is StorageType.S3]
    if near:
        return Fetch(near[0], None)
    by_age = sorted(routes, key=lambda route: route.id)
    led = [Fetch(one, route) for one in ordered if (route := _route(by_age, one.place, site_id)) is not None]
    return led[0] if led else None


def _order(source: Source, site_id: int) -> tuple[bool, bool, int, int]:
    is_archive = source.type is LocationType.LONG_TERM_ARCHIVE
    return source.place.site_id != site_id, is_archive, -source.priority, source.copy_id


def _route(routes: Iterable[Route], origin: Place, site_id: int) -> Route | None:
    """The first route that leads from a location to a site without another on the way."""
    between = [one for one in routes if (one.origin_site_id, one.destination_site_id) == (origin.site_id, site_id)]
    custom = [one for one in between if one.type is RouteType.CUSTOM and one.origin_id == origin.location_id]
    direct = [one for one in between if one.type is RouteType.DIRECT]
    return next(iter([*custom, *direct]), None)
