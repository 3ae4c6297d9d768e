"""What is on its way into the archive and back, how fast it goes, and how long there is room for more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_data_transfer.awaited import Awaited, awaited
from ccat_data_transfer.copy_status import InDoubt, in_doubt
from ccat_data_transfer.levels import Level, levels
from ccat_data_transfer.product_status import ToArchive, ToFetch, to_archive, to_fetch
from ccat_data_transfer.rates import WINDOW, per_hour
from ccat_data_transfer.staging_status import ToStage, to_stage
from ccat_data_transfer.verbs.ways import is_packed, is_straight
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.queries.alike import alike
from ccat_ops_db.queries.damage import DamageAt, damage_by_archive
from ccat_ops_db.queries.lost_packages import CALLED_GONE, IS_GIVEN_UP, IS_LOST, NO_COPY_LEFT
from ccat_ops_db.queries.troubled_transfers import CARRIES
from ccat_ops_db.queries.unplanned import Unplanned, unplanned
from ccat_ops_db.queries.unread import ReadAgain, read_again
from ccat_ops_db.states import (
    LIVE_TRANSFER_STATUSES,
    PackageState,
    Status,
)

_File, _Package, _Archiving, _Moving = (
    models.RawDataFile,
    models.RawDataPackage,
    models.LongTermArchiveTransfer,
    models.DataTransfer,
)


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
    LOST = NO_COPY_LEFT
    GIVEN_UP = CALLED_GONE
    """It failed or was lost, and a person said that it is gone for good."""


_IF_ANY: Final = {Stage.LOST, Stage.GIVEN_UP}
"""They are told of where there is anything."""


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
    troubled: int = 0
    """Packages of which the most frequent is in the way."""
    in_the_way: str | None = None
    """What is in the way most often, of the first of these; numbers and names in those of the others may differ."""


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """A transfer package between sites."""

    id: int
    name: str
    origin: str
    destination: str
    status: Status
    since: datetime
    """When it was put together."""
    packages: int
    arrived: int
    """Raw packages of it that were unpacked."""
    size_bytes: int
    arrived_bytes: int | None
    """Those that were there when its worker looked last; None where none has looked."""
    failure: str | None
    tried_again_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """What went from one location to another of late, as a whole."""

    origin: str
    destination: str
    transfers: int
    """Each of one transfer package."""
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class TransferStatus:
    """How data transfer is now."""

    at: datetime
    stages: Sequence[OnItsWay]
    awaited: Sequence[Awaited]
    """Registered files that wait for their scan."""
    unplanned: Sequence[Unplanned]
    """Registered files that get into no package, and why."""
    crossings: Sequence[Crossing]
    crossed: Sequence[Crossed]
    products: Sequence[ToArchive]
    """Of products whose archiving failed only those that count still."""
    fetched: Sequence[ToFetch]
    """Products on their way to where runs take them, or where they were damaged."""
    staged: Sequence[ToStage]
    """Raw packages on their way to where runs take them, or people look at them."""
    doubtful: Sequence[InDoubt]
    """Copies that are to be read again where they lie, before they count."""
    damage: Sequence[DamageAt]
    """Of archive copies, in a month."""
    levels: Sequence[Level]
    archives: Sequence[ReadAgain]
    """Archives whose copies are read again, and how much of them is overdue."""
    window_hours: float
    """What "of late" means."""
    registered_bytes: int
    """What instruments registered of late."""
    archived_bytes: int
    registered_per_hour: int
    """Since the first of that was registered."""
    archived_per_hour: int
    """Since the first of what was archived of late was there to be archived."""
    archived_last: datetime | None
    """When anything was archived last, ever."""
    backlog_bytes: int
    """What is registered, not archived and not given up."""
    backlog_hours: float | None
    """Until all of that is archived at the rate of late, but for what failed; None where nothing was archived."""


def transfer_status(session: Session) -> TransferStatus:
    """Look at everything that is on its way; what is archived is counted, and not looked at."""
    now: datetime = session.scalars(sa.select(sa.func.clock_timestamp())).one()
    stages = _stages(session)
    owed = [one for one in stages if one.stage not in {Stage.ARCHIVED, Stage.GIVEN_UP}]
    backlog = sum(one.size_bytes for one in owed)
    goes_on = sum(one.size_bytes for one in owed if one.stage not in {Stage.FAILED, Stage.LOST})
    registered, archived = _registered_of_late(session, now), _archived_of_late(session, now)
    archived_per_hour = archived.per_hour(now)
    return TransferStatus(
        at=now,
        stages=stages,
        awaited=awaited(session),
        unplanned=unplanned(session),
        crossings=_crossings(session),
        crossed=_crossed(session, now),
        products=to_archive(session),
        fetched=to_fetch(session),
        staged=to_stage(session),
        doubtful=in_doubt(session),
        damage=damage_by_archive(session),
        levels=levels(session, now),
        archives=read_again(session),
        window_hours=WINDOW / timedelta(hours=1),
        registered_bytes=registered.size_bytes,
        archived_bytes=archived.size_bytes,
        registered_per_hour=registered.per_hour(now),
        archived_per_hour=archived_per_hour,
        archived_last=session.scalar(sa.select(sa.func.max(_Package.archived_at))),
        backlog_bytes=backlog,
        backlog_hours=round(goes_on / archived_per_hour, 1) if archived_per_hour else None,
    )


def _stages(session: Session) -> list[OnItsWay]:
    found = {Stage.REGISTERED: _registered(session), **_packages(session), **_archived(session)}
    found[Stage.GIVEN_UP] = _given_up(session)
    return [
        found.get(stage) or OnItsWay(stage=stage, packages=0, files=0, size_bytes=0, oldest=None)
        for stage in Stage
        if stage not in _IF_ANY or (stage in found and found[stage].packages)
    ]


def _registered(session: Session) -> OnItsWay:
    looked = sa.select(
        sa.func.count(), sa.func.coalesce(sa.func.sum(_File.size_bytes), 0), sa.func.min(_File.created_at)
    ).where(_File.raw_data_package_id.is_(None), _File.lost_at.is_(None))
    files, size, oldest = session.execute(looked).one()
    return OnItsWay(stage=Stage.REGISTERED, packages=None, files=files, size_bytes=int(size), oldest=oldest)


def _packages(session: Session) -> Mapping[Stage, OnItsWay]:
    """Packages that are not archived, by stage."""
    way = _ways()
    troubled = _most_frequent(session, way)
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
    found = dict[Stage, OnItsWay]()
    for stage, packages, files, size, oldest in rows:
        number, failure = troubled.get(stage, (0, None))
        found[Stage(stage)] = OnItsWay(
            stage=Stage(stage),
            packages=packages,
            files=files,
            size_bytes=int(size),
            oldest=oldest,
            troubled=number,
            in_the_way=failure,
        )
    return found


def _ways() -> sa.CTE:
    """Packages that are not archived, each with its stage, and what is in its way."""
    live = aliased(_Moving)
    crosses = sa.exists().where(live.id == _Archiving.data_transfer_id, live.status.in_(LIVE_TRANSFER_STATUSES))
    stage = sa.case(
        (_Package.state == PackageState.FAILED, Stage.FAILED),
        (sa.not_(is_packed()), Stage.TO_PACK),
        (crosses.correlate(_Archiving), Stage.CROSSING),
        (is_straight(), Stage.TO_ARCHIVE),
        else_=Stage.TO_SEND,
    )
    failure = sa.func.coalesce(_Package.failure, sa.func.min(sa.func.coalesce(_Moving.failure, _Archiving.failure)))
    return (
        sa.select(_Package.id, sa.func.min(stage).label("stage"), failure.label("failure"))
        .join(_Archiving, _Archiving.raw_data_package_id == _Package.id)
        .outerjoin(_Moving, CARRIES)
        .where(_Package.state != PackageState.ARCHIVED, _Archiving.status != Status.CANCELLED)
        .where(_Package.given_up_at.is_(None))
        .group_by(_Package.id)
        .cte()
    )


def _most_frequent(session: Session, way: sa.CTE) -> Mapping[str, tuple[int, str]]:
    """Stage → what is in the way of most of its packages, and of how many; those alike differ in numbers and names."""
    number = sa.func.count()
    rows = session.execute(
        sa.select(way.c.stage, number, sa.func.min(way.c.failure))
        .where(way.c.failure.is_not(None))
        .group_by(way.c.stage, alike(way.c.failure))
        .order_by(number)
    )
    return {stage: (packages, failure) for stage, packages, failure in rows}


def _archived(session: Session) -> Mapping[Stage, OnItsWay]:
    """Packages that are archived, and those of which no copy is left, but for what was given up of these."""
    number, size = sa.func.count(), sa.func.sum(_Package.size_bytes)
    packages, there = session.execute(sa.select(number, size).where(_Package.state == PackageState.ARCHIVED)).one()
    owed = _Package.given_up_at.is_(None)
    told = sa.select(number, size, number.filter(owed), size.filter(owed)).where(IS_LOST)
    lost, gone, lost_and_owed, gone_and_owed = session.execute(told).one()
    left = int(there or 0) - int(gone or 0)
    archived = OnItsWay(stage=Stage.ARCHIVED, packages=packages - lost, files=0, size_bytes=left, oldest=None)
    missed, missed_size = lost_and_owed, int(gone_and_owed or 0)
    return {
        Stage.ARCHIVED: archived,
        Stage.LOST: OnItsWay(stage=Stage.LOST, packages=missed, files=0, size_bytes=missed_size, oldest=None),
    }


def _given_up(session: Session) -> OnItsWay:
    """Packages that a person said are gone for good."""
    told = (sa.func.count(sa.distinct(_Package.id)), sa.func.count(_File.id), sa.func.sum(_File.size_bytes))
    looked = sa.select(*told, sa.func.min(_File.created_at)).join(_File, _File.raw_data_package_id == _Package.id)
    packages, files, size, oldest = session.execute(looked.where(IS_GIVEN_UP)).one()
    return OnItsWay(stage=Stage.GIVEN_UP, packages=packages, files=files, size_bytes=int(size or 0), oldest=oldest)


@dataclass(frozen=True)
class _OfLate:
    size_bytes: int
    since: datetime | None
    """When the first of it came."""

    def per_hour(self, now: datetime) -> int:
        return per_hour(self.size_bytes, self.since, now=now)


def _registered_of_late(session: Session, now: datetime) -> _OfLate:
    looked = sa.select(sa.func.sum(_File.size_bytes), sa.func.min(_File.created_at))
    size, since = session.execute(looked.where(_File.created_at > now - WINDOW)).one()
    return _OfLate(int(size or 0), since)


def _archived_of_late(session: Session, now: datetime) -> _OfLate:
    """It comes when it becomes a package: from then on it can be archived."""
    looked = sa.select(sa.func.sum(_Package.size_bytes), sa.func.min(_Package.created_at))
    size, since = session.execute(looked.where(_Package.archived_at > now - WINDOW)).one()
    return _OfLate(int(size or 0), since)


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
            since=one.created_at,
            packages=packages,
            arrived=arrived,
            size_bytes=parcel.size_bytes or 0,
            arrived_bytes=_arrived(parcel.size_bytes or 0, one.missing_bytes),
            failure=one.failure,
            tried_again_at=one.not_before if one.status is Status.PENDING else None,
        )
        for one, parcel, packages, arrived in rows
    ]


def _arrived(size: int, missing: int | None) -> int | None:
    return None if missing is None else max(size - missing, 0)


def _crossed(session: Session, now: datetime) -> list[Crossed]:
    """Transfers that were completed of late, whenever they began."""
    parcel, change, ends = models.DataTransferPackage, models.StatusChange, (_Moving.origin_id, _Moving.destination_id)
    rows = session.execute(
        sa.select(*ends, sa.func.count(), sa.func.sum(parcel.size_bytes))
        .join(parcel, parcel.id == _Moving.data_transfer_package_id)
        .join(change, sa.and_(change.noun == _Moving.__tablename__, change.object_id == _Moving.id))
        .where(_Moving.status == Status.COMPLETED, change.to_status == Status.COMPLETED, change.at > now - WINDOW)
        .group_by(*ends)
        .order_by(*ends)
    ).all()
    names = _location_names(session)
    return [
        Crossed(origin=names[origin], destination=names[destination], transfers=number, size_bytes=int(size or 0))
        for origin, destination, number, size in rows
    ]


def _location_names(session: Session) -> Mapping[int, str]:
    return dict(session.execute(LOCATION.rows.with_only_columns(models.DataLocation.id, LOCATION.label)).all())
