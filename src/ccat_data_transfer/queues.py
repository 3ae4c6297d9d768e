"""Which queue a piece of work goes to, and which queues a worker listens to.

A queue is named by the location whose disk cannot be reached from elsewhere: packing by the SOURCE that is read, all
else by the location that is written; but what is far from an object store is written into it by the workers of the
BUFFER or PROCESSING location that it is read from. Deletion and scrubbing go to where the copies are.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Final

from ccat_ops_db import models
from ccat_ops_db.lookup import UnknownName
from ccat_ops_db.states import LocationType
from ccat_service.queues import transfer_queue


class Operation(StrEnum):
    """What workers of data transfer do at a location."""

    PACKING = "packing"
    RESTORING = "restoring"
    TRANSFERRING = "transferring"
    UNPACKING = "unpacking"
    ARCHIVING = "archiving"
    STAGING = "staging"
    ARCHIVING_PRODUCTS = "archiving_products"
    TRANSFERRING_PRODUCTS = "transferring_products"
    DELETION = "deletion"
    SCRUBBING = "scrubbing"


_OPERATIONS_AT: Final[Mapping[LocationType, Collection[Operation]]] = {
    LocationType.SOURCE: (Operation.PACKING, Operation.DELETION),
    LocationType.BUFFER: (
        Operation.RESTORING,
        Operation.TRANSFERRING,
        Operation.TRANSFERRING_PRODUCTS,
        Operation.UNPACKING,
        Operation.ARCHIVING,
        Operation.DELETION,
        Operation.SCRUBBING,
    ),
    LocationType.LONG_TERM_ARCHIVE: (
        Operation.ARCHIVING,
        Operation.ARCHIVING_PRODUCTS,
        Operation.DELETION,
        Operation.SCRUBBING,
    ),
    LocationType.PROCESSING: (
        Operation.STAGING,
        Operation.ARCHIVING_PRODUCTS,
        Operation.DELETION,
        Operation.SCRUBBING,
    ),
}


def queue_of(location: models.DataLocation, operation: Operation) -> str:
    """Queue of the workers that do an operation at a location."""
    return transfer_queue(location.site.short_name, location.name, operation)


def queues_to_serve(locations: Iterable[models.DataLocation], serves: Collection[str] = ()) -> list[str]:
    """Queues of a worker that serves these sites (`ccat`) and locations (`ccat/buffer`); of all where none is named.

    Raises UnknownName for what is neither.
    """
    return sorted(
        queue_of(location, operation)
        for location in locations_to_serve(locations, serves)
        for operation in operations_at(location)
    )


def operations_at(location: models.DataLocation) -> Collection[Operation]:
    """What workers of a location do there."""
    return _OPERATIONS_AT[location.location_type]


def locations_to_serve(
    locations: Iterable[models.DataLocation], serves: Collection[str] = ()
) -> list[models.DataLocation]:
    """Those that are named, or whose site is; all where nothing is named. Raises UnknownName for what is neither."""
    names = {location: _names(location) for location in locations}
    known = set[str]().union(*names.values())
    for name in serves:
        if name not in known:
            raise UnknownName("site or location", name, known)
    return [location for location, called in names.items() if not serves or called & set(serves)]


def _names(location: models.DataLocation) -> set[str]:
    site = location.site.short_name
    return {site, f"{site}/{location.name}"}
