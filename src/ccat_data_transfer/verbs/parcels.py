"""What a data transfer carries: the raw packages that have not arrived yet, and the directory that they arrive in."""

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from ccat_data_transfer.routing import parcel_path
from ccat_data_transfer.verbs.copies import NOBODYS
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PhysicalCopyStatus

_Archiving, _Transfer = models.LongTermArchiveTransfer, models.DataTransfer
_Copy = models.DataTransferPackagePhysicalCopy
_USELESS = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A raw package on its way."""

    archive_transfer_id: int
    package_id: int
    name: str
    path: str
    """Path of its tar at the origin."""
    size_bytes: int
    checksum: str
    copy_id: int
    """Its copy at the origin."""


def carried(session: Session, transfer: models.DataTransfer) -> list[Carried]:
    """What has not arrived yet and is sound where it comes from; what is not sound is left behind, to be made anew."""
    package, copy = models.RawDataPackage, aliased(models.PhysicalCopy)
    on_it = sa.and_(
        _Archiving.data_transfer_id == transfer.id,
        _Archiving.origin_id == transfer.origin_id,
        _Archiving.status.in_(LIVE_TRANSFER_STATUSES),
    )
    is_sound = sa.exists().where(
        copy.raw_data_package_id == _Archiving.raw_data_package_id,
        copy.data_location_id == _Archiving.origin_id,
        copy.status == PhysicalCopyStatus.PRESENT,
    )
    _take_out(session, transfer, session.scalars(sa.select(_Archiving.id).where(on_it, sa.not_(is_sound))).all())
    rows = session.execute(
        sa.select(_Archiving.id, package.id, package.name, copy.path, package.size_bytes, package.checksum, copy.id)
        .join(package, package.id == _Archiving.raw_data_package_id)
        .join(copy, sa.and_(copy.raw_data_package_id == package.id, copy.data_location_id == _Archiving.origin_id))
        .where(on_it, copy.status == PhysicalCopyStatus.PRESENT)
        .order_by(package.id, _Archiving.id)
    )
    return [
        Carried(
            archive_transfer_id=transfer_id,
            package_id=package_id,
            name=name,
            path=path,
            size_bytes=size or 0,
            checksum=checksum or "",
            copy_id=copy_id,
        )
        for transfer_id, package_id, name, path, size, checksum, copy_id in rows
    ]


def leave_behind(session: Session, transfer: models.DataTransfer, members: Collection[Carried]) -> None:
    """Take raw packages out of their transfer package: they travel with a later one."""
    _take_out(session, transfer, [one.archive_transfer_id for one in members])


def turn_back(session: Session, transfer: models.DataTransfer) -> None:
    """Take all that has not arrived out of a transfer package that goes nowhere."""
    live = _Archiving.status.in_(LIVE_TRANSFER_STATUSES)
    on_it = sa.select(_Archiving.id).where(_Archiving.data_transfer_id == transfer.id, live)
    _take_out(session, transfer, session.scalars(on_it).all())


def _take_out(session: Session, transfer: models.DataTransfer, ids: Collection[int]) -> None:
    """A package is said to have crossed in what it came with."""
    package = models.RawDataPackage
    out = sa.update(_Archiving).where(is_among(_Archiving.id, ids)).values(data_transfer_id=None)
    packages = session.scalars(out.returning(_Archiving.raw_data_package_id)).all()
    in_it = sa.and_(
        is_among(package.id, packages), package.data_transfer_package_id == transfer.data_transfer_package_id
    )
    session.execute(sa.update(package).where(in_it).values(data_transfer_package_id=None))


def arrival(session: Session, transfer: models.DataTransfer) -> _Copy | None:
    """The copy of a transfer package where it goes to, that is not DELETED."""
    return session.scalars(
        sa.select(_Copy)
        .where(
            _Copy.data_transfer_package_id == transfer.data_transfer_package_id,
            _Copy.data_location_id == transfer.destination_id,
            _Copy.status != PhysicalCopyStatus.DELETED,
        )
        .execution_options(populate_existing=True)
    ).one_or_none()


def announce_arrival(session: Session, transfer: models.DataTransfer, name: str, *, by: str) -> int:
    """Row, WRITING, of the copy that arrives; one before it that was bad is closed."""
    copy = arrival(session, transfer)
    if copy is not None and copy.status in _USELESS:
        closed = [copy.id]
        because = "what was bad of it is sent again"
        gone = PhysicalCopyStatus.DELETED
        advance(session, models.PhysicalCopy, closed, to=gone, because=because, by=by, values=NOBODYS)
        copy = None
    if copy is not None:
        return copy.id
    row = {
        "type": "data_transfer_package",
        "data_transfer_package_id": transfer.data_transfer_package_id,
        "data_location_id": transfer.destination_id,
        "path": parcel_path(name),
    }
    return session.scalars(insert(_Copy).values(row).returning(_Copy.id)).one()


def has_arrived() -> sa.ColumnElement[bool]:
    """Condition on data transfers: all is where it goes to, and is to be unpacked."""
    copy = aliased(models.PhysicalCopy)
    return sa.exists().where(
        copy.data_transfer_package_id == _Transfer.data_transfer_package_id,
        copy.data_location_id == _Transfer.destination_id,
        copy.status == PhysicalCopyStatus.PRESENT,
    )
