import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_data_transfer.errors import NotFailed, UnknownPackage
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus, Status

_LOST = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)


def retry_package(session: Session, package_id: int, *, by: str) -> None:
    """Send a FAILED package on its way again, believing that its raw files were restored; packing verifies them.

    Raises UnknownPackage or NotFailed.
    """
    because = "a retry was asked for"
    ids, values = [package_id], {"failure": None}
    to = PackageState.WAITING
    if not advance(session, models.RawDataPackage, ids, to=to, because=because, by=by, values=values):
        package = session.get(models.RawDataPackage, package_id)
        raise UnknownPackage(package_id) if package is None else NotFailed(package.name, package.state)
    _believe_restored(session, package_id, by=by)
    failed = session.scalars(
        sa.select(models.LongTermArchiveTransfer.id).where(
            models.LongTermArchiveTransfer.raw_data_package_id == package_id,
            models.LongTermArchiveTransfer.status == Status.FAILED,
        )
    ).all()
    anew = {"failure": None, "retry_count": 0, "not_before": None}
    advance(session, models.LongTermArchiveTransfer, failed, to=Status.PENDING, because=because, by=by, values=anew)


def _believe_restored(session: Session, package_id: int, *, by: str) -> None:
    """New rows for the copies of raw files that were CORRUPT or MISSING at their source."""
    copy = models.RawDataFilePhysicalCopy
    lost = session.scalars(
        sa.select(copy)
        .join(models.RawDataFile, models.RawDataFile.id == copy.raw_data_file_id)
        .join(copy.location)
        .where(
            models.RawDataFile.raw_data_package_id == package_id,
            models.DataLocation.location_type == LocationType.SOURCE,
            copy.status.in_(_LOST),
        )
    ).all()
    if not lost:
        return
    same = ("type", "raw_data_file_id", "data_location_id", "path", "size_bytes")
    rows = [{column: getattr(one, column) for column in same} for one in lost]
    because = "said to be restored"
    closed = [one.id for one in lost]
    advance(session, models.PhysicalCopy, closed, to=PhysicalCopyStatus.DELETED, because=because, by=by)
    made = session.scalars(insert(models.PhysicalCopy).returning(models.PhysicalCopy.id), rows).all()
    advance(session, models.PhysicalCopy, made, to=PhysicalCopyStatus.PRESENT, because=because, by=by)
