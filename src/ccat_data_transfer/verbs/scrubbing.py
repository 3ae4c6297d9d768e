"""Archive copies are read again over time, compared with what was archived, and made anew where they are not that.

So are copies anywhere that are in doubt, as they arrived damaged somewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import accumulate
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Store
from ccat_data_transfer.backends.errors import BadFile, LocationTrouble
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.tar import CHUNK
from ccat_data_transfer.verbs.archived import Archived, archived, compare, keep_described, known_of, loose_product
from ccat_data_transfer.verbs.attempts import LeaseLost, Worker, store_of
from ccat_data_transfer.verbs.copies import mark
from ccat_data_transfer.verbs.doubting import IS_DOUBTED, IS_IN_DOUBT
from ccat_data_transfer.verbs.leases import CopyLease
from ccat_data_transfer.verbs.unreadable import Unread, make_anew, note_unread, others_at
from ccat_ops_db import claims, models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.plan.retention import SCRUBBED_AFTER
from ccat_ops_db.queries.pauses import is_held
from ccat_ops_db.session import in_transaction
from ccat_ops_db.states import LocationType, PhysicalCopyStatus
from ccat_ops_db.verbs.reading import begin_to_read, note_read, note_readable
from ccat_service.logging import StructuredLogger

MB_PER_S: Final = 50.0
_BATCH: Final = timedelta(minutes=10)
"""For so long a worker is given to read at the rate of its location, or one copy."""
_MOST: Final = 100
_LEAST_REST: Final = timedelta(minutes=1)
_EVERY: Final = timedelta(hours=1)
_MB: Final = 10**6

_Copy, _Location = models.PhysicalCopy, models.DataLocation
_NOW: Final = sa.func.clock_timestamp()
_IS_COMPARED: Final = sa.and_(
    _Copy.raw_data_file_id.is_(None),
    _Copy.data_transfer_package_id.is_(None),
    sa.or_(_Copy.not_before.is_(None), _Copy.not_before <= _NOW),
    claims.is_free(_Copy),
)
_HAS_DOUBTFUL: Final = sa.exists().where(_Copy.data_location_id == _Location.id, IS_IN_DOUBT, _IS_COMPARED)
_IS_READ: Final = sa.and_(
    sa.or_(_Location.location_type == LocationType.LONG_TERM_ARCHIVE, _HAS_DOUBTFUL.correlate(_Location)),
    sa.not_(is_held()),
)
_READ: Final = {"verified_at": _NOW, "trouble_count": 0, "not_before": None, "failure": None}

_log = StructuredLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Order:
    package_id: int | None
    location_id: int
    store: Store
    archived: Archived
    known: bytes | None
    """What the description beside it should say, where that is read with it."""
    product: models.DataProduct | None
    """What it is a copy of, of a product that is in no archive: nothing lies beside it there."""
    others: Sequence[str]
    """Other files of its location, which can be read as far as is known."""


def archives_to_look_at(session: Session) -> Sequence[int]:
    """Archives, and others with copies in doubt, whose turn it is to be looked at; no other manager does meanwhile."""
    is_due = sa.or_(_Location.archive_look_at.is_(None), _Location.archive_look_at <= _NOW)
    chosen = sa.select(_Location.id).where(is_due, _IS_READ).order_by(_Location.id)
    taken = chosen.with_for_update(of=_Location.__table__, key_share=True, skip_locked=True).cte("taken")
    next_time = sa.update(_Location).where(_Location.id == taken.c.id).values(archive_look_at=_NOW + _EVERY)
    return session.scalars(next_time.returning(_Location.id), execution_options={"synchronize_session": False}).all()


def next_look_at_archives(session: Session) -> datetime | None:
    """When the next of them is looked at."""
    return session.scalar(sa.select(sa.func.min(_Location.archive_look_at)).where(_IS_READ))


def due_for_scrubbing(session: Session, location_id: int) -> list[int]:
    """Copies that are read next: those in doubt, then those never read, the newest first, then those of longest ago.

    So many are told of at a time as its rate allows in ten minutes, and after them it is rested for as long.
    """
    location = session.get_one(_Location, location_id)
    found = _longest_unread(session, location)
    rate = (location.scrub_mb_per_s or MB_PER_S) * _MB
    before = accumulate((size or 0 for _, size in found), initial=0)
    chosen = [row for row, so_far in zip(found, before, strict=False) if so_far < rate * _BATCH.total_seconds()]
    if chosen:
        rest = timedelta(seconds=sum(size or 0 for _, size in chosen) / rate)
        location.archive_look_at = _NOW + max(rest, _LEAST_REST)
    else:
        begin_to_read(session, location_id)
    return [copy_id for copy_id, _ in chosen]


def look_again_soon(session: Session, location_id: int) -> None:
    """Have an archive whose workers are behind looked at again before they could have nothing to do for long."""
    session.get_one(_Location, location_id).archive_look_at = _NOW + _LEAST_REST


def _longest_unread(session: Session, location: models.DataLocation) -> Sequence[sa.Row[int, int | None]]:
    """Copies at a location, with their sizes, that are in doubt, those never read, and those not read for long."""
    query = sa.select(_Copy.id, _Copy.size_bytes).where(_are_there(location)).limit(_MOST)
    in_order = query.order_by(_Copy.verified_at, _Copy.id.desc())  # as the index has them
    # Each of them is a piece of an index; asked for together they would be looked for in all of it.
    doubted, *others = _reasons_to_read(location)
    pieces = [query.where(doubted).order_by(_Copy.id), *(in_order.where(one) for one in others)]
    return [row for piece in pieces for row in session.execute(piece)][:_MOST]


def _are_there(location: models.DataLocation) -> sa.ColumnElement[bool]:
    """Condition on copies: they can be read at a location now."""
    there = sa.text("physical_copy.status = 'present'")  # as the index says it
    return sa.and_(_Copy.data_location_id == location.id, there, _IS_COMPARED)


def _reasons_to_read(location: models.DataLocation) -> list[sa.ColumnElement[bool]]:
    """Conditions on copies at a location, any of which has them read: first that they are in doubt."""
    never, after = _Copy.verified_at.is_(None), SCRUBBED_AFTER
    if location.location_type is not LocationType.LONG_TERM_ARCHIVE:
        after = timedelta()
    elif location.scrub_days is not None:
        after = timedelta(days=location.scrub_days)
    late = [_Copy.verified_at < sa.func.now() - after] if after else []
    return [IS_DOUBTED, sa.and_(never, _Copy.failure.is_(None)), *late]


def scrub_what_is_due(worker: Worker, copy_ids: Sequence[int]) -> None:
    """Scrub those of some copies that are to be read still: who told of them may have done so long ago, or twice."""
    for copy_id in copy_ids:
        if in_transaction(worker.engine, partial(_is_due, copy_id=copy_id)):
            scrub(worker, [copy_id])


def _is_due(session: Session, *, copy_id: int) -> bool:
    location = session.get_one(_Copy, copy_id).location
    due = sa.select(_Copy.id).where(_Copy.id == copy_id, _are_there(location), sa.or_(*_reasons_to_read(location)))
    return session.scalar(due.join(_Copy.location).where(sa.not_(is_held()))) is not None


def scrub(worker: Worker, copy_ids: Sequence[int]) -> None:
    """Read copies, and compare them with what was registered; what is damaged or gone is asked for anew.

    What cannot be read is read again after a pause. What describes archived data is compared with what is known
    now, and written anew where it differs.
    """
    for copy_id in copy_ids:
        lease = CopyLease(worker, [copy_id])
        try:
            _scrub(lease, copy_id)
        except LeaseLost:
            _log.warning("the lease is lost, somebody else has the copy", copy=copy_id)
        except CcatError as trouble:  # neither of the copy nor of its location
            _log.warning("cannot read a copy now", copy=copy_id, error=str(trouble))
            in_transaction(worker.engine, lease.release)


def _scrub(lease: CopyLease, copy_id: int) -> None:
    order = in_transaction(lease.worker.engine, partial(_begin, lease=lease, copy_id=copy_id))
    if order is None:
        return
    try:
        problem = _read(order)
    except LocationTrouble as trouble:
        _log.warning("cannot read a copy, it is read later", copy=copy_id, error=str(trouble))
        unread = Unread(order.package_id, order.archived.run_id, trouble, is_alone=_is_well(order))
        in_transaction(lease.worker.engine, partial(note_unread, lease=lease, unread=unread))
        return
    if problem is None:
        _describe(order)
    in_transaction(lease.worker.engine, partial(_record, lease=lease, order=order, problem=problem))


def _begin(session: Session, *, lease: CopyLease, copy_id: int) -> _Order | None:
    """What to read; None where somebody else has it, or it is there no more."""
    if not lease.claim(session, [copy_id]):
        return None
    copy = session.get_one(_Copy, copy_id)
    if copy.status is not PhysicalCopyStatus.PRESENT:
        lease.release(session)
        return None
    parts, one = lease.worker.part_bytes, archived(session, copy)
    is_archived = copy.location.location_type is LocationType.LONG_TERM_ARCHIVE
    token, keep = f"{copy_id}-{lease.token}", partial(lease.keep_lease, copy_id)
    store = store_of(copy.location, token=token, progress=keep, part_bytes=parts)
    return _Order(
        package_id=copy.raw_data_package_id,
        location_id=copy.data_location_id,
        store=replace(store, from_disk=True) if isinstance(store, Disk) else store,
        archived=one,
        known=known_of(session, copy, one) if is_archived else None,
        product=loose_product(session, copy),
        others=[*([one.description] if is_archived else []), *others_at(session, copy)],
    )


def _read(order: _Order) -> BadFile | None:
    """What is wrong with a copy; None where it is as it was registered."""
    try:
        compare(order.store, order.archived, order.product)
    except BadFile as problem:
        return problem
    return None


def _is_well(order: _Order) -> bool:
    """Whether something else can be read where a copy cannot: then the trouble is its own."""
    return any(_can_be_read(order.store, path) for path in order.others)


def _can_be_read(store: Store, path: str) -> bool:
    try:
        with store.open(path) as file:
            file.read(CHUNK)
    except (BadFile, LocationTrouble):
        return False
    return True


def _describe(order: _Order) -> None:
    """Have what describes it say what is known; where that cannot be written, the copy is sound all the same."""
    where = str(order.store.where(order.archived.description))
    try:
        flaw = keep_described(order.store, order.archived, order.known) if order.known is not None else None
    except CcatError as trouble:
        _log.error("cannot keep up what describes archived data", path=where, error=str(trouble))
    else:
        if flaw is not None:  # after an upgrade all are of an earlier version
            tell = _log.debug if flaw.is_outdated else _log.warning
            tell("what describes archived data is written anew", path=where, problem=flaw.problem)


def _record(session: Session, *, lease: CopyLease, order: _Order, problem: BadFile | None) -> None:
    [copy_id], by = lease.held(session), lease.worker.name
    if problem is None:
        session.execute(sa.update(_Copy).where(_Copy.id == copy_id).values(_READ))
        note_readable(session, order.location_id, by=by)
    else:
        _log.error("a copy is not what was registered", copy=copy_id, error=str(problem))
        mark(session, copy_id, problem, by=by)
        make_anew(session, package_id=order.package_id, run_id=order.archived.run_id, by=by)
    lease.release(session)
    note_read(session, order.location_id)
