"""The archive copy that a package is staged from: where its tar is read, and how it gets there from another site."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath

from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Store
from ccat_data_transfer.backends.errors import BadFile, FileDiffers, FileMissing, FileUnreadable, NotKept
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.errors import (
    ArchiveCopyComing,
    ArchiveOutOfReach,
    BroughtInVain,
    CopyInDoubt,
    CopyIsLetGo,
    NoArchiveCopy,
)
from ccat_data_transfer.verbs.attempts import Attempt
from ccat_data_transfer.verbs.copies import LET_GO, Copy, keep_to_read
from ccat_data_transfer.verbs.doubting import found_right
from ccat_data_transfer.verbs.products.copying import Item
from ccat_data_transfer.verbs.products.network import source_of, the_network
from ccat_data_transfer.verbs.products.plan import Fetch, fetch_from
from ccat_data_transfer.verbs.products.pulling import Puller
from ccat_data_transfer.verbs.replicating import archive_copies_now
from ccat_ops_db import models
from ccat_ops_db.states import SOUND_COPY_STATUSES, PhysicalCopyStatus


@dataclass(frozen=True, kw_only=True)
class Archived:
    """A sound archive copy."""

    copy_id: int
    store: Store
    path: str
    size_bytes: int | None
    checksum: str | None
    puller: Puller | None
    """What brings its tar to the disk where it is unpacked; None: it is read where it is."""

    @contextmanager
    def at_hand(self) -> Iterator[tuple[Store, str]]:
        """Where its tar is read, and its path there.

        Raises BroughtInVain where what came from another site is bad, FileUnreadable where it cannot be read there, and
        NotKept where it is bad only by the time that it is read. What was brought stays in `inbox_of` the staged copy.
        """
        if self.puller is None:
            yield self.store, self.path
            return
        item = Item(
            relative_path=self.path,
            size_bytes=self.size_bytes or 0,
            checksum=self.checksum or "",
            copy_id=self.copy_id,
            origin_copy_id=self.copy_id,
            origin_path=self.path,
        )
        [(_, seen)] = self.puller.bring([item])
        disk = self.puller.disk
        if isinstance(seen, BadFile):
            raise BroughtInVain(disk.name, {self.copy_id: seen})
        if isinstance(seen, FileUnreadable):
            raise seen
        try:
            yield disk, self.puller.path_of(item)
        except (FileDiffers, FileMissing) as problem:
            self.puller.done()
            raise NotKept(disk.name, disk.root, problem) from problem


def inbox_of(copy_id: int) -> str:
    """Directory that the tar arrives in which a staged copy is made of."""
    return f"transfer/staging-{copy_id}"


def nearest_archived(
    session: Session, package: models.RawDataPackage, *, one: Attempt, at: models.DataLocation, copy_id: int
) -> Archived:
    """The archive copy that is nearest to a location, where `copy_id` is to be made of it.

    Where that was to be deleted it is taken back. Raises ArchiveCopyComing, CopyIsLetGo, NoArchiveCopy, CopyInDoubt
    where it is to be read first, or ArchiveOutOfReach where nothing leads from any that is sound.
    """
    (copies, is_coming), place = archive_copies_now(session, package.id), f"{at.site.short_name}/{at.name}"
    told = [f"{_label(copy)} is {copy.status}" for copy in copies]
    sound = {copy.id: copy for copy in copies if copy.status in SOUND_COPY_STATUSES}
    if not sound:
        if is_coming:
            raise ArchiveCopyComing(package.name)
        if any(copy.status in LET_GO for copy in copies):
            raise CopyIsLetGo(f"Package {package.name}", place, told)
        raise NoArchiveCopy(package.name, package.id, [_lost(copy) for copy in copies])
    here = the_network(session)
    refused = found_right(session, one, sound)
    sources = [source_of(copy, here, is_refused=copy.id in refused) for copy in sound.values()]
    found = fetch_from(sources, at.site_id, seen=here.seen_from(at.site_id), routes=here.routes)
    if found is None:
        raise ArchiveOutOfReach(package.name, place, [_label(one) for one in sound.values()])
    copy = sound[found.source.copy_id]
    if found.waits:
        raise CopyInDoubt(f"Package {package.name}", _label(copy))
    if not keep_to_read(session, copy, by=one.by):
        raise CopyIsLetGo(f"Package {package.name}", place, told)
    return Archived(
        copy_id=copy.id,
        store=one.store(copy.location),
        path=copy.path,
        size_bytes=copy.size_bytes,
        checksum=copy.checksum,
        puller=_puller(session, copy, found, one=one, disk=one.disk(at), inbox=inbox_of(copy_id)),
    )


def _puller(session: Session, copy: Copy, found: Fetch, *, one: Attempt, disk: Disk, inbox: str) -> Puller | None:
    if found.route is None:
        return None
    assert isinstance(copy.location, models.DiskDataLocation)  # noqa: S101 - object stores are read from anywhere
    return Puller(
        origin=one.disk(copy.location),
        host=copy.location.host,
        move=one.mover(session.get_one(models.DataTransferRoute, found.route.id)),
        disk=disk,
        inbox=inbox,
        top=str(PurePosixPath(copy.path).parent),
        progress=one.keep_lease,
        path_of=lambda item: f"{inbox}/whole/{PurePosixPath(item.relative_path).name}",
    )


def _lost(copy: Copy) -> str:
    is_begun = copy.status is PhysicalCopyStatus.WRITING
    return f"{_label(copy)}, {copy.path}, {'was not written to its end' if is_begun else f'is {copy.status}'}"


def _label(copy: Copy) -> str:
    return f"{copy.location.site.short_name}/{copy.location.name}"
