from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Stored
from ccat_data_transfer.backends.errors import BadFile
from ccat_data_transfer.backends.movers import MovesFiles, Parcel
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import BadBufferCopy
from ccat_data_transfer.verbs.attempts import Attempt, Worker, attempt
from ccat_data_transfer.verbs.copies import mark, record_copy
from ccat_data_transfer.verbs.parcels import Carried, announce_arrival, arrival, carried
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.states import PhysicalCopyStatus, Status


@dataclass(frozen=True, kw_only=True)
class _Order:
    parcel: Parcel
    members: Sequence[Carried]
    move: MovesFiles
    buffer: Disk
    path: str
    copy_id: int


def transfer(worker: Worker, transfer_id: int) -> None:
    """Bring a transfer package to the buffer where it goes; what was brought before is not brought again.

    Nothing is compared here: that is done as it is unpacked. What is not where it should come from is marked, and left
    behind to be made anew. Does nothing unless the transfer is SCHEDULED; leaves it PENDING.
    """
    attempt(worker, models.DataTransfer, transfer_id, work=_transfer, on_failure=_nothing_more)


def _transfer(one: Attempt) -> None:
    order = one.transaction(partial(_prepare, one=one))
    if order is not None:
        bad = _bring(order, one)
        stored = order.buffer.published_tree(order.path)
        one.transaction(partial(_record, one=one, order=order, stored=stored, bad=bad))


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


def _bring(order: _Order, one: Attempt) -> Mapping[str, BadFile]:
    """Bring what is there; what is wrong with the rest."""
    files, missing = order.parcel.files, _missing(order)
    into = order.buffer.inbox(order.path, needs=missing)
    one.seen = lambda: {"missing_bytes": _missing(order)}
    with order.buffer.explained(missing):
        return order.move(order.parcel, into, progress=one.keep_lease) if files else {}


def _missing(order: _Order) -> int:
    """How much of it is not there yet."""
    files = [(PurePosixPath(path).name, size or 0) for path, size in order.parcel.files]
    return order.buffer.missing_bytes(order.path, files)


def _record(session: Session, *, one: Attempt, order: _Order, stored: Stored, bad: Mapping[str, BadFile]) -> None:
    because = "brought here; to be unpacked next"
    for path, problem in bad.items():
        concerned = [member for member in order.members if member.path == path]
        mark(session, concerned[0].copy_id, problem, by=one.by)
        anew = str(BadBufferCopy(concerned[0].name, problem))
        one.rest(session, [member.archive_transfer_id for member in concerned], because=anew)
    record_copy(session, order.copy_id, stored, because=because, by=one.by)
    session.get_one(models.DataTransfer, one.transfer_id).missing_bytes = 0
    one.end(session, Status.PENDING, because=because)


def _nothing_more(session: Session, one: Attempt, error: CcatError) -> None:
    """No other row is concerned: its raw packages wait with it."""
