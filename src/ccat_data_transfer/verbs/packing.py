from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Seal, Store, Stored
from ccat_data_transfer.backends.errors import BadFile, FileMissing
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import BadRawFiles, PackedOtherwise, RegisteredAnew
from ccat_data_transfer.plan import tar_bytes, tar_path
from ccat_data_transfer.tar import TarWriter, Writable
from ccat_data_transfer.verbs.attempts import Attempt, Worker, attempt
from ccat_data_transfer.verbs.copies import announce_copy, keep_seals, live_copy, mark, record_copy
from ccat_data_transfer.verbs.replicating import has_sound_copy, replicate
from ccat_data_transfer.verbs.ways import the_map
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus, Status


@dataclass(frozen=True, kw_only=True)
class _Member:
    relative_path: str
    size_bytes: int
    checksum: str
    copy_id: int | None
    source: Store | None
    """None where the file has no copy at any SOURCE location."""
    source_path: str


@dataclass(frozen=True, kw_only=True)
class _Order:
    package_id: int
    name: str
    members: Sequence[_Member]
    copy_id: int
    path: str
    buffer: Disk


@dataclass(frozen=True, kw_only=True)
class _Packed:
    stored: Stored
    seals: Mapping[int, Seal]
    """By which the files that were packed are known again, by the copies that were read."""


class _BadMembers(BadRawFiles):
    def __init__(self, order: _Order, found: Sequence[tuple[_Member, BadFile]]) -> None:
        super().__init__(order.name, order.package_id, [problem for _, problem in found])
        self.found = found


class _OtherTar(PackedOtherwise):
    def __init__(self, order: _Order, *, archived: str, packed: str) -> None:
        super().__init__(order.name, order.package_id, archived=archived, packed=packed)
        self.copy_id = order.copy_id


def pack(worker: Worker, transfer_id: int) -> None:
    """Make the tar of a raw package in the buffer that its archive transfer starts from.

    Every raw file is read from its source and compared with what its instrument registered. Where one differs, the
    package is FAILED and nothing is kept. What was lost in a buffer on its way is sent again from where it was packed.
    Does nothing unless the transfer is SCHEDULED; leaves it PENDING.
    """
    attempt(worker, models.LongTermArchiveTransfer, transfer_id, work=_pack, on_failure=_mark_bad_files)


def _pack(one: Attempt) -> None:
    order = one.transaction(partial(_prepare, one=one))
    if order is not None:
        packed = _write(order)
        try:
            one.transaction(partial(_record, one=one, order=order, packed=packed))
        except _OtherTar:
            order.buffer.remove(order.path)
            raise


def _prepare(session: Session, *, one: Attempt) -> _Order | None:
    """What to pack; None where that was done before, and the transfer goes on."""
    transfer = session.get_one(models.LongTermArchiveTransfer, one.transfer_id)
    package = session.get_one(models.RawDataPackage, transfer.raw_data_package_id)
    buffer = session.get_one(models.DataLocation, transfer.origin_id)
    copy = live_copy(session, package.id, buffer.id)
    if copy is not None and copy.status is PhysicalCopyStatus.PRESENT:
        one.end(session, Status.PENDING, because="was packed before, to be archived next")
        return None
    home_id = _home(session, package.id, buffer)
    if home_id is not None:
        _send_home(session, one, home_id)
        return None
    path = tar_path(package.name, package.executed_obs_unit.observing_night)
    return _Order(
        package_id=package.id,
        name=package.name,
        members=_members(session, one, package.id),
        copy_id=announce_copy(session, package, buffer, path=path, by=one.by),
        path=path,
        buffer=one.disk(buffer),
    )


def _send_home(session: Session, one: Attempt, home_id: int) -> None:
    """Send a package again from where its raw files are; a further copy to which nothing leads is given up."""
    transfer = session.get_one(models.LongTermArchiveTransfer, one.transfer_id)
    package = session.get_one(models.RawDataPackage, transfer.raw_data_package_id)
    leads = the_map(session).leads_to(home_id, transfer.destination_id)
    if package.state is PackageState.ARCHIVED and not leads:
        one.end(session, Status.CANCELLED, because="was lost on its way, and nothing leads there from its raw files")
        replicate(session, [package.id], by=one.by)
        return
    transfer.origin_id, transfer.data_transfer_id = home_id, None
    one.end(session, Status.PENDING, because="was lost on its way, to be sent again from where its raw files are")


def _home(session: Session, package_id: int, buffer: models.DataLocation) -> int | None:
    """Buffer at the site of the raw files, whose workers see no other; None where this is one, or there is none.

    Of several the one that has the tar already is taken, else the preferred one.
    """
    location, copy, file = models.DataLocation, models.PhysicalCopy, models.RawDataFile
    site_id = session.scalar(
        sa.select(location.site_id)
        .join(copy, copy.data_location_id == location.id)
        .join(file, file.id == copy.raw_data_file_id)
        .where(
            file.raw_data_package_id == package_id,
            location.location_type == LocationType.SOURCE,
            copy.status != PhysicalCopyStatus.DELETED,
        )
        .order_by(location.id)  # as the queue is named
        .limit(1)
    )
    if site_id in {None, buffer.site_id}:
        return None
    has_it = sa.exists().where(
        copy.raw_data_package_id == package_id,
        copy.data_location_id == location.id,
        copy.status == PhysicalCopyStatus.PRESENT,
    )
    there = (location.site_id == site_id, location.location_type == LocationType.BUFFER)
    usable = sa.or_(has_it, location.active)
    order = (has_it.desc(), location.priority.desc(), location.id)
    return session.scalars(sa.select(location.id).where(*there, usable).order_by(*order).limit(1)).one_or_none()


def _members(session: Session, one: Attempt, package_id: int) -> list[_Member]:
    """The files of a package in the order of their paths, each with its copy at a SOURCE location."""
    file, copy = models.RawDataFile, models.RawDataFilePhysicalCopy
    of_package = sa.select(file).where(file.raw_data_package_id == package_id)
    at_source = (
        sa.select(copy)
        .join(copy.location)
        .join(file, file.id == copy.raw_data_file_id)
        .where(
            file.raw_data_package_id == package_id,
            models.DataLocation.location_type == LocationType.SOURCE,
            copy.status != PhysicalCopyStatus.DELETED,
        )
        .order_by(copy.data_location_id.desc())  # of several, the one that the queue is named by comes last, and stays
    )
    copies = {found.raw_data_file_id: found for found in session.scalars(at_source)}
    files = sorted(session.scalars(of_package), key=lambda found: found.relative_path)
    return [_member(one, found, copies.get(found.id)) for found in files]


def _member(one: Attempt, file: models.RawDataFile, copy: models.PhysicalCopy | None) -> _Member:
    return _Member(
        relative_path=file.relative_path,
        size_bytes=file.size_bytes,
        checksum=file.checksum,
        copy_id=copy.id if copy else None,
        source=one.store(copy.location) if copy else None,
        source_path=copy.path if copy else file.relative_path,
    )


def _write(order: _Order) -> _Packed:
    seals = dict[int, Seal]()

    def write(sink: Writable) -> None:
        tar = TarWriter(sink)
        problems = [(one, problem) for one in order.members if (problem := _add(tar, one, seals)) is not None]
        if problems:
            raise _BadMembers(order, problems)
        tar.close()

    needs = tar_bytes((member.relative_path, member.size_bytes) for member in order.members)
    stored = order.buffer.publish(order.path, write, needs=needs)
    return _Packed(stored=stored, seals=seals)


def _add(tar: TarWriter, member: _Member, seals: dict[int, Seal]) -> BadFile | None:
    """Add a file to a tar, and its seal to the seals; what is wrong with it, None where it is as registered."""
    try:
        if member.source is None or member.copy_id is None:
            raise FileMissing("(no source location)", Path(member.source_path))
        seal = member.source.seal(member.source_path)  # before it is read: what is written meanwhile has another
        with member.source.open(member.source_path, size_bytes=member.size_bytes) as content:
            with suppress(EOFError):  # cut short since it was opened: its digest tells
                tar.add(member.relative_path, member.size_bytes, content)
            content.require(member.checksum)
    except BadFile as problem:
        return problem
    if seal is not None:
        seals[member.copy_id] = seal
    return None


def _record(session: Session, *, one: Attempt, order: _Order, packed: _Packed) -> None:
    because, stored = "packed, and read back; to be archived next", packed.stored
    package = session.get_one(models.RawDataPackage, order.package_id, with_for_update=True)
    _require_registered_as_packed(session, order)
    _require_packed_as_archived(session, order, archived=package.checksum, packed=stored.checksum)
    record_copy(session, order.copy_id, stored, because=because, by=one.by)
    keep_seals(session, packed.seals)
    package.size_bytes, package.checksum = stored.size_bytes, stored.checksum
    one.end(session, Status.PENDING, because=because, arrives=True)


def _require_registered_as_packed(session: Session, order: _Order) -> None:
    """Raise RegisteredAnew where a file was corrected while it was packed; the package is locked."""
    file = models.RawDataFile
    query = sa.select(file.relative_path, file.size_bytes, file.checksum)
    now = {tuple(row) for row in session.execute(query.where(file.raw_data_package_id == order.package_id))}
    if now != {(one.relative_path, one.size_bytes, one.checksum) for one in order.members}:
        raise RegisteredAnew(order.name)


def _require_packed_as_archived(session: Session, order: _Order, *, archived: str | None, packed: str | None) -> None:
    """Raise PackedOtherwise where a sound archive copy is another tar; where none is left, this one takes its place."""
    if archived != packed and has_sound_copy(session, order.package_id):
        raise _OtherTar(order, archived=archived or "", packed=packed or "")


def _mark_bad_files(session: Session, one: Attempt, error: CcatError) -> None:
    if isinstance(error, _BadMembers):
        for member, problem in error.found:
            if member.copy_id is not None:
                mark(session, member.copy_id, problem, by=one.by)
    if isinstance(error, _OtherTar):
        because, to = "archive copies are another tar", PhysicalCopyStatus.DELETED
        advance(session, models.PhysicalCopy, [error.copy_id], to=to, because=because, by=one.by)
