"""How full each location is, as its workers saw it last, and how long each source has room at the rate of late."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session

from ccat_data_transfer.rates import SHORT, WINDOW, hours_until_full, worse_per_hour
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.plan.spaces import SpaceState, space_state
from ccat_ops_db.states import LocationType, PhysicalCopyStatus, StorageType

_File, _Copy = models.RawDataFile, models.PhysicalCopy
_Location = models.DataLocation


@dataclass(frozen=True, kw_only=True)
class Level:
    """A location, and what is free there."""

    location: str
    type: LocationType
    state: SpaceState | None
    """UNKNOWN where no worker has looked for minutes; None of an object store, at which none looks."""
    seen_at: datetime | None
    """When a worker looked last, which is what `free_bytes` are of."""
    kept_bytes: int | None
    """What is there of ours; of an object store only, which does not tell how full it is."""
    free_bytes: int | None
    total_bytes: int | None
    filled_per_hour: int | None
    """Bytes an hour by which it fills, of late; a SOURCE only."""
    hours_left: float | None
    """Until it is full at that rate; None where it is not filling, or where nobody knows what is free now."""


def levels(session: Session, now: datetime) -> list[Level]:
    """Every location, by its name."""
    filled, kept = _filled(session, now), _kept(session)
    rows = session.execute(LOCATION.rows.add_columns(LOCATION.label).order_by(LOCATION.label))
    return [_level(one, name, filled.get(one.id), kept=kept.get(one.id, 0), now=now) for one, name in rows]


def _level(one: _Location, name: str, filled: int | None, *, kept: int, now: datetime) -> Level:
    is_store = one.storage_type is StorageType.S3
    reserve, seen_at = one.free_space_reserve_bytes, one.space_checked_at
    stands = one.location_type is not LocationType.PROCESSING
    state = space_state(
        one.free_bytes, reserve=reserve, checked_at=seen_at, now=now, trouble=one.trouble, stands=stands
    )
    is_known = state is not SpaceState.UNKNOWN
    return Level(
        location=name,
        type=one.location_type,
        state=None if is_store else state,
        seen_at=seen_at,
        kept_bytes=kept if is_store else None,
        free_bytes=one.free_bytes,
        total_bytes=one.total_bytes,
        filled_per_hour=filled,
        hours_left=hours_until_full(one.free_bytes, filled) if is_known else None,
    )


def _kept(session: Session) -> Mapping[int, int]:
    """Bytes that are in object stores, by location."""
    there = _Copy.status != PhysicalCopyStatus.DELETED
    of_copies = sa.select(_Copy.data_location_id, sa.func.coalesce(sa.func.sum(_Copy.size_bytes), 0))
    stores = of_copies.join(_Location, _Location.id == _Copy.data_location_id).where(there)
    rows = session.execute(stores.where(_Location.storage_type == StorageType.S3).group_by(_Copy.data_location_id))
    return {place: int(total or 0) for place, total in rows}


def _filled(session: Session, now: datetime) -> Mapping[int, int]:
    """Bytes an hour that come to SOURCE locations, less what is deleted there, since the first of late; by location."""
    came = (
        sa.select(_Copy.data_location_id.label("place"), sa.func.min(_Copy.created_at).label("since"))
        .add_columns(*_sizes(_Copy.created_at, now))
        .join(_File, _File.id == _Copy.raw_data_file_id)
        .join(_Location, _Location.id == _Copy.data_location_id)
        .where(_Location.location_type == LocationType.SOURCE, _Copy.created_at > now - WINDOW)
        .group_by(_Copy.data_location_id)
        .cte("came")
    )
    change = models.StatusChange
    of_copy = sa.and_(change.noun == _Copy.__tablename__, change.object_id == _Copy.id)
    went = (
        sa.select(_Copy.data_location_id.label("place"), *_sizes(change.at, now))
        .join(_File, _File.id == _Copy.raw_data_file_id)
        .join(change, of_copy)
        .join(came, came.c.place == _Copy.data_location_id)
        .where(change.to_status == PhysicalCopyStatus.DELETED, change.at > now - WINDOW, change.at >= came.c.since)
        .group_by(_Copy.data_location_id)
    )
    gone = {one.place: one for one in session.execute(went)}
    return {
        one.place: worse_per_hour(*_less(one, gone.get(one.place)), one.since, now=now)
        for one in session.execute(sa.select(came))
    }


def _less(came: sa.Row[*tuple[Any, ...]], gone: sa.Row[*tuple[Any, ...]] | None) -> tuple[int, int]:
    """Bytes by which it has become fuller: of late, and just now."""
    return int(came.of_late - (gone.of_late if gone else 0)), int(came.just_now - (gone.just_now if gone else 0))


def _sizes(at: InstrumentedAttribute[datetime], now: datetime) -> list[sa.Label[int]]:
    """Bytes of files: all, and those of just now."""
    size = sa.func.sum(_File.size_bytes)
    recent = size.filter(at > now - SHORT)
    return [sa.func.coalesce(size, 0).label("of_late"), sa.func.coalesce(recent, 0).label("just_now")]
