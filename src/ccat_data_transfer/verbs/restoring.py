from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Stored, pour
from ccat_data_transfer.backends.errors import BadFile
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import BadArchiveCopy
from ccat_data_transfer.plan import tar_path
from ccat_data_transfer.tar import Writable
from ccat_data_transfer.verbs.attempts import Attempt, Worker, attempt
from ccat_data_transfer.verbs.copies import announce_copy, archive_copies, live_copy, mark, record_copy
from ccat_data_transfer.verbs.doubting import doubt_what_was_brought, reading
from ccat_data_transfer.verbs.reaching import Archived, inbox_of, nearest_archived
from ccat_data_transfer.verbs.replicating import replicate
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.states import PhysicalCopyStatus, Status


@dataclass(frozen=True, kw_only=True)
class _Order:
    package_id: int
    name: str
    archived: Archived
    size_bytes: int
    checksum: str
    buffer: Disk
    path: str
    copy_id: int


class _BadArchived(BadArchiveCopy):
    transient = True  # another archive may have it

    def __init__(self, order: _Order, problem: BadFile) -> None:
        super().__init__(order.name, order.package_id, problem)
        self.problem = problem
        self.copy_id = order.archived.copy_id
        self.package_id = order.package_id


def restore(worker: Worker, transfer_id: int) -> None:
    """Put the tar of an archived package into the buffer that its way to another archive starts from.

    It is read from an archive of that site, or from another one where that cannot be read. Does nothing unless the
    archive transfer is SCHEDULED; leaves it PENDING.
    """
    attempt(worker, models.LongTermArchiveTransfer, transfer_id, work=_restore, on_failure=_mark_bad)


def _restore(one: Attempt) -> None:
    order = one.transaction(partial(_prepare, one=one))
    if order is not None:
        stored = _copy(order)
        order.buffer.remove(inbox_of(order.copy_id))  # whoever had a tar brought may have died since
        one.transaction(partial(_record, one=one, order=order, stored=stored))


def _prepare(session: Session, *, one: Attempt) -> _Order | None:
    """What to restore; None where it is there, or nothing is to restore it from, and the transfer goes back."""
    transfer = session.get_one(models.LongTermArchiveTransfer, one.transfer_id)
    package = session.get_one(models.RawDataPackage, transfer.raw_data_package_id)
    buffer = session.get_one(models.DataLocation, transfer.origin_id)
    there = live_copy(session, package.id, buffer.id)
    sound = [copy for copy in archive_copies(session, package.id) if copy.status is PhysicalCopyStatus.PRESENT]
    is_here = any(copy.location.site_id == buffer.site_id for copy in sound)
    if not is_here or (there is not None and there.status is PhysicalCopyStatus.PRESENT):
        one.end(session, Status.PENDING, because="there is nothing to restore")
        return None
    path = tar_path(package.name, package.executed_obs_unit.observing_night)
    copy_id = announce_copy(session, package, buffer, path=path, by=one.by)
    return _Order(
        package_id=package.id,
        name=package.name,
        archived=nearest_archived(session, package, one=one, at=buffer, copy_id=copy_id),
        size_bytes=package.size_bytes or 0,
        checksum=package.checksum or "",
        buffer=one.disk(buffer),
        path=path,
        copy_id=copy_id,
    )


def _copy(order: _Order) -> Stored:
    archived = order.archived

    def write(sink: Writable) -> None:
        with reading(archived.store, archived.path, copy_id=archived.copy_id), archived.at_hand() as (store, path):
            pour(store, path, sink, size_bytes=order.size_bytes, checksum=order.checksum)

    try:
        return order.buffer.publish(order.path, write, needs=order.size_bytes, checksum=order.checksum)
    except BadFile as problem:
        raise _BadArchived(order, problem) from problem


def _record(session: Session, *, one: Attempt, order: _Order, stored: Stored) -> None:
    because = "restored from an archive, and read back"
    record_copy(session, order.copy_id, stored, because=because, by=one.by)
    one.end(session, Status.PENDING, because=because, arrives=True)


def _mark_bad(session: Session, one: Attempt, error: CcatError) -> None:
    if isinstance(error, _BadArchived):
        mark(session, error.copy_id, error.problem, by=one.by)
        replicate(session, [error.package_id], by=one.by)
    doubt_what_was_brought(session, one, error)
