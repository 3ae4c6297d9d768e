"""What a transfer that is over left unfinished is removed, and then its row is closed.

A copy that is WRITING where nobody is to finish it any more was given up: the staging job failed for good, or was
cancelled; what was to be archived goes another way, or not at all. The files go before the row is DELETED, so that a
worker that dies in between is followed by another; and while one has the lease of the row, nobody begins to write.
In an archive only what is unfinished goes: what has the name may be whole, or something else.

So do copies outside of archives that were found damaged or gone, once retention would let go sound ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Store
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.verbs.attempts import LeaseLost, Worker, store_of
from ccat_data_transfer.verbs.leases import CopyLease
from ccat_data_transfer.verbs.products import plan as products
from ccat_data_transfer.verbs.products.trees import look_before
from ccat_data_transfer.verbs.reaching import inbox_of
from ccat_ops_db import claims, models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.models.data import LOST, UNFINISHED
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.retention import damaged_and_free, damaged_over, places
from ccat_ops_db.session import in_transaction
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, SOUND_COPY_STATUSES, LocationType, PhysicalCopyStatus, Status
from ccat_service.logging import StructuredLogger

_Copy, _Job, _Location, _Product = models.PhysicalCopy, models.StagingJob, models.DataLocation, models.DataProduct
_Transfer, _Way, _Trip = models.ProductArchiveTransfer, models.LongTermArchiveTransfer, models.DataTransfer
_AT_ONCE: Final = 100
_IDLE: Final = {"claimed_by": None, "lease_until": None}
_IS_UNFINISHED: Final = sa.text(f"physical_copy.{UNFINISHED}")
_IS_LOST: Final = sa.text(f"physical_copy.{LOST}")
_WHY: Final = {
    PhysicalCopyStatus.WRITING: "given up unfinished, and removed",
    PhysicalCopyStatus.CORRUPT: "damaged and not needed any more, and removed",
    PhysicalCopyStatus.MISSING: "gone and not needed any more",
}
"""What is said of copies that go, by what they were."""
_NOW: Final = sa.func.clock_timestamp()


def _is_staged_by_nobody(column: str) -> sa.ColumnElement[bool]:
    """Condition on a copy of one kind at a processing location."""
    of_copy = getattr(_Copy, column)
    job = sa.exists().where(
        getattr(_Job, column) == of_copy,
        _Job.data_location_id == _Copy.data_location_id,
        # of one that was cancelled, who works on it may not have noticed yet
        sa.or_(_Job.status.in_(LIVE_TRANSFER_STATUSES), _Job.lease_until >= _NOW),
    )
    return sa.and_(of_copy.is_not(None), _is_at(LocationType.PROCESSING), sa.not_(job))


def _is_at(kind: LocationType) -> sa.ColumnElement[bool]:
    return _Copy.data_location_id.in_(sa.select(_Location.id).where(_Location.location_type == kind))


def _may_go_on(noun: Any) -> sa.ColumnElement[bool]:
    """Condition on a transfer: one that failed is taken up again, and goes on with what is there."""
    return sa.or_(noun.status.in_([*LIVE_TRANSFER_STATUSES, Status.FAILED]), noun.lease_until >= _NOW)


_IS_ARCHIVED: Final = sa.exists().where(
    _Product.id == _Copy.data_product_id, _Transfer.run_id == _Product.run_id, _may_go_on(_Transfer)
)
_IS_PUT_THERE: Final = sa.exists().where(
    _Product.id == _Copy.data_product_id,
    _Transfer.run_id == _Product.run_id,
    _Transfer.destination_id == _Copy.data_location_id,
    _may_go_on(_Transfer),
)
_ARRIVES: Final = sa.exists().where(_Trip.id == _Way.data_transfer_id, _Trip.destination_id == _Copy.data_location_id)
_IS_UNPACKED_NOW: Final = sa.exists().where(
    _Trip.id == _Way.data_transfer_id, _Trip.destination_id == _Copy.data_location_id, _Trip.lease_until >= _NOW
)
_IS_ON_ITS_WAY: Final = sa.exists().where(
    _Way.raw_data_package_id == _Copy.raw_data_package_id,
    sa.or_(
        sa.and_(sa.or_(_Copy.data_location_id.in_([_Way.origin_id, _Way.destination_id]), _ARRIVES), _may_go_on(_Way)),
        _IS_UNPACKED_NOW,
    ),
)
_IS_CARRIED: Final = sa.exists().where(
    _Trip.data_transfer_package_id == _Copy.data_transfer_package_id,
    _Trip.destination_id == _Copy.data_location_id,
    _may_go_on(_Trip),
)
_IS_PASSED_ON: Final = sa.or_(_is_at(LocationType.BUFFER), _is_at(LocationType.LONG_TERM_ARCHIVE))
_IS_CARRIED_NO_MORE: Final = sa.and_(_Copy.data_transfer_package_id.is_not(None), sa.not_(_IS_CARRIED))
_IS_UNWANTED: Final = sa.or_(
    _is_staged_by_nobody("raw_data_package_id"),
    _is_staged_by_nobody("data_product_id"),
    sa.and_(_Copy.data_product_id.is_not(None), _is_at(LocationType.BUFFER), sa.not_(_IS_ARCHIVED)),
    sa.and_(_Copy.data_product_id.is_not(None), _is_at(LocationType.LONG_TERM_ARCHIVE), sa.not_(_IS_PUT_THERE)),
    sa.and_(_Copy.raw_data_package_id.is_not(None), _IS_PASSED_ON, sa.not_(_IS_ON_ITS_WAY)),
    _IS_CARRIED_NO_MORE,
)
_IS_GIVEN_UP: Final = sa.or_(
    sa.and_(_IS_UNFINISHED, _IS_UNWANTED),
    # of what arrived damaged the rest was to be sent again
    sa.and_(_IS_LOST, _IS_CARRIED_NO_MORE),
)

_log = StructuredLogger(__name__)


@dataclass(frozen=True)
class _Order:
    copy_id: int
    store: Store
    path: str
    inbox: str | None
    """Where what it was to be made of arrived."""
    is_archived: bool
    """Whether it is in an archive."""
    listing: str | None
    """What is there once all of it is, of a directory in an archive."""
    product: models.DataProduct | None
    """What it is of, where no other copy of that was found right: then whatever is left of it is kept."""


def with_given_up(session: Session) -> Sequence[int]:
    """Locations where somebody is to be told to remove what was given up."""
    found = sa.select(_Copy.data_location_id).where(_IS_GIVEN_UP, claims.is_free(_Copy))
    return session.scalars(found.distinct().order_by(_Copy.data_location_id)).all()


def choose_given_up(session: Session, location_id: int, *, by: str, lease: timedelta) -> list[int]:
    """Some of what was given up at a location; what no worker removed until the lease is over is chosen again."""
    here = sa.and_(_Copy.data_location_id == location_id, _IS_GIVEN_UP)
    return claims.claim(session, _Copy, where=here, by=by, lease=lease, limit=_AT_ONCE)


def choose_damaged(session: Session, location_id: int, *, by: str, lease: timedelta) -> list[int]:
    """Some of what was found damaged or gone at a location, outside of archives, and is not needed there any more."""
    [place], now = places(session, [location_id]), session.scalars(sa.select(_NOW)).one()
    over = is_among(_Copy.id, damaged_over(session, place, now=now, most=_AT_ONCE))
    return claims.claim(session, _Copy, where=over, by=by, lease=lease, limit=_AT_ONCE)


def discard(worker: Worker, copy_ids: Sequence[int]) -> None:
    """Remove what is unfinished of copies that were given up, and call them DELETED; what is wanted again stays.

    What cannot be removed is tried again once the lease on it is over.
    """
    one = CopyLease(worker, copy_ids)
    orders = in_transaction(worker.engine, partial(_take, one=one))
    try:
        left = {order.copy_id: found for order in orders if (found := _remove(order, one)) is not None}
        if left:
            in_transaction(worker.engine, partial(_record, one=one, left=left))
    except LeaseLost:
        _log.warning("the lease is lost, somebody else goes on", copies=len(orders))


def _take(session: Session, *, one: CopyLease) -> list[_Order]:
    """What to remove, as seen by who holds the rows: whoever is to write there has a job by then, or waits."""
    unfinished = sa.select(_Copy.id).where(is_among(_Copy.id, one.copy_ids), _Copy.status.in_(list(_WHY)))
    held = session.scalars(unfinished.order_by(_Copy.id).with_for_update()).all()
    goes = sa.or_(_IS_GIVEN_UP, is_among(_Copy.id, damaged_and_free(session, held)))
    copies = session.scalars(sa.select(_Copy).where(is_among(_Copy.id, held), goes)).all()
    given_up = [copy.id for copy in copies]
    claims.release(session, _Copy, given_up)
    one.claim(session, given_up)
    return [
        _Order(
            copy.id,
            _store(copy, one),
            path=copy.path,
            inbox=_inbox(session, copy),
            is_archived=copy.location.location_type is LocationType.LONG_TERM_ARCHIVE,
            listing=_listing(session, copy),
            product=_product_to_keep(session, copy),
        )
        for copy in copies
    ]


def _store(copy: models.PhysicalCopy, one: CopyLease) -> Store:
    keep, parts = partial(one.keep_lease, copy.id), one.worker.part_bytes
    return store_of(copy.location, token=f"{copy.id}-{one.token}", progress=keep, part_bytes=parts)


def _inbox(session: Session, copy: models.PhysicalCopy) -> str | None:
    kind = copy.location.location_type
    if copy.data_product_id is None:
        is_restored = copy.raw_data_package_id is not None and kind is LocationType.BUFFER
        return inbox_of(copy.id) if kind is LocationType.PROCESSING or is_restored else None
    if kind is LocationType.PROCESSING:
        return products.inbox_of(copy.id)
    is_on_its_way = kind is LocationType.BUFFER
    return products.inbox_of_run(session.get_one(_Product, copy.data_product_id).run_id) if is_on_its_way else None


def _listing(session: Session, copy: models.PhysicalCopy) -> str | None:
    is_tree = copy.data_product_id is not None and PurePosixPath(copy.path).suffix == ".zarr"
    if not is_tree or copy.location.location_type is not LocationType.LONG_TERM_ARCHIVE:
        return None
    return products.listing_beside(copy.path, session.get_one(_Product, copy.data_product_id).relative_path)


def _product_to_keep(session: Session, copy: models.PhysicalCopy) -> models.DataProduct | None:
    """Product that an unfinished copy at a processing location is of, of which no other copy was found right."""
    if copy.status is not PhysicalCopyStatus.WRITING or copy.data_product_id is None:
        return None
    if copy.location.location_type is not LocationType.PROCESSING:
        return None
    is_right = sa.and_(_Copy.status.in_(SOUND_COPY_STATUSES), _Copy.verified_at.is_not(None))
    others = sa.exists().where(_Copy.data_product_id == copy.data_product_id, _Copy.id != copy.id, is_right)
    return None if session.scalar(sa.select(others)) else session.get_one(_Product, copy.data_product_id)


def _remove(order: _Order, one: CopyLease) -> PhysicalCopyStatus | None:
    """Remove what is left of a copy; what it is then. None where that could not be done, or is not to be any more."""
    try:
        one.keep_lease(order.copy_id)
        order.store.remove_unfinished(order.path)
        found = order.store.seal(order.path)
        left = _kept(order)
        is_to_go = left is PhysicalCopyStatus.DELETED and (not order.is_archived or _is_half_there(order))
        if is_to_go and (found is not None or not isinstance(order.store, Disk)):  # a tree in a store has no seal
            one.renew(order.copy_id)  # so it was not made anew before its seal was seen
            order.store.remove(order.path, sealed=found)
        if order.inbox is not None:
            order.store.remove(order.inbox)
    except CcatError as trouble:
        _log.warning("cannot remove what is unfinished, it is tried again", copy=order.copy_id, error=str(trouble))
        return None
    except LeaseLost:
        _log.warning("the lease on a copy is lost, somebody else goes on", copy=order.copy_id)
        return None
    return left


def _kept(order: _Order) -> PhysicalCopyStatus:
    """What a copy is that is kept; DELETED for one that is not, or is not there."""
    if order.product is None or not isinstance(order.store, Disk):
        return PhysicalCopyStatus.DELETED
    before = look_before(order.store, order.path, order.product)
    if before.seal is None:
        return PhysicalCopyStatus.DELETED
    return PhysicalCopyStatus.PRESENT if before.is_whole else PhysicalCopyStatus.CORRUPT


def _is_half_there(order: _Order) -> bool:
    """Whether a directory in an archive is unfinished as a whole."""
    if order.listing is None:
        return False
    order.store.remove_unfinished(order.listing)
    return order.store.size(order.listing) is None


def _record(session: Session, *, one: CopyLease, left: Mapping[int, PhysicalCopyStatus]) -> None:
    mine, by = set(one.held(session)).intersection(left), one.worker.name
    gone, there = PhysicalCopyStatus.DELETED, PhysicalCopyStatus.PRESENT
    removed = [copy_id for copy_id in mine if left[copy_id] is gone]
    for was, because in _WHY.items():
        advance(session, _Copy, removed, to=gone, expected=[was], because=because, by=by, values=_IDLE)
    kept, bad = mine.difference(removed), [one for one in mine if left[one] is PhysicalCopyStatus.CORRUPT]
    because = "no other copy was found right, so what was there before is kept"
    advance(session, _Copy, kept, to=there, expected=[PhysicalCopyStatus.WRITING], because=because, by=by, values=_IDLE)
    because = "it is not what was registered, and could not be made anew"
    advance(session, _Copy, bad, to=PhysicalCopyStatus.CORRUPT, expected=[there], because=because, by=by)
