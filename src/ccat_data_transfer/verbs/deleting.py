"""Copies are removed by a worker that reaches them: let go in one transaction, removed, and recorded in another.

What is let go is nobody's any more, whatever becomes of the worker: to remove it again does no harm, and whoever goes
on with it finds it whole or gone, as it loses its name at once. What has to stay after all is a copy
again, if it is there.
"""

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, joinedload

from ccat_data_transfer.backends.base import Seal, Store
from ccat_data_transfer.backends.errors import BadFile, FileDiffers, LocationTrouble, NotTheCopy, NotTheOriginal
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.verbs.archived import Archived, archived, beside, compare, loose_product
from ccat_data_transfer.verbs.attempts import LeaseLost, Worker, store_of
from ccat_data_transfer.verbs.leases import CopyLease
from ccat_data_transfer.verbs.reclaiming import Kept, look_for, reclaim
from ccat_ops_db import claims, models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.retention import OF_SAFETY, Obstacle, hindered
from ccat_ops_db.queries.retention import is_paused, obstacles
from ccat_ops_db.session import in_transaction, is_refused
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LocationType, PhysicalCopyStatus
from ccat_ops_db.verbs.copies import take_back
from ccat_service.logging import StructuredLogger

_Copy, _Status = models.PhysicalCopy, PhysicalCopyStatus
_LET_GO: Final = "nothing hinders it"
_NOW: Final = sa.func.clock_timestamp()
_COUNTED: Final = _Copy.trouble_count + 1
_IDLE: Final = {"claimed_by": None, "lease_until": None}
_UNTIL_ASKED: Final = timedelta(days=1)
"""Until what a person has to mend is tried again, unless `ccat retention retry` says that it is mended."""

_log = StructuredLogger(__name__)


@dataclass(frozen=True)
class _Order:
    copy_id: int
    store: Store
    path: str
    seal: Seal | None
    beside: Sequence[str]
    """What describes it, which goes after it."""
    original: models.RawDataFile | None
    """What its instrument registered, of a raw file where it was written."""


def delete_copies(worker: Worker, copy_ids: Sequence[int]) -> None:
    """Remove copies that are scheduled for it, or could not be removed before, and that nothing hinders.

    What somebody needs by now stays, and what is where deleting is paused is left as it is. What cannot be removed is
    tried again after a while. What describes archived data goes with them.
    """
    one = CopyLease(worker, copy_ids)
    orders, kept = in_transaction(worker.engine, partial(_let_go, one=one))
    try:
        if kept:
            in_transaction(worker.engine, partial(reclaim, kept=kept, seen=look_for(kept, one), one=one))
        if orders:
            outcome = _remove_each(orders, one)
            in_transaction(worker.engine, partial(_record, one=one, outcome=outcome))
    except LeaseLost:
        _log.warning("the lease is lost, somebody else goes on", copies=len(orders) + len(kept))


def _let_go(session: Session, *, one: CopyLease) -> tuple[list[_Order], list[Kept]]:
    """Begin the removal of what may go; from now on nobody uses it. And what was let go before, and has to stay."""
    waiting = sa.select(_Copy.id, _Copy.status).where(
        is_among(_Copy.id, one.copy_ids), _Copy.status.in_([_Status.DELETION_SCHEDULED, _Status.DELETION_FAILED])
    )
    found = dict(session.execute(waiting.order_by(_Copy.id).with_for_update()).all())
    _hold_data(session, found)
    found = {copy_id: found[copy_id] for copy_id in _where_copies_go(session, found)}
    found_obstacles = obstacles(session, found)
    kept = _keep(session, found_obstacles, found, one=one)
    go = [copy_id for copy_id in found if not _stays(found[copy_id], found_obstacles.get(copy_id))]
    going = _begin(session, go, one)
    one.claim(session, going)
    return _orders(session, going, one), _kept(session, kept, one)


def _where_copies_go(session: Session, copy_ids: Collection[int]) -> Sequence[int]:
    """Those of copies that are where nobody has paused that: the message about them may be older than the pause."""
    here = sa.select(_Copy.id).join(_Copy.location).where(is_among(_Copy.id, copy_ids), sa.not_(is_paused()))
    return session.scalars(here.order_by(_Copy.id)).all()


def _stays(status: PhysicalCopyStatus, obstacle: Obstacle | None) -> bool:
    """Of what was let go before, only safety counts: who needs it waits for the end of it."""
    return obstacle is not None and (status is _Status.DELETION_SCHEDULED or obstacle in OF_SAFETY)


def _hold_data(session: Session, copy_ids: Collection[int]) -> None:
    """Hold the raw packages and products of copies, in one order for all who do; the database would in any."""
    package, product, file = models.RawDataPackage, models.DataProduct, models.RawDataFile
    packages = sa.select(sa.func.coalesce(_Copy.raw_data_package_id, file.raw_data_package_id))
    packages = packages.outerjoin(file, file.id == _Copy.raw_data_file_id).where(is_among(_Copy.id, copy_ids))
    products = sa.select(_Copy.data_product_id).where(is_among(_Copy.id, copy_ids))
    for key, ids in ((package.id, packages), (product.id, products)):
        session.execute(sa.select(key).where(key.in_(ids)).order_by(key).with_for_update(key_share=True))


def _begin(session: Session, copy_ids: Sequence[int], one: CopyLease) -> list[int]:
    """Begin the removal of copies, each on its own if the database keeps any of them; those that it lets go."""
    try:
        with session.begin_nested():
            return _advance(session, copy_ids, by=one.worker.name)
    except IntegrityError as refusal:
        if not is_refused(refusal):
            raise
        if len(copy_ids) > 1:
            return [going for copy_id in copy_ids for going in _begin(session, [copy_id], one)]
        _note_refusal(session, copy_ids, str(refusal.orig).partition("\n")[0], one=one)
        return []


def _advance(session: Session, copy_ids: Sequence[int], *, by: str) -> list[int]:
    again, because = [_Status.DELETION_FAILED], "it is tried again"
    advance(session, _Copy, copy_ids, to=_Status.DELETION_SCHEDULED, expected=again, because=because, by=by)
    return advance(session, _Copy, copy_ids, to=_Status.DELETION_IN_PROGRESS, because=_LET_GO, by=by, values=_IDLE)


def _note_refusal(session: Session, copy_ids: Sequence[int], because: str, *, one: CopyLease) -> None:
    """Have copies that the database keeps looked at again after a pause; nothing of them was touched."""
    _log.warning("the database keeps copies that nothing hinders", copies=copy_ids, error=because)
    later = _later(because, _pause(session, copy_ids, one.worker))
    session.execute(sa.update(_Copy).where(is_among(_Copy.id, copy_ids)).values(later))


def _keep(
    session: Session, found: Mapping[int, Obstacle], was: Mapping[int, PhysicalCopyStatus], *, one: CopyLease
) -> dict[int, str]:
    """Take back what has to stay; of what was let go before why it has to, with the lease on it."""
    by_obstacle: defaultdict[Obstacle, list[int]] = defaultdict(list)
    for copy_id, obstacle in found.items():
        if _stays(was[copy_id], obstacle):
            by_obstacle[obstacle].append(copy_id)
    let_go: dict[int, str] = {}
    for obstacle, copy_ids in by_obstacle.items():
        because = hindered(obstacle)
        take_back(session, copy_ids, because=because, by=one.worker.name)
        let_go |= {copy_id: because for copy_id in copy_ids if was[copy_id] is _Status.DELETION_FAILED}
    claims.release(session, _Copy, let_go)  # of the manager that told of them
    one.claim(session, list(let_go))
    return let_go


def _kept(session: Session, because: Mapping[int, str], one: CopyLease) -> list[Kept]:
    copies = session.scalars(sa.select(_Copy).where(is_among(_Copy.id, because)).order_by(_Copy.id))
    return [
        Kept(
            copy_id=copy.id,
            store=_store(copy, one),
            path=copy.path,
            listing=archived(session, copy).listing if _is_archived(copy) else None,
            size_bytes=_size(session, copy),
            because=because[copy.id],
        )
        for copy in copies
    ]


def _size(session: Session, copy: models.PhysicalCopy) -> int | None:
    """Size of a copy; that of its product, where a run made it and nobody measured it."""
    if copy.size_bytes is None and copy.data_product_id is not None:
        return session.get_one(models.DataProduct, copy.data_product_id).size_bytes
    return copy.size_bytes


def _orders(session: Session, copy_ids: Iterable[int], one: CopyLease) -> list[_Order]:
    file = models.RawDataFile
    copies = sa.select(_Copy, file).outerjoin(file, file.id == _Copy.raw_data_file_id)
    copies = copies.options(joinedload(_Copy.location).joinedload(models.DataLocation.site))
    found = session.execute(copies.where(is_among(_Copy.id, copy_ids)).order_by(_Copy.path)).all()
    return [_order(session, copy, one, original=original) for copy, original in found]


def _order(
    session: Session, copy: models.PhysicalCopy, one: CopyLease, *, original: models.RawDataFile | None
) -> _Order:
    return _Order(
        copy.id,
        store=_store(copy, one),
        path=copy.path,
        seal=Seal(copy.mtime_ns, copy.inode) if copy.mtime_ns is not None else None,
        beside=beside(session, copy) if _is_archived(copy) else (),
        original=original,
    )


def _store(copy: models.PhysicalCopy, one: CopyLease) -> Store:
    token, parts = f"{copy.id}-{one.token}", one.worker.part_bytes
    return store_of(copy.location, token=token, progress=partial(one.keep_lease, copy.id), part_bytes=parts)


def _is_archived(copy: models.PhysicalCopy) -> bool:
    return copy.location.location_type is LocationType.LONG_TERM_ARCHIVE


def _remove_each(orders: Sequence[_Order], one: CopyLease) -> dict[int, CcatError | None]:
    """Remove copies; what kept each of them from that. Whose lease is lost meanwhile is left to whoever has it now."""
    outcome: dict[int, CcatError | None] = {}
    for order in orders:
        try:
            outcome[order.copy_id] = _remove(order, one)
        except LeaseLost:
            _log.warning("the lease on a copy is lost, somebody else goes on", copy=order.copy_id)
    return outcome


def _remove(order: _Order, one: CopyLease) -> CcatError | None:
    """Remove a copy; what kept it from that. Raises LeaseLost, and then nothing more of it may be removed."""
    one.keep_lease(order.copy_id)
    try:
        if order.original is not None:
            order.store.remove(order.path, sealed=_seal_of_original(order, order.original))
            return None
        try:
            order.store.remove(order.path, sealed=order.seal)
        except FileDiffers:
            order.store.remove(order.path, sealed=_seal_of_exchanged(order, one))
        for path in order.beside:
            order.store.remove(path)
    except CcatError as error:
        return error
    return None


def _seal_of_exchanged(order: _Order, one: CopyLease) -> Seal | None:
    """Seal of what has the name of a copy by now, where that is what was registered. Raises NotTheCopy and LeaseLost.

    It is looked at before the lease is, so it was not made anew after somebody else removed the copy.
    """
    found = order.store.seal(order.path)
    known = in_transaction(one.worker.engine, partial(_registered, copy_id=order.copy_id))
    if found is not None and known is not None:
        try:
            compare(order.store, *known)
        except BadFile as problem:
            raise NotTheCopy(order.store.name, order.store.where(order.path)) from problem
    one.renew(order.copy_id)
    return found or order.seal


def _registered(session: Session, *, copy_id: int) -> tuple[Archived, models.DataProduct | None] | None:
    """What a copy should be; None for a directory of raw files, of which the database has no digest."""
    copy = session.get_one(_Copy, copy_id)
    known = archived(session, copy)
    return (known, loose_product(session, copy)) if known.checksum else None


def _seal_of_original(order: _Order, original: models.RawDataFile) -> Seal | None:
    """Seal of a raw file that is what was registered, and so archived. Raises NotTheOriginal.

    It is read unless it is as it was when it was packed, and nothing was done to it since it was registered: its
    instrument may have written it anew. Both are looked at, as times can be set, and clocks go wrong.
    """
    store, path = order.store, order.path
    found = store.seal(path)
    if found is None:
        return order.seal
    is_as_packed = found == order.seal and isinstance(store, Disk) and store.changed_at(path) <= original.created_at
    if is_as_packed or store.checksum(path) == original.checksum:
        return found
    raise NotTheOriginal(store.name, store.where(order.path))


def _record(session: Session, *, one: CopyLease, outcome: Mapping[int, CcatError | None]) -> None:
    held, by = set(one.held(session)).intersection(outcome), one.worker.name
    failures = {copy_id: error for copy_id in held if (error := outcome[copy_id]) is not None}
    gone = held - failures.keys()
    healthy = {**_IDLE, "failure": None, "not_before": None, "trouble_count": 0}
    advance(session, _Copy, gone, to=_Status.DELETED, because="removed", by=by, values=healthy)
    _note_deletion(session, gone)
    by_failure: defaultdict[tuple[str, bool], list[int]] = defaultdict(list)
    for copy_id, error in failures.items():
        by_failure[str(error), isinstance(error, LocationTrouble | NotTheCopy) and error.needs_a_person].append(copy_id)
    for (failure, lasts), copy_ids in by_failure.items():
        _log.warning("copies cannot be deleted", copies=len(copy_ids), error=failure)
        pause = _UNTIL_ASKED if lasts else _pause(session, copy_ids, one.worker)
        fail_deletion(session, copy_ids, because=failure, by=by, pause=pause)


def fail_deletion(session: Session, copy_ids: Collection[int], *, because: str, by: str, pause: timedelta) -> None:
    """Have the removal of copies tried again after a pause."""
    values = _later(because, pause)
    advance(session, _Copy, copy_ids, to=_Status.DELETION_FAILED, because=because, by=by, values=values)


def _later(failure: str, pause: timedelta) -> Mapping[str, Any]:
    return {**_IDLE, "failure": failure, "not_before": _NOW + pause, "trouble_count": _COUNTED}


def _pause(session: Session, copy_ids: Collection[int], worker: Worker) -> timedelta:
    most = session.scalar(sa.select(sa.func.max(_Copy.trouble_count)).where(is_among(_Copy.id, copy_ids)))
    return worker.backoff.delay((most or 0) + 1, jitter=random.random())  # noqa: S311 - not a secret


def _note_deletion(session: Session, copy_ids: Collection[int]) -> None:
    """Note at the locations of copies that one went: what a worker saw of the disk before says nothing any more."""
    if copy_ids:
        here = sa.select(_Copy.data_location_id).where(is_among(_Copy.id, copy_ids))
        session.execute(sa.update(models.DataLocation).where(models.DataLocation.id.in_(here)).values(deleted_at=_NOW))
