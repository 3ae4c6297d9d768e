"""Locations, whether they can be written, what is free there, and what runs there."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.runs import LIVE_RUN
from ccat_ops_db.plan.marks import Mark
from ccat_ops_db.plan.spaces import (
    FRESH,
    SpaceState,
    away_sentence,
    short_sentence,
    space_state,
    trouble_sentence,
    unwritten_sentence,
)
from ccat_ops_db.queries.unread import workers_that_cannot_read
from ccat_ops_db.states import BackendName, LocationType, PhysicalCopyStatus, StorageType

_Location = models.DataLocation
_Run = models.ExecutedReductionStep
_LIE: Final = (PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.STAGED)
_MARKED: Final = (LocationType.BUFFER, LocationType.LONG_TERM_ARCHIVE)
"""What bears a mark: an instrument's disk is nothing of ours, and no copy at a processing location is relied on."""
_IS_FULL: Final = _Location.free_bytes < sa.func.greatest(_Location.free_space_reserve_bytes, 1)
_IS_UNUSABLE: Final = _Location.trouble.is_not(None)
IS_SHORT: Final = sa.or_(_IS_FULL, _IS_UNUSABLE)
"""Condition on a location: nothing more may be put there, as far as was seen last."""
_UNSEEN_SINCE: Final = sa.case((_Location.space_checked_at < sa.func.now() - FRESH, _Location.space_checked_at))
_FULL: Final = LOCATION.rows.with_only_columns(
    _Location.id, LOCATION.label, _Location.free_bytes, _Location.free_space_reserve_bytes, _UNSEEN_SINCE
).where(_IS_FULL, sa.not_(_IS_UNUSABLE))
_HAS_RUNS: Final = _Location.location_type == LocationType.PROCESSING
_IS_READ: Final = _Location.free_bytes.is_not(None)
"""Condition on a location with trouble where no runs are: what is free there was seen, and only writing failed."""
_HAS_DATA: Final = sa.exists().where(
    models.PhysicalCopy.data_location_id == _Location.id, models.PhysicalCopy.status.in_(_LIE)
)
_UNUSABLE: Final = LOCATION.rows.with_only_columns(
    _Location.id, LOCATION.label, _Location.trouble, _UNSEEN_SINCE, _HAS_RUNS, _Location.space_checked_at, _IS_READ
).where(_IS_UNUSABLE, sa.or_(_HAS_RUNS, _Location.active, _HAS_DATA))


@dataclass(frozen=True, kw_only=True)
class LocationNow:
    """A location as it is now."""

    id: int
    name: str
    """`site/location`."""
    type: LocationType
    storage: StorageType
    backend: BackendName | None
    place: str
    """Directory of a disk, perhaps with its host, `s3://bucket/prefix`, or pool of tapes."""
    path: str | None
    """Directory of a disk."""
    active: bool
    """Whether anything new is put there."""
    lost_at: datetime | None
    """When a person said that it is lost."""
    free_bytes: int | None
    total_bytes: int | None
    reserve_bytes: int
    state: SpaceState
    trouble: str | None
    """Why nothing can be put there; None where nothing is known to be in the way, but for room."""
    unreadable: str | None
    """Why nothing can be read there, of an archive; None where something can, as far as is known."""
    unread_by: Mapping[str, str]
    """Why some can read nothing there, by the worker and its host, where others can."""
    checked_at: datetime | None
    live: int
    """Runs that occupy something there."""
    live_limit: int | None
    paused: str | None
    """Why it is paused; None where it is not."""


def short_locations(session: Session) -> Mapping[int, str]:
    """Locations where nothing may be started now, by id, with the sentence that says why."""
    return {**full_disks(session), **unusable_locations(session)}


def full_disks(session: Session) -> Mapping[int, str]:
    """Locations that can be written and have no room, by id, with the sentence that says so."""
    return {
        number: short_sentence(name, free=free or 0, reserve=reserve, unseen_since=since)
        for number, name, free, reserve, since in session.execute(_FULL)
    }


def unusable_locations(session: Session) -> Mapping[int, str]:
    """Locations that are missing or cannot be written, by id, with the sentence that says so.

    Left out is what is out of use, and has nothing.
    """
    return {
        number: trouble_sentence(name, trouble or "", unseen_since=unseen_since)
        if has_runs
        else (unwritten_sentence(name, trouble or "") if is_read else away_sentence(name, trouble or "", since=since))
        for number, name, trouble, unseen_since, has_runs, since, is_read in session.execute(_UNUSABLE)
    }


def takes_files(session: Session, location_id: int) -> bool:
    """Whether workers put files at a location that are no runs'."""
    taking = sa.select(_Location.id).filter_by(id=location_id, active=True)
    return session.scalar(taking.where(_Location.location_type.in_(_MARKED))) is not None


def holds_data(session: Session, location_id: int) -> bool:
    """Whether copies are known to lie at a location."""
    copy = models.PhysicalCopy
    here = sa.exists().where(copy.data_location_id == location_id, copy.status.in_(_LIE))
    return session.scalar(sa.select(here)) or False


def mark_of(location: models.DataLocation) -> Mark | None:
    """What the place of a location bears; None for one that goes without."""
    is_marked = location.location_type in _MARKED
    return Mark(location.identity, f"{location.site.short_name}/{location.name}") if is_marked else None


def identity_of(session: Session, location_id: int) -> UUID | None:
    """Identity of a location, by which its place is told from others; None for one whose place bears no mark."""
    return session.scalar(
        sa.select(_Location.identity).filter_by(id=location_id).where(_Location.location_type.in_(_MARKED))
    )


def bore_mark(session: Session, location_id: int) -> bool:
    """Whether a worker has seen the mark of a location in its directory."""
    return session.scalar(sa.select(_Location.marked_at.is_not(None)).filter_by(id=location_id)) or False


def list_locations(session: Session, *, now: datetime) -> Sequence[LocationNow]:
    """Every location, by its name."""
    live, paused, unread = _live(session), _paused(session), _unread_by(session)
    rows = session.execute(LOCATION.rows.add_columns(LOCATION.label).order_by(LOCATION.label))
    return [
        _now(one, name, live=live.get(one.id, 0), paused=paused.get(one.id), unread_by=unread.get(one.id, {}), now=now)
        for one, name in rows
    ]


def _now(
    one: _Location, name: str, *, live: int, paused: str | None, unread_by: Mapping[str, str], now: datetime
) -> LocationNow:
    reserve = one.free_space_reserve_bytes
    return LocationNow(
        id=one.id,
        name=name,
        type=one.location_type,
        storage=one.storage_type,
        backend=one.backend,
        place=place_told(one),
        path=one.path if isinstance(one, models.DiskDataLocation) else None,
        active=one.active,
        lost_at=one.lost_at,
        free_bytes=one.free_bytes,
        total_bytes=one.total_bytes,
        reserve_bytes=reserve,
        state=space_state(
            one.free_bytes,
            reserve=reserve,
            checked_at=one.space_checked_at,
            now=now,
            trouble=one.trouble,
            stands=one.location_type is not LocationType.PROCESSING,
        ),
        trouble=one.trouble,
        unreadable=one.unreadable,
        unread_by=unread_by,
        checked_at=one.space_checked_at,
        live=live,
        live_limit=one.live_limit,
        paused=paused,
    )


def place_told(one: _Location) -> str:
    """Where the files of a location lie, as people write it."""
    match one:
        case models.DiskDataLocation():
            return f"{one.host}:{one.path}" if one.host else one.path
        case models.S3DataLocation():
            store = f" ({one.endpoint_url})" if one.endpoint_url else ""
            return f"s3://{one.bucket}/{one.prefix}".rstrip("/") + store
        case models.TapeDataLocation():
            return f"{one.library}/{one.pool}".rstrip("/")
        case _:
            return ""


def _live(session: Session) -> dict[int, int]:
    counted = sa.select(_Run.data_location_id, sa.func.count()).where(sa.text(LIVE_RUN))
    return dict(session.execute(counted.group_by(_Run.data_location_id)).all())


def _unread_by(session: Session) -> Mapping[int, Mapping[str, str]]:
    found = defaultdict[int, dict[str, str]](dict)
    for one in workers_that_cannot_read(session):
        found[one.location_id][one.host] = one.because
    return found


def _paused(session: Session) -> dict[int, str]:
    pause = models.Pause
    paused = sa.select(pause.data_location_id, pause.because).where(pause.data_location_id.is_not(None))
    return {number: because for number, because in session.execute(paused) if number is not None}
