from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Store, Stored, pour
from ccat_data_transfer.backends.errors import BadFile
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import BadArchiveCopy
from ccat_data_transfer.plan import tar_path
from ccat_data_transfer.tar import Writable
from ccat_data_transfer.verbs.attempts import Attempt, Worker, attempt
from ccat_data_transfer.verbs.copies import announce_copy, archive_copies, live_copy, mark, record_copy
from ccat_data_transfer.verbs.replicating import replicate
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.states import PhysicalCopyStatus, Status


@dataclass(frozen=True, kw_only=True)
class _Order:
    package_id: int
    name: str
    archive: Store
    archived_path: str
    archived_id: int
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
        self.copy_id = order.archived_id
        self.package_id = order.package_id


def restore(worker: Worker, transfer_id: int) -> None:
    """Put the tar of an archived package into the buffer that its way to another archive starts from.

    It is read from an archive of that site. Does nothing unless the archive transfer is SCHEDULED; leaves it PENDING.
    """
    attempt(worker, models.LongTermArchiveTransfer, transfer_id, work=_restore, on_failure=_mark_bad)


def _restore(one: Attempt) -> None:
    order = one.transaction(partial(_prepare, one=one))
    if order is not None:
        stored = _copy(order)
        one.transaction(partial(_record, one=one, order=order, stored=stored))


def _prepare(session: Session, *, one: Attempt) -> _Order | None:
    """What to restore; None where it is there, or nothing is to restore it from, and the transfer goes back."""
    transfer = session.get_one(models.LongTermArchiveTransfer, one.transfer_id)
    package = session.get_one(models.RawDataPackage, transfer.raw_data_package_id)
    buffer = session.get_one(models.DataLocation, transfer.origin_id)
    there = live_copy(session, package.id, buffer.id)
    sound = [copy for copy in archive_copies(session, package.id) if copy.status is PhysicalCopyStatus.PRESENT]
    here = [copy for copy in sound if copy.location.site_id == buffer.site_id]
    if not here or (there is not None and there.status is PhysicalCopyStatus.PRESENT):
        one.end(session, Status.PENDING, because="there is nothing to restore")
        return None
    path = tar_path(package.name, package.executed_obs_unit.observing_night)
    return _Order(
        package_id=package.id,
        name=package.name,
        archive=one.store(here[0].location),
        archived_path=here[0].path,
        archived_id=here[0].id,
        size_bytes=package.size_bytes or 0,
        checksum=package.checksum or "",
        buffer=one.disk(buffer),
        path=path,
        copy_id=announce_copy(session, package, buffer, path=path, by=one.by),
    )


def _copy(order: _Order) -> Stored:
    def write(sink: Writable) -> None:
        try:
            pour(order.archive, order.archived_path, sink, size_bytes=order.size_bytes, checksum=order.checksum)
        except BadFile as problem:
            raise _BadArchived(order, problem) from problem

    return order.buffer.publish(order.path, write, needs=order.size_bytes, checksum=order.checksum)


def _record(session: Session, *, one: Attempt, order: _Order, stored: Stored) -> None:
    because = "restored from an archive, and read back"
    record_copy(session, order.copy_id, stored, because=because, by=one.by)
    one.end(session, Status.PENDING, because=because, arrives=True)


def _mark_bad(session: Session, one: Attempt, error: CcatError) -> None:
    if isinstance(error, _BadArchived):
        mark(session, error.copy_id, error.problem, by=one.by)
        replicate(session, [error.package_id], by=one.by)
