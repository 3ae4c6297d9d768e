"""Rows of the copies of raw packages, and what holds for those of products too."""

from collections.abc import Collection, Mapping
from typing import Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.base import Seal, Stored
from ccat_data_transfer.backends.errors import BadFile, FileMissing
from ccat_data_transfer.errors import CopyInTheWay
from ccat_data_transfer.verbs.attempts import LeaseLost
from ccat_ops_db import claims, models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import Brought, is_among, table_of
from ccat_ops_db.states import LocationType, PhysicalCopyStatus
from ccat_ops_db.verbs.copies import take_back

Copy = models.RawDataPackagePhysicalCopy
ProductCopy = models.DataProductPhysicalCopy

_Kind = TypeVar("_Kind", Copy, ProductCopy)
_NOW: Final = sa.func.clock_timestamp()
_SEEN: Final = Brought("seen", mtime_ns=sa.BigInteger(), inode=sa.BigInteger())
_RECOGNISED: Final = {"mtime_ns": _SEEN.c.mtime_ns, "inode": _SEEN.c.inode}
NOBODYS: Final = {"claimed_by": None, "lease_until": None}
"""What a row has that is closed: who had a lease on it, and sleeps, does nothing more once it wakes up."""
_USELESS: Final = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)
PREFERRED_FIRST: Final = (Copy.verified_at.is_(None), models.DataLocation.priority.desc(), models.DataLocation.id)
"""Order of copies, joined with their locations, in which they are read."""
LET_GO: Final = (PhysicalCopyStatus.DELETION_IN_PROGRESS, PhysicalCopyStatus.DELETION_FAILED)
"""What copies are of which nobody knows for now whether they will be there: one that was to be kept comes back."""


def live_copy(session: Session, package_id: int, location_id: int) -> Copy | None:
    """The one copy of a package at a location that is not DELETED."""
    return _live(session, Copy, Copy.raw_data_package_id == package_id, location_id=location_id)


def live_product_copy(session: Session, product_id: int, location_id: int) -> ProductCopy | None:
    """The one copy of a product at a location that is not DELETED."""
    return _live(session, ProductCopy, ProductCopy.data_product_id == product_id, location_id=location_id)


def _live(session: Session, noun: type[_Kind], is_its: sa.ColumnElement[bool], *, location_id: int) -> _Kind | None:
    here = (noun.data_location_id == location_id, noun.status != PhysicalCopyStatus.DELETED)
    found = sa.select(noun).where(is_its, *here).execution_options(populate_existing=True)
    return session.scalars(found).one_or_none()


def keep_to_read(session: Session, copy: models.PhysicalCopy, *, by: str) -> bool:
    """Have a copy that was to be deleted stay, as it is read; whether it is there, and its removal was not begun."""
    is_kept = copy.status is PhysicalCopyStatus.PRESENT
    return is_kept or bool(take_back(session, [copy.id], because="it is read", by=by))


def archive_copies(session: Session, package_id: int) -> list[Copy]:
    """Live copies of a package in long-term archives, the preferred one first, and what is in doubt last."""
    return list(
        session.scalars(
            sa.select(Copy)
            .join(Copy.location)
            .where(
                Copy.raw_data_package_id == package_id,
                Copy.status != PhysicalCopyStatus.DELETED,
                models.DataLocation.location_type == LocationType.LONG_TERM_ARCHIVE,
            )
            .order_by(*PREFERRED_FIRST)
        )
    )


def announce_copy(
    session: Session, package: models.RawDataPackage, location: models.DataLocation, *, path: str, by: str
) -> int:
    """Row, WRITING, of the copy that is about to be written; a corrupt or missing one before it is closed."""
    copy = live_copy(session, package.id, location.id)
    where = f"{location.site.short_name}/{location.name}"
    if copy is not None and copy.status in _USELESS:
        if not close_useless(session, [copy.id], by=by):
            raise CopyInTheWay(package.name, where, f"{copy.status}, and being removed")
        copy = None
    if copy is None:
        row = {"type": "raw_data_package", "raw_data_package_id": package.id, "data_location_id": location.id}
        return session.scalars(insert(Copy).values(row | {"path": path}).returning(Copy.id)).one()
    if copy.status is not PhysicalCopyStatus.WRITING:
        raise CopyInTheWay(package.name, where, copy.status)
    if not to_finish(session, [copy.id]):
        raise CopyInTheWay(package.name, where, "unfinished, and being removed")
    return copy.id


def close_useless(session: Session, copy_ids: Collection[int], *, by: str) -> set[int]:
    """Close rows of damaged or lost copies, as they are made anew; of which: what somebody removes now has to wait."""
    copy = models.PhysicalCopy
    free = sa.select(copy.id).where(is_among(copy.id, copy_ids), copy.status.in_(_USELESS), claims.is_free(copy))
    ids = session.scalars(free.order_by(copy.id).with_for_update()).all()
    to, because = PhysicalCopyStatus.DELETED, "it is made anew"
    return set(advance(session, copy, ids, to=to, because=because, by=by, values=NOBODYS))


def to_finish(session: Session, copy_ids: Collection[int]) -> set[int]:
    """Unfinished copies that nobody removes what is there of; nobody begins to before the transaction is over."""
    copy = models.PhysicalCopy
    unfinished = sa.and_(is_among(copy.id, copy_ids), copy.status == PhysicalCopyStatus.WRITING, claims.is_free(copy))
    return set(session.scalars(sa.select(copy.id).where(unfinished).order_by(copy.id).with_for_update()))


def record_copy(session: Session, copy_id: int, stored: Stored, *, because: str, by: str) -> None:
    """The copy is PRESENT, with what was seen of it; raises LeaseLost where somebody else recorded it."""
    values = {
        "size_bytes": stored.size_bytes,
        "checksum": stored.checksum,
        "mtime_ns": stored.seal.mtime_ns,
        "inode": stored.seal.inode,
        "verified_at": _NOW,
    }
    to = PhysicalCopyStatus.PRESENT
    if not advance(session, models.PhysicalCopy, [copy_id], to=to, because=because, by=by, values=values):
        raise LeaseLost


def keep_seals(session: Session, seals: Mapping[int, Seal]) -> None:
    """By what the files of copies are known again, without reading them: they were found right."""
    copy, found = table_of(models.PhysicalCopy), seals.values()
    seen = _SEEN.rows(seals, mtime_ns=[one.mtime_ns for one in found], inode=[one.inode for one in found])
    session.execute(sa.update(copy).where(copy.c.id == _SEEN.c.id).values(_RECOGNISED), seen.parameters)


def mark(session: Session, copy_id: int, problem: BadFile, *, by: str) -> None:
    """Mark a copy, that was found bad, as MISSING or CORRUPT, also one that is to go: it may be wanted after all.

    What is being removed goes on being removed, and counts as unread if it stays.
    """
    take_back(session, [copy_id], because="it was found bad", by=by)
    expected = [PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.STAGED]
    to, because = useless(problem), str(problem)
    if not advance(session, models.PhysicalCopy, [copy_id], to=to, expected=expected, because=because, by=by):
        unread = sa.update(models.PhysicalCopy).where(models.PhysicalCopy.id == copy_id)
        session.execute(unread.values(verified_at=None, failure=because))


def useless(problem: BadFile) -> PhysicalCopyStatus:
    """What a copy is that was found bad: MISSING or CORRUPT."""
    return PhysicalCopyStatus.MISSING if isinstance(problem, FileMissing) else PhysicalCopyStatus.CORRUPT
