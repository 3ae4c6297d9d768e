from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Seal, Store, Stored
from ccat_data_transfer.backends.errors import BadFile, DamagedPackage, FileDiffers, FileMissing
from ccat_data_transfer.backends.posix import Disk, Tree
from ccat_data_transfer.backends.streams import Reader
from ccat_data_transfer.errors import (
    AnotherIsUsed,
    BadArchiveCopy,
    some,
)
from ccat_data_transfer.plan import staged_path
from ccat_data_transfer.tar import CHUNK, DamagedTar, Readable, read_tar
from ccat_data_transfer.verbs.attempts import Attempt, LeaseLost, Worker, attempt
from ccat_data_transfer.verbs.copies import announce_copy, live_copy, mark, record_copy
from ccat_data_transfer.verbs.doubting import doubt_what_was_brought, reading
from ccat_data_transfer.verbs.products.fetching import fetch_product
from ccat_data_transfer.verbs.reaching import Archived, inbox_of, nearest_archived
from ccat_data_transfer.verbs.replicating import is_or_will_be_archived, replicate
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.states import PhysicalCopyStatus, Status


@dataclass(frozen=True, kw_only=True)
class _Staged:
    """The directory that the database says was made before."""

    copy_id: int
    disk: Disk
    path: str
    look: Stored

    def problem(self) -> BadFile | None:
        """What is wrong with it, without its files being read; None where nothing is."""
        found, where = self.disk.tree(self.path), self.disk.where(self.path)
        if found is None:
            return FileMissing(self.disk.name, where)
        if found != self.look:
            return FileDiffers(self.disk.name, where, registered=_looks(self.look), found=_looks(found))
        return None


@dataclass(frozen=True, kw_only=True)
class _Order:
    package_id: int
    name: str
    checksums: Mapping[str, str]
    """Path of each raw file → its digest as the instrument registered it."""
    size_bytes: int
    archived: Archived
    disk: Disk
    path: str
    copy_id: int


class PackageContradicts(CcatError):
    """A tar is what was archived, and does not hold what its package should."""

    code = "package_contradicts"

    def __init__(self, package: str, problem: str) -> None:
        super().__init__(
            f"The tar of package {package} is what was archived, and is not what is registered: {problem}. Nothing was "
            "removed or replaced. Find out whether its files were registered otherwise since, and report it."
        )


class _BadArchived(BadArchiveCopy):
    def __init__(self, order: _Order, problem: BadFile) -> None:
        super().__init__(order.name, order.package_id, problem)
        self.problem = problem
        self.copy_id = order.archived.copy_id
        self.package_id = order.package_id


def stage(worker: Worker, job_id: int) -> None:
    """Unpack an archived package at a processing location, every raw file compared with what was registered.

    A complete directory from before is verified and adopted. A product is copied there from wherever it is. Does
    nothing unless the job is SCHEDULED.
    """
    attempt(worker, models.StagingJob, job_id, work=_stage, on_failure=doubt_what_was_brought)


def _stage(one: Attempt) -> None:
    job = one.transaction(lambda session: session.get_one(models.StagingJob, one.transfer_id))
    package_id = job.raw_data_package_id
    if package_id is None:
        fetch_product(one)
    else:
        _stage_package(one, package_id)


def _stage_package(one: Attempt, package_id: int) -> None:
    before = one.transaction(partial(_staged_before, one=one, package_id=package_id))
    if before is not None:
        problem = before.problem()
        if problem is None:
            one.transaction(partial(one.end, to=Status.COMPLETED, because="was staged here before"))
            return
        one.transaction(partial(mark, copy_id=before.copy_id, problem=problem, by=one.by))
    order = one.transaction(partial(_prepare, one=one, package_id=package_id))
    try:
        stored = _adopt(order) or _make(order)
    except _BadArchived as bad:
        if one.transaction(partial(_give_up_on, one=one, bad=bad)):
            raise AnotherIsUsed(order.name, bad.problem) from bad
        raise
    order.disk.remove(inbox_of(order.copy_id))  # whoever had a tar brought may have died since
    one.transaction(partial(_record, one=one, order=order, stored=stored))


def _staged_before(session: Session, *, one: Attempt, package_id: int) -> _Staged | None:
    job = session.get_one(models.StagingJob, one.transfer_id)
    copy = live_copy(session, package_id, job.data_location_id)
    if copy is None or copy.status is not PhysicalCopyStatus.STAGED:
        return None
    look = Stored(copy.size_bytes or 0, None, Seal(copy.mtime_ns or 0, copy.inode or 0))
    return _Staged(copy_id=copy.id, disk=one.disk(copy.location), path=copy.path, look=look)


def _looks(tree: Stored) -> str:
    return f"{tree.size_bytes} bytes changed last at {tree.seal.mtime_ns} (inode {tree.seal.inode})"


def _prepare(session: Session, *, one: Attempt, package_id: int) -> _Order:
    job = session.get_one(models.StagingJob, one.transfer_id)
    package = session.get_one(models.RawDataPackage, package_id)
    location = session.get_one(models.DataLocation, job.data_location_id)
    files = session.scalars(
        sa.select(models.RawDataFile).where(models.RawDataFile.raw_data_package_id == package.id)
    ).all()
    path = staged_path(package.name)
    copy_id = announce_copy(session, package, location, path=path, by=one.by)
    return _Order(
        package_id=package.id,
        name=package.name,
        checksums={file.relative_path: file.checksum for file in files},
        size_bytes=sum(file.size_bytes for file in files),
        archived=nearest_archived(session, package, one=one, at=location, copy_id=copy_id),
        disk=one.disk(location),
        path=path,
        copy_id=copy_id,
    )


def _adopt(order: _Order) -> Stored | None:
    """The directory that an earlier try made, if it is complete; else it is removed."""
    if order.disk.seal(order.path) is None:
        return None
    if order.disk.files(order.path) == order.checksums.keys() and all(
        order.disk.checksum(f"{order.path}/{file}") == checksum for file, checksum in order.checksums.items()
    ):
        return order.disk.published_tree(order.path)
    order.disk.remove(order.path)
    return None


def _make(order: _Order) -> Stored:
    archived = order.archived
    try:
        with reading(archived.store, archived.path, copy_id=archived.copy_id), archived.at_hand() as (store, path):
            unpack = partial(_unpack, order=order, store=store, path=path)
            return order.disk.publish_tree(order.path, unpack, needs=order.size_bytes)
    except BadFile as problem:
        raise _BadArchived(order, problem) from problem


def _unpack(tree: Tree, *, order: _Order, store: Store, path: str) -> None:
    """Unpack a tar; raises DamagedPackage where its archive copy is bad, as far as that was not found out before.

    Raises PackageContradicts where it is what was archived all the same: a tar made anew would be no better.
    """
    archived = order.archived
    with store.open(path, size_bytes=archived.size_bytes) as tar:
        try:
            _unpack_files(tar, order.checksums, tree)
        except DamagedTar as damage:
            tar.drain()
            _require_damaged(tar, order, damage)
            raise PackageContradicts(order.name, str(damage)) from damage
        tar.drain()
        tar.require(archived.checksum or "")


def _require_damaged(tar: Reader, order: _Order, damage: DamagedTar) -> None:
    """Raise what is wrong with a tar whose files are not right, unless it is what was archived."""
    archived = order.archived
    try:
        tar.require(archived.checksum or "")
    except FileDiffers as other:
        if archived.puller is not None:  # then it may have become bad here
            raise
        raise DamagedPackage(archived.store.name, archived.store.where(archived.path), str(damage)) from other


def _unpack_files(tar: Readable, checksums: Mapping[str, str], tree: Tree) -> None:
    """Write the files of a tar; raises DamagedTar with all that is wrong with them."""
    missing, problems = dict(checksums), []
    try:
        for name, content in read_tar(tar):
            if name not in missing:
                problems.append(f"holds {name!r}, which it should not")
            elif (found := _write(tree, name, content)) != (registered := missing.pop(name)):
                problems.append(f"holds {name} with {found}, registered was {registered}")
        problems += [f"lacks {name}" for name in sorted(missing)]
    except DamagedTar as damage:
        problems.append(str(damage))
    if problems:
        raise DamagedTar(some(problems))


def _write(tree: Tree, name: str, content: Readable) -> str:
    """Write a file of a directory; its digest."""
    with tree.writing(name) as sink:
        while data := content.read(CHUNK):
            sink.write(data)
    return sink.checksum


def _record(session: Session, *, one: Attempt, order: _Order, stored: Stored) -> None:
    because = "unpacked, and every file verified"
    record_copy(session, order.copy_id, stored, because=because, by=one.by)
    staged = PhysicalCopyStatus.STAGED
    if not advance(session, models.PhysicalCopy, [order.copy_id], to=staged, because=because, by=one.by):
        raise LeaseLost
    one.end(session, Status.COMPLETED, because=because)


def _give_up_on(session: Session, *, one: Attempt, bad: _BadArchived) -> bool:
    """Never use an archive copy again; whether there is another one, or will be."""
    mark(session, bad.copy_id, bad.problem, by=one.by)
    replicate(session, [bad.package_id], by=one.by)
    return is_or_will_be_archived(session, bad.package_id)
