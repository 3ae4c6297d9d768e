"""What a staging that is over left unfinished is removed, and then its row is closed.

A copy that is WRITING where no staging job is to finish it any more was given up: the job failed for good, or was
cancelled. So was that of a product in a buffer whose run is not archived any more, or by another way. The files go
before the row is DELETED, so that a worker that dies in between is followed by another; and while one has the lease of
the row, nobody begins to write there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.verbs.attempts import LeaseLost, Worker, disk_of
from ccat_data_transfer.verbs.leases import CopyLease
from ccat_data_transfer.verbs.products import plan as products
from ccat_data_transfer.verbs.reaching import inbox_of
from ccat_ops_db import claims, models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.models.data import UNFINISHED
from ccat_ops_db.moves import advance
from ccat_ops_db.session import in_transaction
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, LocationType, PhysicalCopyStatus, Status
from ccat_service.logging import StructuredLogger

_Copy, _Job, _Location, _Product = models.PhysicalCopy, models.StagingJob, models.DataLocation, models.DataProduct
_Transfer = models.ProductArchiveTransfer
_AT_ONCE: Final = 100
_IDLE: Final = {"claimed_by": None, "lease_until": None}
_IS_UNFINISHED: Final = sa.text(f"physical_copy.{UNFINISHED}")
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


_IS_ARCHIVED: Final = sa.exists().where(
    _Product.id == _Copy.data_product_id,
    _Transfer.run_id == _Product.run_id,
    # one that failed is taken up again, and goes on with what is there
    sa.or_(_Transfer.status.in_([*LIVE_TRANSFER_STATUSES, Status.FAILED]), _Transfer.lease_until >= _NOW),
)
_IS_GIVEN_UP: Final = sa.and_(
    _IS_UNFINISHED,
    sa.or_(
        _is_staged_by_nobody("raw_data_package_id"),
        _is_staged_by_nobody("data_product_id"),
        sa.and_(_Copy.data_product_id.is_not(None), _is_at(LocationType.BUFFER), sa.not_(_IS_ARCHIVED)),
    ),
)

_log = StructuredLogger(__name__)


@dataclass(frozen=True)
class _Order:
    copy_id: int
    disk: Disk
    path: str
    inbox: str
    """Where what it was to be made of arrived."""


def with_given_up(session: Session) -> Sequence[int]:
    """Locations where somebody is to be told to remove what was given up."""
    found = sa.select(_Copy.data_location_id).where(_IS_GIVEN_UP, claims.is_free(_Copy))
    return session.scalars(found.distinct().order_by(_Copy.data_location_id)).all()


def choose_given_up(session: Session, location_id: int, *, by: str, lease: timedelta) -> list[int]:
    """Some of what was given up at a location; what no worker removed until the lease is over is chosen again."""
    here = sa.and_(_Copy.data_location_id == location_id, _IS_GIVEN_UP)
    return claims.claim(session, _Copy, where=here, by=by, lease=lease, limit=_AT_ONCE)


def discard(worker: Worker, copy_ids: Sequence[int]) -> None:
    """Remove what is unfinished of copies that were given up, and call them DELETED; what is wanted again stays.

    What cannot be removed is tried again once the lease on it is over.
    """
    one = CopyLease(worker, copy_ids)
    orders = in_transaction(worker.engine, partial(_take, one=one))
    try:
        gone = [order.copy_id for order in orders if _remove(order, one)]
        if gone:
            in_transaction(worker.engine, partial(_record, one=one, gone=gone))
    except LeaseLost:
        _log.warning("the lease is lost, somebody else goes on", copies=len(orders))


def _take(session: Session, *, one: CopyLease) -> list[_Order]:
    """What to remove, as seen by who holds the rows: whoever is to write there has a job by then, or waits."""
    unfinished = sa.select(_Copy.id).where(is_among(_Copy.id, one.copy_ids), _IS_UNFINISHED)
    held = session.scalars(unfinished.order_by(_Copy.id).with_for_update()).all()
    copies = session.scalars(sa.select(_Copy).where(is_among(_Copy.id, held), _IS_GIVEN_UP)).all()
    given_up = [copy.id for copy in copies]
    claims.release(session, _Copy, given_up)
    one.claim(session, given_up)
    return [
        _Order(
            copy.id,
            disk_of(copy.location, token=one.token, progress=one.keep_lease),
            path=copy.path,
            inbox=_inbox(session, copy),
        )
        for copy in copies
    ]


def _inbox(session: Session, copy: models.PhysicalCopy) -> str:
    if copy.data_product_id is None:
        return inbox_of(copy.id)
    if copy.location.location_type is LocationType.PROCESSING:
        return products.inbox_of(copy.id)
    return products.inbox_of_run(session.get_one(_Product, copy.data_product_id).run_id)


def _remove(order: _Order, one: CopyLease) -> bool:
    """Remove what is left of a copy; whether that could be done. Raises LeaseLost."""
    one.keep_lease()
    try:
        order.disk.discard(order.path)
        order.disk.remove(order.inbox)
    except CcatError as trouble:
        _log.warning("cannot remove what is unfinished, it is tried again", copy=order.copy_id, error=str(trouble))
        return False
    return True


def _record(session: Session, *, one: CopyLease, gone: Sequence[int]) -> None:
    mine = set(one.held(session)).intersection(gone)
    because, by, to = "given up unfinished, and removed", one.worker.name, PhysicalCopyStatus.DELETED
    advance(session, _Copy, mine, to=to, expected=[PhysicalCopyStatus.WRITING], because=because, by=by, values=_IDLE)
