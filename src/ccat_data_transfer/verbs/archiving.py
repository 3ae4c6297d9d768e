import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Store, Stored, pour
from ccat_data_transfer.backends.errors import BadFile
from ccat_data_transfer.backends.streams import checksum_of
from ccat_data_transfer.errors import BadBufferCopy, NameOfAnother
from ccat_data_transfer.plan import tar_path
from ccat_data_transfer.sidecar import DescribedTar, sidecar_path
from ccat_data_transfer.tar import Writable
from ccat_data_transfer.verbs.attempts import Attempt, Worker, attempt
from ccat_data_transfer.verbs.copies import announce_copy, live_copy, mark, record_copy
from ccat_data_transfer.verbs.describing import sidecar_of
from ccat_data_transfer.verbs.replicating import replicate
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.states import PackageState, PhysicalCopyStatus, Status

_NOW: Final = sa.func.clock_timestamp()


@dataclass(frozen=True, kw_only=True)
class _Order:
    package_id: int
    name: str
    size_bytes: int
    checksum: str
    origin: Store
    origin_path: str
    origin_copy_id: int
    archive: Store
    path: str
    copy_id: int
    was_there: bool
    """Whether the archive had a copy before, which may be replaced."""
    sidecar: bytes


class _BadOrigin(BadBufferCopy):
    def __init__(self, order: _Order, problem: BadFile) -> None:
        super().__init__(order.name, problem)
        self.problem = problem
        self.copy_id = order.origin_copy_id


def archive(worker: Worker, transfer_id: int) -> None:
    """Copy a packed raw package into its long-term archive, and call it ARCHIVED once it was read back from there.

    Its metadata sidecar lies beside its tar by then. A damaged tar in the buffer is packed again. Does nothing unless
    the transfer is SCHEDULED.
    """
    attempt(worker, models.LongTermArchiveTransfer, transfer_id, work=_archive, on_failure=_mark_bad_origin)


def _archive(one: Attempt) -> None:
    order = one.transaction(partial(_prepare, one=one))
    if order is not None:
        _require_its_name(order)
        stored = _copy(order)
        _describe(order)
        one.transaction(partial(_record, one=one, order=order, stored=stored))


def _prepare(session: Session, *, one: Attempt) -> _Order | None:
    """What to copy; None where it is there, or there is no tar to copy from and the transfer goes back."""
    transfer = session.get_one(models.LongTermArchiveTransfer, one.transfer_id)
    there = live_copy(session, transfer.raw_data_package_id, transfer.destination_id)
    if there is not None and there.status is PhysicalCopyStatus.PRESENT:  # a person restored it meanwhile
        one.end(session, Status.COMPLETED, because="the archive has it already")
        return None
    origin = live_copy(session, transfer.raw_data_package_id, transfer.origin_id)
    if origin is None or origin.status is not PhysicalCopyStatus.PRESENT:
        one.end(session, Status.PENDING, because="its tar is not in the buffer, to be packed first")
        return None
    because = "on its way into the archive"
    ids = [transfer.raw_data_package_id]
    advance(session, models.RawDataPackage, ids, to=PackageState.TRANSFERRING, because=because, by=one.by)
    package = session.get_one(models.RawDataPackage, transfer.raw_data_package_id)
    destination = session.get_one(models.DataLocation, transfer.destination_id)
    path = tar_path(package.name, package.executed_obs_unit.observing_night)
    name, size_bytes, checksum = PurePosixPath(path).name, package.size_bytes or 0, package.checksum or ""
    tar = DescribedTar(name=name, size_bytes=size_bytes, checksum=checksum)
    return _Order(
        package_id=package.id,
        name=package.name,
        size_bytes=size_bytes,
        checksum=checksum,
        origin=one.store(origin.location),
        origin_path=origin.path,
        origin_copy_id=origin.id,
        archive=one.store(destination),
        path=path,
        copy_id=announce_copy(session, package, destination, path=path, by=one.by),
        was_there=_was_there(session, transfer),
        sidecar=sidecar_of(session, package.id, tar=tar),
    )


def _was_there(session: Session, transfer: models.LongTermArchiveTransfer) -> bool:
    """Whether the archive is known to have had a copy; of one that was only begun nobody knows what its name is of."""
    copy = models.PhysicalCopy
    before = sa.exists().where(
        copy.raw_data_package_id == transfer.raw_data_package_id,
        copy.data_location_id == transfer.destination_id,
        copy.status != PhysicalCopyStatus.WRITING,
        copy.checksum.is_not(None),
    )
    return bool(session.scalar(sa.select(before)))


def _require_its_name(order: _Order) -> None:
    """Raise NameOfAnother where the archive has something else there than this package, of which nobody here knows.

    What an earlier try put there and an object store did not keep as it was is no such thing: it is sent again.
    """
    archive, path = order.archive, order.path
    if order.was_there or archive.size(path) is None or archive.was_put_as(path, order.checksum):
        return
    raise NameOfAnother(order.name, order.package_id, archive=archive.name, where=archive.where(path))


def _copy(order: _Order) -> Stored:
    def write(sink: Writable) -> None:
        try:
            pour(order.origin, order.origin_path, sink, size_bytes=order.size_bytes, checksum=order.checksum)
        except BadFile as problem:
            raise _BadOrigin(order, problem) from problem

    return order.archive.publish(order.path, write, needs=order.size_bytes, checksum=order.checksum)


def _describe(order: _Order) -> None:
    """Put what is known of the package beside its tar."""
    path, text = sidecar_path(order.path), order.sidecar
    checksum = checksum_of(hashlib.sha256(text))
    order.archive.publish(path, lambda sink: sink.write(text), needs=len(text), checksum=checksum)


def _record(session: Session, *, one: Attempt, order: _Order, stored: Stored) -> None:
    because = "archived, and read back there"
    record_copy(session, order.copy_id, stored, because=because, by=one.by)
    advance(
        session,
        models.RawDataPackage,
        [order.package_id],
        to=PackageState.ARCHIVED,
        because=because,
        by=one.by,
        values={"archived_at": _NOW, "failure": None},
    )
    one.end(session, Status.COMPLETED, because=because)
    replicate(session, [order.package_id], by=one.by)


def _mark_bad_origin(session: Session, one: Attempt, error: CcatError) -> None:
    if isinstance(error, _BadOrigin):
        mark(session, error.copy_id, error.problem, by=one.by)
