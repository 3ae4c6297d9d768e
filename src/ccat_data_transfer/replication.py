"""Which archive a package is copied to next, and from where: for more copies, and in place of one that was lost."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ccat_data_transfer.routing import Place
from ccat_ops_db.states import LocationType


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A long-term archive that takes copies."""

    place: Place
    priority: int
    is_shut: bool = False
    """Whether what is to go there would wait now: it is away, or nothing can be put there."""


@dataclass(frozen=True, kw_only=True)
class Holding:
    """A sound copy of a package."""

    place: Place
    type: LocationType


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A copy that is to be made: from where, which may have to be made first, to which archive."""

    origin_id: int
    archive_id: int


Leads = Callable[[int, int], bool]
"""Whether there is any way from one location to another."""


def next_copy(
    archives: Sequence[Archive],
    holdings: Sequence[Holding],
    *,
    taken: Collection[int],
    lost: Collection[int],
    buffers: Mapping[int, int],
    sources: Collection[int],
    leads: Leads,
) -> Wish | None:
    """The copy to be made next; None where there is nowhere to put it, or nothing to make it from.

    `taken` are archives that have the package, or are about to, or failed to take it; `lost` those whose copy was found
    damaged or gone, which come first; then sites without any copy. One that is shut waits for its copy only where no
    other can take it. It is read at the same site where that can be, else
    where an archive has it, as the way from the observatory is taken once: then by the buffer of that site, `buffers`
    by site, into which it is restored. `sources` are sites where its raw files are still, to be packed anew.
    """
    with_copy = {one.place.site_id for one in holdings if one.type is LocationType.LONG_TERM_ARCHIVE}
    free = [one for one in archives if one.place.location_id not in taken]
    ordered = sorted(
        free,
        key=lambda one: (
            one.is_shut,
            one.place.location_id not in lost,
            one.place.site_id in with_copy,
            -one.priority,
            one.place.location_id,
        ),
    )
    for archive in ordered:
        for origin_id in _origins(archive, holdings, buffers=buffers, sources=sources):
            if leads(origin_id, archive.place.location_id):
                return Wish(origin_id=origin_id, archive_id=archive.place.location_id)
    return None


def _origins(
    archive: Archive, holdings: Sequence[Holding], *, buffers: Mapping[int, int], sources: Collection[int]
) -> list[int]:
    """Where a copy could start from, the best first."""
    here = archive.place.site_id
    archived = [one for one in holdings if one.type is LocationType.LONG_TERM_ARCHIVE]
    buffered = [one for one in holdings if one.type is LocationType.BUFFER]
    sites = {one.place.site_id for one in archived}
    found = [
        *(one.place.location_id for one in (*buffered, *archived) if one.place.site_id == here),
        *(one.place.location_id for one in buffered if one.place.site_id in sites),
        *(buffers[site] for site in sorted(sites - {here}) if site in buffers),
        *(one.place.location_id for one in buffered),
        *(buffers[site] for site in sorted(sources) if site in buffers),
    ]
    return list(dict.fromkeys(found))
