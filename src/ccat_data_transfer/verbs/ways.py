"""Conditions on archive transfers: whether their package is packed, and whether it is where it can be archived from."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_data_transfer.routing import NoWay, Place, Route, way
from ccat_ops_db import models
from ccat_ops_db.plan.retention import AWAY_AFTER
from ccat_ops_db.queries.away import is_away
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import LocationType, PhysicalCopyStatus, RouteType, StorageType

_Archiving, _Route, _Location = models.LongTermArchiveTransfer, models.DataTransferRoute, models.DataLocation
_Origin, _Destination, _Buffer = (table_of(_Location).alias() for _ in range(3))
_FROM: Final = sa.and_(_Origin.c.id == _Archiving.origin_id, _Destination.c.id == _Archiving.destination_id)


def is_packed() -> sa.ColumnElement[bool]:
    """Condition: the tar of its package is where it starts from."""
    copy = aliased(models.PhysicalCopy, flat=True)
    return sa.exists().where(
        copy.raw_data_package_id == _Archiving.raw_data_package_id,
        copy.data_location_id == _Archiving.origin_id,
        copy.status == PhysicalCopyStatus.PRESENT,
    )


def is_restorable() -> sa.ColumnElement[bool]:
    """Condition: an archive at the site where it starts has its package, and is not away."""
    copy, archive, start = aliased(models.PhysicalCopy), aliased(_Location, flat=True), aliased(_Location, flat=True)
    return (
        sa.exists()
        .where(
            start.id == _Archiving.origin_id,
            start.location_type == LocationType.BUFFER,
            archive.site_id == start.site_id,
            archive.location_type == LocationType.LONG_TERM_ARCHIVE,
            copy.data_location_id == archive.id,
            copy.raw_data_package_id == _Archiving.raw_data_package_id,
            copy.status == PhysicalCopyStatus.PRESENT,
            sa.not_(is_away(archive, for_long=AWAY_AFTER)),
        )
        .correlate(_Archiving)
    )


def is_straight() -> sa.ColumnElement[bool]:
    """Condition: it can be archived from where it starts, as `routing.way` says it of one."""
    custom = sa.exists().where(
        _Route.active,
        _Route.route_type == RouteType.CUSTOM,
        _Route.origin_id == _Archiving.origin_id,
        _Route.destination_id == _Archiving.destination_id,
    )
    return sa.or_(_is_at_its_site(), custom, _leads_into_the_archive())


def writer_id() -> sa.ColumnElement[int]:
    """Location whose workers write the archive: it, or where the data are for an object store of another site."""
    is_far_store = sa.exists().where(
        _FROM, _Origin.c.site_id != _Destination.c.site_id, _Destination.c.storage_type == StorageType.S3
    )
    return sa.case((is_far_store.correlate(_Archiving), _Archiving.origin_id), else_=_Archiving.destination_id)


def _is_at_its_site() -> sa.ColumnElement[bool]:
    return sa.exists().where(_FROM, _Origin.c.site_id == _Destination.c.site_id).correlate(_Archiving)


def _leads_into_the_archive() -> sa.ColumnElement[bool]:
    """The first route between the sites is a DIRECT one, and nothing receives data there."""
    receiving = sa.select(_Buffer.c.id).where(_Buffer.c.location_type == LocationType.BUFFER, _Buffer.c.active)
    leads_on = sa.or_(_Route.destination_id == _Destination.c.id, _Route.destination_id.in_(receiving))
    between = sa.and_(
        _Route.active,
        _Route.origin_site_id == _Origin.c.site_id,
        _Route.destination_site_id == _Destination.c.site_id,
        sa.or_(_Route.route_type != RouteType.CUSTOM, sa.and_(_Route.origin_id == _Origin.c.id, leads_on)),
    )
    first = (
        sa.select(_Route.route_type)
        .where(between)
        .order_by((_Route.route_type == RouteType.CUSTOM).desc(), _Route.id)
        .limit(1)
        .correlate(_Origin, _Destination)
        .scalar_subquery()
    )
    receives = sa.exists().where(
        _Buffer.c.site_id == _Destination.c.site_id, _Buffer.c.location_type == LocationType.BUFFER, _Buffer.c.active
    )
    return (
        sa.exists()
        .where(_FROM, first == RouteType.DIRECT, sa.not_(receives.correlate(_Destination)))
        .correlate(_Archiving)
    )


@dataclass(frozen=True, kw_only=True)
class Map:
    """Where everything is, and what leads where."""

    places: Mapping[int, Place]
    """By location."""
    routes: tuple[Route, ...]
    buffers: Mapping[int, int]
    """Location that receives data at a site, by site."""

    def leads_to(self, origin_id: int, archive_id: int) -> bool:
        """Whether there is any way from a location to an archive."""
        found = way(self.routes, self.buffers, origin=self.places[origin_id], destination=self.places[archive_id])
        return not isinstance(found, NoWay)

    def sites_of(self, origin_id: int, destination_id: int) -> tuple[str, str]:
        """Short names of the sites of two locations."""
        return self.places[origin_id].site, self.places[destination_id].site


def the_map(session: Session) -> Map:
    """All locations, and the routes that are in use."""
    location = models.DataLocation
    found = session.execute(sa.select(location, models.Site).join(location.site)).all()
    places = {one.id: Place(location_id=one.id, site_id=site.id, site=site.short_name) for one, site in found}
    receiving = [one for one, _ in found if one.location_type is LocationType.BUFFER and one.active]
    routes = session.scalars(sa.select(_Route).where(_Route.active)).all()
    return Map(
        places=places,
        routes=tuple(_route(one, receiving={place.id for place in receiving}) for one in routes),
        buffers={one.site_id: one.id for one in sorted(receiving, key=lambda one: (one.priority, -one.id))},
    )


def _route(row: models.DataTransferRoute, *, receiving: Collection[int]) -> Route:
    return Route(
        id=row.id,
        type=row.route_type,
        origin_site_id=row.origin_site_id,
        destination_site_id=row.destination_site_id,
        via_site_id=row.via_site_id,
        origin_id=row.origin_id,
        destination_id=row.destination_id,
        leads_to_buffer=row.destination_id is None or row.destination_id in receiving,
        package_bytes=row.package_bytes,
        package_wait=timedelta(seconds=row.package_wait_seconds),
    )
