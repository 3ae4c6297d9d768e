"""Raw packages that are on their way to the archive of another site become transfer packages."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.routing import Hop, NoWay, Route, Straight, Waiting, parcel_name, together, way
from ccat_data_transfer.verbs.planning import announce
from ccat_data_transfer.verbs.ways import Map, is_straight, the_map
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among, once_more
from ccat_ops_db.states import PackageState, PhysicalCopyStatus, Status

_Archiving, _Transfer, _Copy = models.LongTermArchiveTransfer, models.DataTransfer, once_more(models.PhysicalCopy)
_Package: Final = models.RawDataPackage
_OVER: Final = (Status.COMPLETED, Status.CANCELLED)
_NEXT_NUMBER: Final = sa.select(
    sa.func.nextval(sa.func.pg_get_serial_sequence(models.DataTransferPackage.__tablename__, "id"))
)
_AT_ONCE: Final = 20_000
"""Raw packages between two locations that one round looks at."""
_IS_ON_A_TRIP: Final = (
    sa.exists().where(_Transfer.id == _Archiving.data_transfer_id, _Transfer.status.not_in(_OVER)).correlate(_Archiving)
)
_IS_THERE: Final = sa.and_(
    _Copy.raw_data_package_id == _Archiving.raw_data_package_id,
    _Copy.data_location_id == _Archiving.origin_id,
    _Copy.status == PhysicalCopyStatus.PRESENT,
)
_SINCE: Final = sa.func.coalesce(_Copy.verified_at, _Copy.created_at)
_RESTS: Final = sa.func.coalesce(_Archiving.not_before > sa.func.clock_timestamp(), sa.false())
_IS_WAITING: Final = sa.and_(
    _Archiving.status == Status.PENDING, sa.not_(_RESTS), sa.not_(is_straight()), sa.not_(_IS_ON_A_TRIP)
)
_PAIRS: Final = (
    sa.select(_Archiving.origin_id, _Archiving.destination_id, sa.func.min(_SINCE))
    .join(_Copy, _IS_THERE)
    .where(_IS_WAITING)
    .group_by(_Archiving.origin_id, _Archiving.destination_id)
)
_BETWEEN: Final = (
    sa.select(_Archiving.id, _Copy.size_bytes, _SINCE)
    .join(_Copy, _IS_THERE)
    .where(
        _IS_WAITING,
        _Archiving.origin_id == sa.bindparam("origin", type_=sa.BigInteger()),
        _Archiving.destination_id == sa.bindparam("archive", type_=sa.BigInteger()),
    )
    .order_by(_Archiving.id)
    .limit(_AT_ONCE)
    .with_for_update(of=_Archiving, skip_locked=True)
)


def ship(session: Session, *, by: str) -> int:
    """Put what has to go to another site into transfer packages, and return how many these are.

    What cannot get there says why. Raw packages that travel the same way are sent together, once they are as much as
    its route likes or the oldest of them has waited for long.
    """
    now, here, sent = _now(session), the_map(session), 0
    leads = _ways(session, here)
    for stuck, because in leads.stuck:
        _tell(session, stuck, because)
    for trip, pairs in leads.trips.items():
        waiting = [one for pair in pairs for one in _between(session, pair)]
        for parcel in together(waiting, trip.route, now=now):
            _send(session, trip, parcel, sites=here.sites_of(trip.origin_id, trip.destination_id), now=now, by=by)
            sent += 1
    return sent


def next_shipment(session: Session) -> datetime | None:
    """When the next transfer package is sent that holds less than its route likes."""
    trips = _ways(session, the_map(session)).trips
    return min((pair.since + trip.route.package_wait for trip, pairs in trips.items() for pair in pairs), default=None)


@dataclass(frozen=True)
class _Pair:
    """Raw packages on their way from a location to an archive."""

    origin_id: int
    archive_id: int
    since: datetime
    """When the first of them came to where it is."""


@dataclass(frozen=True)
class _Trip:
    origin_id: int
    route: Route
    destination_id: int


@dataclass(frozen=True)
class _Ways:
    trips: dict[_Trip, list[_Pair]] = field(default_factory=dict)
    stuck: list[tuple[_Pair, str]] = field(default_factory=list)
    """With why."""


def _ways(session: Session, here: Map) -> _Ways:
    found = _Ways()
    for pair in (_Pair(*row) for row in session.execute(_PAIRS)):
        origin, archive = here.places[pair.origin_id], here.places[pair.archive_id]
        match way(here.routes, here.buffers, origin=origin, destination=archive):
            case Hop(route, destination):
                found.trips.setdefault(_Trip(pair.origin_id, route, destination), []).append(pair)
            case NoWay(because):
                found.stuck.append((pair, because))
            case Straight():  # since it was asked for
                pass
    return found


def _between(session: Session, pair: _Pair) -> list[Waiting]:
    """What waits between them, locked.

    Another manager may have sent some of it, and committed, since this one began to look: then its transfer package was
    not seen. So it is looked again at what is locked.
    """
    rows = session.execute(_BETWEEN, {"origin": pair.origin_id, "archive": pair.archive_id}).all()
    locked = sa.and_(is_among(_Archiving.id, [one for one, *_ in rows]), _Archiving.origin_id == pair.origin_id)
    still = set(session.scalars(sa.select(_Archiving.id).where(locked, _IS_WAITING)))
    return [Waiting(transfer_id=one, size_bytes=size or 0, since=since) for one, size, since in rows if one in still]


def _tell(session: Session, pair: _Pair, because: str) -> None:
    of_pair = sa.and_(_Archiving.origin_id == pair.origin_id, _Archiving.destination_id == pair.archive_id)
    is_new = sa.and_(of_pair, _Archiving.status == Status.PENDING, _Archiving.failure.is_distinct_from(because))
    session.execute(sa.update(_Archiving).where(is_new).values(failure=because))


def _send(
    session: Session, trip: _Trip, parcel: Sequence[Waiting], *, sites: tuple[str, str], now: datetime, by: str
) -> None:
    transfer = _add_transfer(session, trip, parcel, sites=sites, now=now)
    ids = [one.transfer_id for one in parcel]
    on_it = sa.update(_Archiving).where(is_among(_Archiving.id, ids)).returning(_Archiving.raw_data_package_id)
    packages = session.scalars(on_it.values(data_transfer_id=transfer.id, failure=None)).all()
    is_first = sa.and_(is_among(_Package.id, packages), _Package.data_transfer_package_id.is_(None))
    first = sa.update(_Package).where(is_first)
    session.execute(first.values(data_transfer_package_id=transfer.data_transfer_package_id))
    because = f"on its way to site {sites[1]}"
    advance(session, _Package, packages, to=PackageState.TRANSFERRING, because=because, by=by)
    announce(session, _Transfer, Status.PENDING)


def _add_transfer(
    session: Session, trip: _Trip, parcel: Sequence[Waiting], *, sites: tuple[str, str], now: datetime
) -> models.DataTransfer:
    number = session.scalars(_NEXT_NUMBER).one()
    name = parcel_name(*sites, now=now, number=number)
    session.add(models.DataTransferPackage(id=number, name=name, size_bytes=sum(one.size_bytes for one in parcel)))
    session.flush()
    transfer = _Transfer(
        data_transfer_package_id=number,
        data_transfer_route_id=trip.route.id,
        origin_id=trip.origin_id,
        destination_id=trip.destination_id,
        status=Status.PENDING,
    )
    session.add(transfer)
    session.flush()
    return transfer


def _now(session: Session) -> datetime:
    now: datetime = session.scalars(sa.select(sa.func.clock_timestamp())).one()
    return now
