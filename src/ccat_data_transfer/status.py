"""What is on its way into the archive and back, how fast it goes, and how long there is room for more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_data_transfer.copy_status import InDoubt, in_doubt
from ccat_data_transfer.product_status import ToArchive, ToFetch, to_archive, to_fetch
from ccat_data_transfer.verbs.ways import is_packed, is_straight
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.states import (
    LIVE_TRANSFER_STATUSES,
    LocationType,
    PackageState,
    PhysicalCopyStatus,
    Status,
    StorageType,
)

_File, _Package, _Archiving, _Moving, _Copy, _Location = (
    models.RawDataFile,
    models.RawDataPackage,
    models.LongTermArchiveTransfer,
    models.DataTransfer,
    models.PhysicalCopy,
    models.DataLocation,
)
_WINDOW: Final = timedelta(hours=6)
"""Over which rates are taken."""


class Stage(StrEnum):
    """Where on its way a raw package is."""

    REGISTERED = "registered"
    """Its files are not put into a package yet."""
    TO_PACK = "to pack"
    TO_SEND = "to send"
    CROSSING = "crossing"
    TO_ARCHIVE = "to archive"
    FAILED = "failed"
    ARCHIVED = "archived"


@dataclass(frozen=True, kw_only=True)
class OnItsWay:
    """What is at one stage."""

    stage: Stage
    packages: int | None
    """None where there are no packages yet."""
    files: int
    size_bytes: int
    oldest: datetime | None
    """When the first file of it was registered."""


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """A transfer package between sites."""

    id: int
    name: str
    origin: str
    destination: str
    status: Status
    packages: int
    arrived: int
    """Raw packages of it that were unpacked."""
    size_bytes: int
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """What went from one location to another of late, as a whole."""

    origin: str
    destination: str
    transfers: int
    """Each of one transfer package."""
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Level:
    """A location, and what is free there."""

    location: str
    type: LocationType
    kept_bytes: int | None
    """What is there of ours; of an object store only, which does not tell how full it is."""
    free_bytes: int | None
    total_bytes: int | None
    filled_per_hour: int | None
    """Bytes an hour by which it fills, of late; a SOURCE only."""
    hours_left: float | None
    """Until it is full at that rate; None where it is not filling."""


@dataclass(frozen=True, kw_only=True)
class TransferStatus:
    """How data transfer is now."""

    at: datetime
    stages: Sequence[OnItsWay]
    crossings: Sequence[Crossing]
    crossed: Sequence[Crossed]
    products: Sequence[ToArchive]
    """Of products whose archiving failed only those that count still."""
    fetched: Sequence[ToFetch]
    """Products on their way to where runs take them, or where they were damaged."""
    doubtful: Sequence[InDoubt]
    """Copies that are to be read again where they lie, before they count."""
    levels: Sequence[Level]
    window_hours: float
    """What "of late" means."""
    registered_bytes: int
    """What instruments registered of late."""
    archived_bytes: int
    registered_per_hour: int
    archived_per_hour: int
    backlog_bytes: int
    """What is registered and not archived."""
    backlog_hours: float | None
    """Until all of that is archived at the rate of late; None where nothing was archived of late."""


def transfer_status(session: Session) -> TransferStatus:
    """Look at everything that is on its way; what is archived is counted, and not looked at."""
    now: datetime = session.scalars(sa.select(sa.func.clock_timestamp())).one()
    stages = _stages(session)
    backlog = sum(one.size_bytes for one in stages if one.stage is not Stage.ARCHIVED)
    registered, archived = _of_late(session, now)
    archived_per_hour = _per_hour(archived)
    return TransferStatus(
        at=now,
        stages=stages,
        crossings=_crossings(session),
        crossed=_crossed(session, now),
        products=to_archive(session),
        fetched=to_fetch(session),
        doubtful=in_doubt(session),
        levels=_levels(session, now),
        window_hours=_WINDOW / timedelta(hours=1),
        registered_bytes=registered,
        archived_bytes=archived,
        registered_per_hour=_per_hour(registered),
        archived_per_hour=archived_per_hour,
        backlog_bytes=backlog,
        backlog_hours=round(backlog / archived_per_hour, 1) if archived_per_hour else None,
    )


def hours_until_full(free: int | None, filled_per_hour: int | None) -> float | None:
    """How long there is room; None where that is not known, or nothing fills it."""
    return round(free / filled_per_hour, 1) if free is not None and filled_per_hour and filled_per_hour > 0 else None


def _stages(session: Session) -> list[OnItsWay]:
    found = {Stage.REGISTERED: _registered(session), **_packages(session), Stage.ARCHIVED: _archived(session)}
    return [
        found.get(stage) or OnItsWay(stage=stage, packages=0, files=0, size_bytes=0, oldest=None) for stage in Stage
    ]


def _registered(session: Session) -> OnItsWay:
    looked = sa.select(
        sa.func.count(), sa.func.coalesce(sa.func.sum(_File.size_bytes), 0), sa.func.min(_File.created_at)
    ).where(_File.raw_data_package_id.is_(None))
    files, size, oldest = session.execute(looked).one()
    return OnItsWay(stage=Stage.REGISTERED, packages=None, files=files, size_bytes=int(size), oldest=oldest)


def _packages(session: Session) -> Mapping[Stage, OnItsWay]:
    """Packages that are not archived, by stage."""
    live = aliased(_Moving)
    crosses = sa.exists().where(live.id == _Archiving.data_transfer_id, live.status.in_(LIVE_TRANSFER_STATUSES))
    stage = sa.case(
        (_Package.state == PackageState.FAILED, Stage.FAILED),
        (sa.not_(is_packed()), Stage.TO_PACK),
        (crosses.correlate(_Archiving), Stage.CROSSING),
        (is_straight(), Stage.TO_ARCHIVE),
        else_=Stage.TO_SEND,
    )
    way = (
        sa.select(_Package.id, sa.func.min(stage).label("stage"))
        .join(_Archiving, _Archiving.raw_data_package_id == _Package.id)
        .where(_Package.state != PackageState.ARCHIVED, _Archiving.status != Status.CANCELLED)
        .group_by(_Package.id)
        .subquery()
    )
    rows = session.execute(
        sa.select(
            way.c.stage,
            sa.func.count(sa.distinct(way.c.id)),
            sa.func.count(_File.id),
            sa.func.coalesce(sa.func.sum(_File.size_bytes), 0),
            sa.func.min(_File.created_at),
        )
        .join(_File, _File.raw_data_package_id == way.c.id)
        .group_by(way.c.stage)
    )
    return {
        Stage(stage): OnItsWay(stage=Stage(stage), packages=packages, files=files, size_bytes=int(size), oldest=oldest)
        for stage, packages, files, size, oldest in rows
    }


def _archived(session: Session) -> OnItsWay:
    looked = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_Package.size_bytes), 0)).where(
        _Package.state == PackageState.ARCHIVED
    )
    packages, size = session.execute(looked).one()
    return OnItsWay(stage=Stage.ARCHIVED, packages=packages, files=0, size_bytes=int(size or 0), oldest=None)


def _of_late(session: Session, now: datetime) -> tuple[int, int]:
    """Bytes that were registered, and that were archived."""
    since = now - _WINDOW
    registered = sa.select(sa.func.sum(_File.size_bytes)).where(_File.created_at > since)
    archived = sa.select(sa.func.sum(_Package.size_bytes)).where(_Package.archived_at > since)
    return int(session.scalar(registered) or 0), int(session.scalar(archived) or 0)


def _per_hour(size: int) -> int:
    return round(size / (_WINDOW / timedelta(hours=1)))


def _crossings(session: Session) -> list[Crossing]:
    there = sa.func.count(_Archiving.id).filter(_Archiving.origin_id == _Moving.destination_id)
    rows = session.execute(
        sa.select(_Moving, models.DataTransferPackage, sa.func.count(_Archiving.id), there)
        .join(models.DataTransferPackage, models.DataTransferPackage.id == _Moving.data_transfer_package_id)
        .outerjoin(_Archiving, _Archiving.data_transfer_id == _Moving.id)
        .where(_Moving.status.in_([*LIVE_TRANSFER_STATUSES, Status.FAILED]))
        .group_by(_Moving.id, models.DataTransferPackage.id)
        .order_by(_Moving.id)
    ).all()
    names = _location_names(session)
    return [
        Crossing(
            id=one.id,
            name=parcel.name,
            origin=names[one.origin_id],
            destination=names[one.destination_id],
            status=one.status,
            packages=packages,
            arrived=arrived,
            size_bytes=parcel.size_bytes or 0,
            failure=one.failure,
        )
        for one, parcel, packages, arrived in rows
    ]


def _crossed(session: Session, now: datetime) -> list[Crossed]:
    parcel, ends = models.DataTransferPackage, (_Moving.origin_id, _Moving.destination_id)
    rows = session.execute(
        sa.select(*ends, sa.func.count(), sa.func.sum(parcel.size_bytes))
        .join(parcel, parcel.id == _Moving.data_transfer_package_id)
        .where(_Moving.status == Status.COMPLETED, _Moving.created_at > now - _WINDOW)
        .group_by(*ends)
        .order_by(*ends)
    ).all()
    names = _location_names(session)
    return [
        Crossed(origin=names[origin], destination=names[destination], transfers=number, size_bytes=int(size or 0))
        for origin, destination, number, size in rows
    ]


def _location_names(session: Session) -> Mapping[int, str]:
    return dict(session.execute(LOCATION.rows.with_only_columns(_Location.id, LOCATION.label)).all())


def _levels(session: Session, now: datetime) -> list[Level]:
    filled, kept = _filled(session, now), _kept(session)
    rows = session.execute(LOCATION.rows.add_columns(LOCATION.label).order_by(LOCATION.label))
    return [
        Level(
            location=name,
            type=one.location_type,
            kept_bytes=kept.get(one.id, 0) if one.storage_type is StorageType.S3 else None,
            free_bytes=one.free_bytes,
            total_bytes=one.total_bytes,
            filled_per_hour=filled.get(one.id) if one.location_type is LocationType.SOURCE else None,
            hours_left=hours_until_full(one.free_bytes, filled.get(one.id)),
        )
        for one, name in rows
    ]


def _kept(session: Session) -> Mapping[int, int]:
    """Bytes that are in object stores, by location."""
    there = _Copy.status != PhysicalCopyStatus.DELETED
    of_copies = sa.select(_Copy.data_location_id, sa.func.coalesce(sa.func.sum(_Copy.size_bytes), 0))
    stores = of_copies.join(_Location, _Location.id == _Copy.data_location_id).where(there)
    rows = session.execute(stores.where(_Location.storage_type == StorageType.S3).group_by(_Copy.data_location_id))
    return {place: int(total or 0) for place, total in rows}


def _filled(session: Session, now: datetime) -> Mapping[int, int]:
    """Bytes an hour that came to SOURCE locations of late, less what was deleted there; by location."""
    since, change = now - _WINDOW, models.StatusChange
    size = sa.func.coalesce(sa.func.sum(_File.size_bytes), 0)
    of_file = sa.select(_Copy.data_location_id, size).join(_File, _File.id == _Copy.raw_data_file_id)
    came = of_file.where(_Copy.created_at > since).group_by(_Copy.data_location_id)
    deleted = (
        of_file.join(change, sa.and_(change.noun == _Copy.__tablename__, change.object_id == _Copy.id))
        .where(change.to_status == PhysicalCopyStatus.DELETED, change.at > since)
        .group_by(_Copy.data_location_id)
    )
    went = {place: int(total) for place, total in session.execute(deleted)}
    return {place: _per_hour(int(total) - went.get(place, 0)) for place, total in session.execute(came)}
