"""Packages whose archive, or the buffer that they are to be packed in, is out of use by now get another one.

So do those on their way to a buffer, or along a route, that is out of use, once nothing more gets there.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.addressing import Addresses
from ccat_data_transfer.verbs.parcels import has_arrived, turn_back
from ccat_data_transfer.verbs.planning import announce
from ccat_data_transfer.verbs.scheduling import source_id
from ccat_data_transfer.verbs.ways import is_packed
from ccat_ops_db import models
from ccat_ops_db.models.transfers import LIVE
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PackageState, Status

_Archiving, _Trip, _Package = models.LongTermArchiveTransfer, models.DataTransfer, models.RawDataPackage
_Route: Final = models.DataTransferRoute
_Location = table_of(models.DataLocation)
_AT_ONCE: Final = 1000
"""Packages that one round is about."""
_UNUSED: Final = sa.select(_Location.c.id).where(sa.not_(_Location.c.active))
_UNUSED_ROUTES: Final = sa.select(_Route.id).where(sa.not_(_Route.active))
_ANY_UNUSED: Final = sa.select(sa.or_(_UNUSED.exists(), _UNUSED_ROUTES.exists()))
_TRAVELS: Final = sa.exists().where(
    _Trip.id == _Archiving.data_transfer_id,
    _Trip.status.in_(LIVE_TRANSFER_STATUSES),
    _Trip.destination_id.not_in(_UNUSED),
)
"""On its way to a location that is in use: it is looked at again once it is there."""
_GOES_ASTRAY: Final = sa.or_(
    _Archiving.destination_id.in_(_UNUSED), sa.and_(_Archiving.origin_id.in_(_UNUSED), sa.not_(is_packed()))
)
_ORIGIN: Final = sa.case((is_packed(), None), else_=source_id())
"""Where it is to be packed from; NULL: it is packed."""
_IS_ASTRAY: Final = sa.and_(
    sa.text(f"long_term_archive_transfer.{LIVE}"),
    _Archiving.status == Status.PENDING,
    _Package.state.in_([PackageState.WAITING, PackageState.TRANSFERRING]),
    _GOES_ASTRAY,
    sa.not_(_TRAVELS),
)
_PLACES: Final = (_Archiving.origin_id, _Archiving.destination_id, _ORIGIN, _Archiving.destination_id.in_(_UNUSED))
_ASTRAY: Final = (
    sa.select(_Archiving.id, _Archiving.raw_data_package_id, *_PLACES)
    .join(_Package, _Package.id == _Archiving.raw_data_package_id)
    .where(_IS_ASTRAY)
    .order_by(_Archiving.id)
    .limit(_AT_ONCE)
    .with_for_update(of=_Archiving, skip_locked=True)
)
_GROUPS: Final = (
    sa.select(*_PLACES).join(_Package, _Package.id == _Archiving.raw_data_package_id).where(_IS_ASTRAY).distinct()
)
_CARRIES: Final = sa.exists().where(
    _Archiving.data_transfer_id == _Trip.id, _Archiving.status.in_(LIVE_TRANSFER_STATUSES)
)
_TURNS_BACK: Final = {
    "where it was to arrive is out of use": _Trip.destination_id.in_(_UNUSED),
    "the route that it was to take is out of use": _Trip.data_transfer_route_id.in_(_UNUSED_ROUTES),
}
_GETS_NOWHERE: Final = sa.and_(
    _Trip.status == Status.PENDING,
    sa.not_(has_arrived()),
    # what is only to be emptied takes what is on its way; what is dead does not
    sa.or_(_Trip.trouble_count > 0, _Trip.unserved_since.is_not(None), sa.not_(_CARRIES)),
)


@dataclass(frozen=True)
class _Places:
    """Where packages come from and go to."""

    origin_id: int
    archive_id: int
    source_id: int | None
    """Where they are to be packed from; None: they are packed."""
    archive_is_unused: bool


def readdress(session: Session, *, by: str) -> int:
    """Cancel archive transfers of packages that are in no archive yet, and cannot get there, for others that can.

    Those to an archive that is inactive, and those that are to be packed into a buffer that is; how many these were.
    Where nothing leads to another one they stay as they are, and wait.
    """
    if not session.scalar(_ANY_UNUSED):
        return 0
    _turn_back(session, by=by)
    groups = [_Places(*row) for row in session.execute(_GROUPS)]
    if not groups:
        return 0
    addresses = Addresses(session)
    astray = _astray(session, [one for one in groups if _has_way(addresses, one)])
    found = {one: way for one, places in astray.items() if (way := _way(addresses, places)) is not None}
    because = "where it was to go is out of use, and it goes elsewhere"
    moved = set(advance(session, _Archiving, [one for one, _ in found], to=Status.CANCELLED, because=because, by=by))
    _ask(session, [(package_id, *way) for (transfer_id, package_id), way in found.items() if transfer_id in moved])
    return len(moved)


def _turn_back(session: Session, *, by: str) -> None:
    """Cancel transfers to or along what is out of use, and in trouble; what they carry is sent another way."""
    for because, is_unused in _TURNS_BACK.items():
        chosen = sa.select(_Trip).where(_GETS_NOWHERE, is_unused).with_for_update(skip_locked=True)
        nowhere = session.scalars(chosen).all()
        ids = [one.id for one in nowhere]
        turned = set(advance(session, _Trip, ids, to=Status.CANCELLED, because=because, by=by))
        for one in nowhere:
            if one.id in turned:
                turn_back(session, one)


def _astray(session: Session, places: Collection[_Places]) -> dict[tuple[int, int], _Places]:
    """Some of the transfers between such places that none works on, with their packages."""
    pairs = sorted({(one.origin_id, one.archive_id) for one in places})
    between = sa.tuple_(_Archiving.origin_id, _Archiving.destination_id).in_(pairs)
    rows = session.execute(_ASTRAY.where(between)).all()
    return {(transfer_id, package_id): _Places(*found) for transfer_id, package_id, *found in rows}


def _has_way(addresses: Addresses, one: _Places) -> bool:
    start = _start(addresses, one)
    return start is not None and (addresses.reaches(start) if one.archive_is_unused else start != one.origin_id)


def _start(addresses: Addresses, one: _Places) -> int | None:
    """The buffer that it starts from now."""
    return one.origin_id if one.source_id is None else addresses.buffer_of(one.source_id)


def _way(addresses: Addresses, one: _Places) -> tuple[int, int] | None:
    """The buffer that it starts from now, and the archive; None where there is no better than what it has."""
    start = _start(addresses, one)
    if start is None:
        return None
    archive = addresses.archive_from(start) if one.archive_is_unused else one.archive_id
    return None if archive is None or (start, archive) == (one.origin_id, one.archive_id) else (start, archive)


def _ask(session: Session, asked: Sequence[tuple[int, int, int]]) -> None:
    rows = [
        {"raw_data_package_id": package, "origin_id": origin, "destination_id": archive}
        for package, origin, archive in asked
    ]
    if rows:
        new = insert(_Archiving).on_conflict_do_nothing(
            index_elements=["raw_data_package_id", "destination_id"], index_where=sa.text(LIVE)
        )
        session.execute(new, rows)
        announce(session, _Archiving, Status.PENDING)
