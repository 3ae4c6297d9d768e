from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Stored
from ccat_data_transfer.backends.errors import BadFile
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import BadArrivals
from ccat_data_transfer.verbs.attempts import Attempt, Worker, attempt
from ccat_data_transfer.verbs.copies import announce_copy, live_copy, record_copy
from ccat_data_transfer.verbs.parcels import Carried, arrival, carried
from ccat_data_transfer.verbs.remaking import TIMES_DAMAGED, remade
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PhysicalCopyStatus, Status

_Archiving = models.LongTermArchiveTransfer
_TO_THE_END: Final = (
    PhysicalCopyStatus.DELETION_POSSIBLE,
    PhysicalCopyStatus.DELETION_SCHEDULED,
    PhysicalCopyStatus.DELETION_IN_PROGRESS,
    PhysicalCopyStatus.DELETED,
)
"""The legal moves of a directory that is gone."""


@dataclass(frozen=True, kw_only=True)
class _Arrived:
    """A raw package that was brought."""

    members: Sequence[Carried]
    """On its way to each of its archives."""

    @property
    def one(self) -> Carried:
        return self.members[0]


@dataclass(frozen=True, kw_only=True)
class _Order:
    name: str
    buffer: Disk
    path: str
    copy_id: int
    arrived: Sequence[_Arrived]


class _BadMembers(BadArrivals):
    def __init__(self, order: _Order, bad: Sequence[tuple[_Arrived, BadFile]]) -> None:
        super().__init__(order.name, [problem.problem for _, problem in bad])
        self.bad = [one for one, _ in bad]
        self.copy_id = order.copy_id


def unpack(worker: Worker, transfer_id: int) -> None:
    """Take raw packages out of a transfer package that was brought, once every byte of them was found right.

    The digest of a tar is that of all its files, which were compared when it was packed. Each raw package goes on by
    itself. What is bad is sent again, and what is bad again is made anew where it comes from. Does nothing unless the
    transfer is SCHEDULED.
    """
    attempt(worker, models.DataTransfer, transfer_id, work=_unpack, on_failure=_mark_bad)


def _unpack(one: Attempt) -> None:
    order = one.transaction(partial(_prepare, one=one))
    if order is None:
        return
    bad = [(arrived, problem) for arrived in order.arrived if (problem := _take_out(one, order, arrived)) is not None]
    if bad:
        raise _BadMembers(order, bad)
    order.buffer.remove(order.path)
    one.transaction(partial(_finish, one=one, copy_id=order.copy_id))


def _prepare(session: Session, *, one: Attempt) -> _Order | None:
    """What to take out; None where nothing was brought, and the transfer goes back."""
    row = session.get_one(models.DataTransfer, one.transfer_id)
    copy = arrival(session, row)
    if copy is None:
        one.end(session, Status.PENDING, because="nothing of it is here, to be brought first")
        return None
    parcel = session.get_one(models.DataTransferPackage, row.data_transfer_package_id)
    members = groupby(carried(session, row), key=lambda found: found.package_id)
    return _Order(
        name=parcel.name,
        buffer=one.disk(copy.location),
        path=copy.path,
        copy_id=copy.id,
        arrived=[_Arrived(members=list(of_package)) for _, of_package in members],
    )


def _take_out(one: Attempt, order: _Order, arrived: _Arrived) -> BadFile | None:
    """Compare a raw package that was brought, and have it go on; what is wrong with it, None where nothing is."""
    path = arrived.one.path
    inside = f"{order.path}/{PurePosixPath(path).name}"
    is_out = order.buffer.seal(path) and not order.buffer.seal(inside)  # by a try that did not come to note it
    brought = path if is_out else inside
    try:
        with order.buffer.open(brought, size_bytes=arrived.one.size_bytes) as tar:
            tar.drain()
            tar.require(arrived.one.checksum)
    except BadFile as problem:
        order.buffer.remove(inside)
        return problem
    one.transaction(partial(_announce, one=one, arrived=arrived))
    stored = order.buffer.adopt(inside, path)
    one.transaction(partial(_go_on, one=one, arrived=arrived, stored=stored))
    return None


def _announce(session: Session, *, one: Attempt, arrived: _Arrived) -> None:
    """Say that its tar is about to be there, where no copy of it is there from before."""
    row = session.get_one(models.DataTransfer, one.transfer_id)
    found = live_copy(session, arrived.one.package_id, row.destination_id)
    if found is None or found.status is not PhysicalCopyStatus.PRESENT:
        package = session.get_one(models.RawDataPackage, arrived.one.package_id)
        location = session.get_one(models.DataLocation, row.destination_id)
        announce_copy(session, package, location, path=arrived.one.path, by=one.by)


def _go_on(session: Session, *, one: Attempt, arrived: _Arrived, stored: Stored) -> None:
    row = session.get_one(models.DataTransfer, one.transfer_id)
    found = live_copy(session, arrived.one.package_id, row.destination_id)
    if found is not None and found.status is PhysicalCopyStatus.WRITING:
        because = "came from another site, and every file verified"
        record_copy(session, found.id, replace(stored, checksum=arrived.one.checksum), because=because, by=one.by)
    moved = sa.update(_Archiving).where(is_among(_Archiving.id, [each.archive_transfer_id for each in arrived.members]))
    healthy = {"failure": None, "not_before": None, "bad_arrivals": 0, "trouble_count": _Archiving.trouble_kept}
    session.execute(moved.values(origin_id=row.destination_id, **healthy))


def _finish(session: Session, *, one: Attempt, copy_id: int) -> None:
    because = "unpacked, and every file verified"
    for to in _TO_THE_END:
        advance(session, models.PhysicalCopy, [copy_id], to=to, because=because, by=one.by)
    one.end(session, Status.COMPLETED, because=because)


def _mark_bad(session: Session, one: Attempt, error: CcatError) -> None:
    """Have what is bad sent again; what came damaged twice is damaged where it comes from."""
    if not isinstance(error, _BadMembers):
        return
    to = PhysicalCopyStatus.CORRUPT
    advance(session, models.PhysicalCopy, [error.copy_id], to=to, because=str(error), by=one.by)
    for arrived in error.bad:
        if told := remade(session, arrived.members, after=TIMES_DAMAGED, by=one.by):
            one.rest(session, [each.archive_transfer_id for each in arrived.members], because=told)
