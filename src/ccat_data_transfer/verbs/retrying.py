from collections.abc import Collection
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_data_transfer.errors import NothingToRetry, TransferGoesOn, UnknownTransfer
from ccat_data_transfer.verbs.copies import NOBODYS
from ccat_data_transfer.verbs.doubting import read_soon
from ccat_data_transfer.verbs.replicating import has_sound_copy
from ccat_data_transfer.verbs.unmade import lost_as_before
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.packages import UnknownPackage
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, LocationType, PackageState, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.hurrying import end_pauses_of
from ccat_ops_db.verbs.staging import retry_runs_of

LOST: Final = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)
"""What copies are that were found bad."""
_SAME: Final = (
    "type",
    "raw_data_file_id",
    "raw_data_package_id",
    "data_product_id",
    "data_location_id",
    "path",
    "size_bytes",
    "checksum",
)
"""What a restored copy has of the one that was lost."""
_Archiving: Final = models.LongTermArchiveTransfer
ANEW: Final = {
    "failure": None,
    "retry_count": 0,
    "trouble_count": 0,
    "trouble_kept": 0,
    "not_before": None,
    "doubts_since": None,
}
"""What a transfer has that is taken up as if it had never been tried."""
_DIGITS: Final = 18
"""Of any number that a row can have."""
_ASKED: Final = "a retry was asked for"


def retry_package(session: Session, package_id: int, *, by: str) -> None:
    """Take a package up again whose files were restored; whoever reads them next verifies them.

    A FAILED one is sent on its way to the archive again. Of one that is ARCHIVED the lost archive copies are believed
    again, runs that failed for want of them are tried again, and so are further archive copies that could not be made.
    Where no archive has it any more, its raw files are believed too: either may be what was restored. What waits after
    trouble goes on at once. What was given up is not any more.
    Raises UnknownPackage or NothingToRetry.
    """
    if retry_failed(session, [package_id], by=by):
        return
    package = session.get(models.RawDataPackage, package_id)
    if package is None:
        raise UnknownPackage(package_id)
    if package.state is not PackageState.ARCHIVED:
        if not end_pauses_of(session, package_id):
            raise NothingToRetry(package.name, package.state)
        return
    has_another = has_sound_copy(session, package_id)
    if not has_another:  # else what was begun anew is gone on with: nobody has to have restored it
        lost_as_before(session, models.PhysicalCopy.raw_data_package_id == package_id, by=by)
        believe(session, _lost_raw_files([package_id]), by=by)
    believed = believe(session, _lost_archive_copies(package_id, has_another=has_another), by=by)
    _take_back_believed(session, package_id, by=by)
    begun = _begin_anew(session, [package_id], by=by) + end_pauses_of(session, package_id)
    if not believed and not begun:
        raise NothingToRetry(package.name, package.state)
    package.given_up_at = package.given_up_because = None
    if believed:
        retry_runs_of(session, package_id)


def retry_failed(session: Session, package_ids: Collection[int], *, by: str) -> list[int]:
    """Send those of some packages that are FAILED on their way to the archive again, and return their ids.

    What they cross in with others takes up these too. Lost raw files are believed to be there again.
    """
    to, values = PackageState.WAITING, {"failure": None}
    packages = advance(session, models.RawDataPackage, package_ids, to=to, because=_ASKED, by=by, values=values)
    believe(session, _lost_raw_files(packages), by=by)
    _begin_anew(session, packages, by=by)
    return packages


def find_transfer(session: Session, name: str) -> int:
    """Number of a transfer between sites that is said by it, or by the transfer package that it brings or last brought.

    Raises UnknownTransfer.
    """
    if name.isascii() and name.isdigit() and len(name) <= _DIGITS:
        return int(name)
    trip, parcel = models.DataTransfer, models.DataTransferPackage
    bringing = sa.select(sa.func.max(trip.id)).join(parcel, parcel.id == trip.data_transfer_package_id)
    number = session.scalar(bringing.where(parcel.name == name))
    if number is None:
        raise UnknownTransfer(name)
    return number


def retry_transfer(session: Session, transfer_id: int, *, by: str) -> int:
    """Take a data transfer up again that has failed, and what it carries; how many raw packages that is.

    What was brought before is not brought again. Raises UnknownTransfer or TransferGoesOn.
    """
    noun = models.DataTransfer
    if not advance(session, noun, [transfer_id], to=Status.PENDING, because=_ASKED, by=by, values=ANEW):
        found = session.get(noun, transfer_id)
        raise TransferGoesOn(transfer_id, found.status) if found else UnknownTransfer(transfer_id)
    carried = sa.select(_Archiving.raw_data_package_id).where(
        _Archiving.data_transfer_id == transfer_id, _Archiving.status.in_(LIVE_TRANSFER_STATUSES)
    )
    packages, values = session.scalars(carried).all(), {"failure": None}
    to = PackageState.TRANSFERRING
    failed = [PackageState.FAILED]
    advance(session, models.RawDataPackage, packages, to=to, expected=failed, because=_ASKED, by=by, values=values)
    return len(set(packages))


def _begin_anew(session: Session, package_ids: Collection[int], *, by: str) -> int:
    """Take up what failed on the way of packages into archives; how many transfers that are."""
    of_packages = is_among(_Archiving.raw_data_package_id, package_ids)
    failed = session.scalars(sa.select(_Archiving.id).where(of_packages, _Archiving.status == Status.FAILED)).all()
    advance(session, _Archiving, failed, to=Status.PENDING, because=_ASKED, by=by, values=ANEW)
    on_failed_trips = (
        sa.select(models.DataTransfer.id)
        .join(_Archiving, _Archiving.data_transfer_id == models.DataTransfer.id)
        .where(of_packages, models.DataTransfer.status == Status.FAILED)
    )
    trips = set(session.scalars(on_failed_trips))
    for transfer_id in sorted(trips):
        retry_transfer(session, transfer_id, by=by)
    return len(failed) + len(trips)


def _lost_raw_files(package_ids: Collection[int]) -> sa.Select[models.PhysicalCopy]:
    copy = models.PhysicalCopy
    return (
        sa.select(copy)
        .join(models.RawDataFile, models.RawDataFile.id == copy.raw_data_file_id)
        .join(copy.location)
        .where(
            is_among(models.RawDataFile.raw_data_package_id, package_ids),
            models.DataLocation.location_type == LocationType.SOURCE,
            copy.status.in_(LOST),
        )
    )


def _take_back_believed(session: Session, package_id: int, *, by: str) -> None:
    """Cancel what was to make copies anew that are believed: it is asked for again if they are found bad."""
    copy = models.PhysicalCopy
    is_there = sa.exists().where(
        copy.raw_data_package_id == package_id,
        copy.data_location_id == _Archiving.destination_id,
        copy.status == PhysicalCopyStatus.PRESENT,
    )
    failed = sa.and_(_Archiving.raw_data_package_id == package_id, _Archiving.status == Status.FAILED)
    ways, because = session.scalars(sa.select(_Archiving.id).where(failed, is_there)).all(), "its copy is there again"
    for to in (Status.PENDING, Status.CANCELLED):
        advance(session, _Archiving, ways, to=to, because=because, by=by)


def _lost_archive_copies(package_id: int, *, has_another: bool) -> sa.Select[models.PhysicalCopy]:
    """Those that may have been restored: none at an archive that is lost, until it is used again.

    Where there is another, what could not be made anew is made of that now.
    """
    copy = models.PhysicalCopy
    could_not_be_made = sa.exists().where(
        _Archiving.raw_data_package_id == package_id,
        _Archiving.destination_id == copy.data_location_id,
        _Archiving.status == Status.FAILED,
    )
    return (
        sa.select(copy)
        .join(copy.location)
        .where(
            copy.raw_data_package_id == package_id,
            models.DataLocation.location_type == LocationType.LONG_TERM_ARCHIVE,
            copy.status.in_(LOST),
            models.DataLocation.lost_at.is_(None),
            *([sa.not_(could_not_be_made)] if has_another else []),
        )
    )


def believe(session: Session, lost: sa.Select[models.PhysicalCopy], *, by: str) -> int:
    """New rows for copies that were CORRUPT or MISSING; how many there are."""
    found = session.scalars(lost).all()
    if not found:
        return 0
    because = "said to be restored"
    rows = [{column: getattr(one, column) for column in _SAME} | _doubted(one, because) for one in found]
    closed = [one.id for one in found]
    gone = PhysicalCopyStatus.DELETED
    advance(session, models.PhysicalCopy, closed, to=gone, because=because, by=by, values=NOBODYS)
    read_soon(session, {one.data_location_id for one in found})
    made = session.scalars(insert(models.PhysicalCopy).returning(models.PhysicalCopy.id), rows).all()
    advance(session, models.PhysicalCopy, made, to=PhysicalCopyStatus.PRESENT, because=because, by=by)
    return len(made)


def _doubted(copy: models.PhysicalCopy, because: str) -> dict[str, str | None]:
    """Why a copy is to be read before it is sent; raw files are read again by nobody before they are packed."""
    return {"failure": f"It is {because}." if copy.raw_data_file_id is None else None}
