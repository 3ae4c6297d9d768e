from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Stored
from ccat_data_transfer.backends.errors import BadFile, FileUnreadable
from ccat_data_transfer.backends.movers import MovesFiles, NotBrought, Parcel
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import BadBufferCopy
from ccat_data_transfer.routing import fitting
from ccat_data_transfer.verbs.attempts import Attempt, LeaseLost, Worker, attempt
from ccat_data_transfer.verbs.copies import mark, record_copy
from ccat_data_transfer.verbs.parcels import Carried, announce_arrival, arrival, carried, leave_behind
from ccat_data_transfer.verbs.remaking import TIMES_UNREAD, remade
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PhysicalCopyStatus, Status


@dataclass(frozen=True, kw_only=True)
class _Order:
    parcel: Parcel
    members: Sequence[Carried]
    move: MovesFiles
    buffer: Disk
    path: str
    copy_id: int


@dataclass(frozen=True, kw_only=True)
class _Brought:
    asked: frozenset[str]
    """Paths of what there was room for."""
    bad: NotBrought

    def has(self, member: Carried) -> bool:
        """Whether a raw package is there now."""
        return member.path in self.asked and member.path not in self.bad


def transfer(worker: Worker, transfer_id: int) -> None:
    """Bring a transfer package to the buffer where it goes; what was brought before is not brought again.

    Nothing is compared here: that is done as it is unpacked. What is not where it should come from is marked, and left
    behind to be made anew; what cannot be read there, or has no room here, is left behind for a later one. Does nothing
    unless the transfer is SCHEDULED; leaves it PENDING.
    """
    attempt(worker, models.DataTransfer, transfer_id, work=_transfer, on_failure=_nothing_more)


def _transfer(one: Attempt) -> None:
    order = one.transaction(partial(_prepare, one=one))
    if order is None:
        return
    try:
        brought = _bring(order, one)
    except LeaseLost:
        if one.regardless(partial(_is_over, one=one)):
            # What came too late: no row tells of it any more, and no lease is needed for it.
            replace(order.buffer, progress=lambda: None).remove(order.path)
        raise
    stored = order.buffer.published_tree(order.path)
    one.transaction(partial(_record, one=one, order=order, stored=stored, brought=brought))


def _is_over(session: Session, *, one: Attempt) -> bool:
    """Whether nobody brings, or has, the transfer package there any more: others have unpacked it, or given it up."""
    row = session.get_one(models.DataTransfer, one.transfer_id, populate_existing=True)
    return row.status not in LIVE_TRANSFER_STATUSES and arrival(session, row) is None


def _prepare(session: Session, *, one: Attempt) -> _Order | None:
    """What to bring; None where that was done before, and the transfer goes on."""
    row = session.get_one(models.DataTransfer, one.transfer_id)
    found = arrival(session, row)
    if found is not None and found.status is PhysicalCopyStatus.PRESENT:
        one.end(session, Status.PENDING, because="was brought before, to be unpacked next")
        return None
    parcel = session.get_one(models.DataTransferPackage, row.data_transfer_package_id)
    origin = session.get_one(models.DataLocation, row.origin_id)
    buffer = one.disk(session.get_one(models.DataLocation, row.destination_id))
    route = session.get_one(models.DataTransferRoute, row.data_transfer_route_id)
    host = origin.host if isinstance(origin, models.DiskDataLocation) else None
    copy_id = announce_arrival(session, row, parcel.name, by=one.by)
    copy = session.get_one(models.PhysicalCopy, copy_id)
    members = carried(session, row)
    return _Order(
        parcel=Parcel(origin=one.disk(origin), host=host, files=_files(members)),
        members=members,
        move=one.mover(route),
        buffer=buffer,
        path=copy.path,
        copy_id=copy_id,
    )


def _files(members: Sequence[Carried]) -> list[tuple[str, int | None]]:
    """Each once, however many archives it is on its way to."""
    return list(dict.fromkeys((one.path, one.size_bytes) for one in members))


def _bring(order: _Order, one: Attempt) -> _Brought:
    """Bring what is there and has room; what is wrong with the rest."""
    buffer, sizes = order.buffer, dict(order.parcel.files)
    needed = {path: _missing(order, [path]) for path in sizes}
    asked = fitting(needed, buffer.room())
    missing = sum(needed[path] for path in asked)
    into = buffer.inbox(order.path, needs=missing)
    parcel = replace(order.parcel, files=[(path, sizes[path]) for path in asked])
    one.seen = lambda: _progress(_missing(order, asked))
    with buffer.explained(missing):
        bad = order.move(parcel, into, progress=one.keep_lease) if asked else {}
    return _Brought(asked=frozenset(asked), bad=bad)


def _progress(missing: int) -> Mapping[str, object]:
    """What to write down of it; once it got on, workers that were lost with it before count no more."""
    row = models.DataTransfer
    got_on = row.missing_bytes > missing
    return {"missing_bytes": missing, "retry_count": sa.case((got_on, 0), else_=row.retry_count)}


def _missing(order: _Order, paths: Collection[str]) -> int:
    """How much of some files is not there yet."""
    files = [(PurePosixPath(path).name, size or 0) for path, size in order.parcel.files if path in paths]
    return order.buffer.missing_bytes(order.path, files)


def _record(session: Session, *, one: Attempt, order: _Order, stored: Stored, brought: _Brought) -> None:
    because = "brought here; to be unpacked next"
    for path, problem in brought.bad.items():
        concerned = [member for member in order.members if member.path == path]
        told, is_lost = _told(session, concerned, problem, by=one.by)
        one.rest(session, [member.archive_transfer_id for member in concerned], because=told, is_lost=is_lost)
    row = session.get_one(models.DataTransfer, one.transfer_id)
    leave_behind(session, row, [member for member in order.members if not brought.has(member)])
    _note_size(session, one, [member for member in order.members if brought.has(member)])
    record_copy(session, order.copy_id, stored, because=because, by=one.by)
    session.get_one(models.DataTransfer, one.transfer_id).missing_bytes = 0
    one.end(session, Status.PENDING, because=because)


def _told(
    session: Session, members: Sequence[Carried], problem: BadFile | FileUnreadable, *, by: str
) -> tuple[str, bool]:
    """What becomes of a raw package that was not brought, and whether that is to be made anew.

    Else it is tried again with a later transfer package.
    """
    [first, *_] = members
    if isinstance(problem, BadFile):
        mark(session, first.copy_id, problem, by=by)
        return str(BadBufferCopy(first.name, problem)), True
    anew = remade(session, members, after=TIMES_UNREAD, by=by)
    return anew or f"{problem} It is tried again.", anew is not None


def _note_size(session: Session, one: Attempt, members: Sequence[Carried]) -> None:
    """Write down how much it is that travels together now."""
    row = session.get_one(models.DataTransfer, one.transfer_id)
    parcel = session.get_one(models.DataTransferPackage, row.data_transfer_package_id)
    parcel.size_bytes = sum(size or 0 for _, size in _files(members))


def _nothing_more(session: Session, one: Attempt, error: CcatError) -> None:
    """No other row is concerned: its raw packages wait with it."""
