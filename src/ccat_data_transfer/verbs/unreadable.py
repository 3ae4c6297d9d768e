"""Copies that cannot be read: each waits for its turn, and one that is alone in trouble does not count in the end.

Where something sound is left, it is called corrupt then, and made anew; the last one is read again each day.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.backends.errors import LocationTrouble
from ccat_data_transfer.verbs.leases import CopyLease
from ccat_data_transfer.verbs.products.plan import listing_beside
from ccat_data_transfer.verbs.products.repairing import archive_lost
from ccat_data_transfer.verbs.replicating import is_on_its_way, replicate
from ccat_ops_db import models
from ccat_ops_db.models.data import UNREADABLE_AFTER
from ccat_ops_db.moves import advance
from ccat_ops_db.states import LocationType, PhysicalCopyStatus
from ccat_ops_db.verbs.reading import note_unreadable
from ccat_service.retries import Backoff

_Copy = models.PhysicalCopy
_AGAIN: Final = Backoff(first=timedelta(hours=1), ceiling=timedelta(days=1))
_COMPARED_WITH: Final = 3


@dataclass(frozen=True)
class Unread:
    """A copy that could not be read."""

    package_id: int | None
    run_id: int | None
    """Run that made it, of a product."""
    trouble: LocationTrouble
    is_alone: bool
    """Whether others can be read at its location."""


def others_at(session: Session, copy: models.PhysicalCopy) -> Sequence[str]:
    """Paths of other files at the location of a copy, those that were read and found right last."""
    return some_at(session, copy.data_location_id, _Copy.id != copy.id)


def some_at(session: Session, location_id: int, *which: sa.ColumnElement[bool]) -> Sequence[str]:
    """Paths of some files at a location, those that were read and found right last.

    Of a product that is a directory that is its listing, which only archives have.
    """
    is_tree = _Copy.path.like("%.zarr")
    sound = sa.and_(
        _Copy.data_location_id == location_id,
        _Copy.raw_data_file_id.is_(None),
        sa.text("physical_copy.status = 'present'"),  # as the index says it
        _Copy.verified_at.is_not(None),
        _Copy.data_transfer_package_id.is_(None),
        sa.or_(sa.not_(is_tree), _Copy.location.has(location_type=LocationType.LONG_TERM_ARCHIVE)),
        *which,
    )
    rows = session.execute(
        sa.select(_Copy.path, models.DataProduct.relative_path)
        .outerjoin(models.DataProduct, sa.and_(models.DataProduct.id == _Copy.data_product_id, is_tree))
        .where(sound)
        .order_by(_Copy.verified_at.desc())
        .limit(_COMPARED_WITH)
    )
    return [path if tree is None else listing_beside(path, tree) for path, tree in rows]


def note_unread(session: Session, *, lease: CopyLease, unread: Unread) -> None:
    """Have a copy read again after a pause, and give the lease back; raises LeaseLost.

    Nothing is held against it where its whole location is in trouble: if that is an archive, nobody relies on it then.
    What a person has to mend only keeps it from counting.
    """
    [copy_id] = lease.held(session)
    copy = session.get_one(_Copy, copy_id, populate_existing=True)
    lease.release(session)
    if not unread.is_alone:
        note_unreadable(session, copy.data_location_id, str(unread.trouble), by=lease.worker.name)
    if copy.status is not PhysicalCopyStatus.PRESENT:
        return
    tries = copy.trouble_count + unread.is_alone
    pause = _AGAIN.delay(max(tries, 1), jitter=random.random())  # noqa: S311 - not a secret
    values = {"trouble_count": tries, "not_before": sa.func.clock_timestamp() + pause, "failure": str(unread.trouble)}
    if tries >= UNREADABLE_AFTER:
        values["verified_at"] = None
    session.execute(sa.update(_Copy).where(_Copy.id == copy_id).values(values))
    if tries >= UNREADABLE_AFTER and not unread.trouble.needs_a_person:
        _give_up(session, copy, unread, by=lease.worker.name)


def make_anew(session: Session, *, package_id: int | None, run_id: int | None, by: str) -> int:
    """Ask for what archives have lost of a package, or of the products of a run; how much was asked for."""
    if package_id is not None:
        return replicate(session, [package_id], by=by)
    return len(archive_lost(session, [run_id])) if run_id is not None else 0


def _give_up(session: Session, copy: models.PhysicalCopy, unread: Unread, *, by: str) -> None:
    """Call a copy corrupt, if another is verified, or it is made anew of raw files; else nothing changes."""
    corrupt, because = PhysicalCopyStatus.CORRUPT, f"it could not be read {UNREADABLE_AFTER} times: {unread.trouble}"
    with session.begin_nested() as trial:
        advance(session, _Copy, [copy.id], to=corrupt, expected=[PhysicalCopyStatus.PRESENT], because=because, by=by)
        asked = make_anew(session, package_id=unread.package_id, run_id=unread.run_id, by=by)
        others = _others_of(session, copy)
        if not any(others) and not _is_made_of_raw_files(session, unread.package_id, asked=asked):
            trial.rollback()


def _is_made_of_raw_files(session: Session, package_id: int | None, *, asked: int) -> bool:
    """Whether a package is made anew, or is to be by now, and all its raw files are where they were taken."""
    if package_id is None or not (asked or is_on_its_way(session, package_id)):
        return False
    file = models.RawDataFile
    is_there = sa.exists().where(_Copy.raw_data_file_id == file.id, _Copy.status == PhysicalCopyStatus.PRESENT)
    lacks = sa.select(file.id).where(file.raw_data_package_id == package_id, sa.not_(is_there))
    return not session.scalar(sa.select(lacks.exists()))


def _others_of(session: Session, copy: models.PhysicalCopy) -> Sequence[bool]:
    """Of each other copy of the same that is there, whether it is verified."""
    is_packed = copy.raw_data_package_id is not None
    noun = _Copy.raw_data_package_id if is_packed else _Copy.data_product_id
    same = noun == (copy.raw_data_package_id if is_packed else copy.data_product_id)
    there = sa.and_(same, _Copy.status == PhysicalCopyStatus.PRESENT, _Copy.id != copy.id)
    return session.scalars(sa.select(_Copy.verified_at.is_not(None)).where(there)).all()
