"""Which copies are to go next, and when somebody is told to remove them."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.deleting import fail_deletion
from ccat_ops_db import claims, models
from ccat_ops_db.models.data import GOING
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.retention import Kind, goes
from ccat_ops_db.queries.retention import (
    copies_for_room,
    copies_over,
    is_paused,
    keeps_all,
    obstacles,
    places,
)
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import PhysicalCopyStatus
from ccat_ops_db.verbs.copies import WHY_IN_DOUBT

BATCH: Final = 200
"""Copies that one message is about."""
_MARKED_AT_ONCE: Final = 5_000
_UNDERWAY: Final = 5 * BATCH
"""Copies at a location that workers may be told of at a time."""
_EVERY: Final = timedelta(minutes=5)
_WHEN_FULL: Final = timedelta(seconds=15)
_AT_ONCE: Final = timedelta()

_Copy, _Location, _Status = models.PhysicalCopy, models.DataLocation, PhysicalCopyStatus
_NOW: Final = sa.func.clock_timestamp()
_NEVER_TRIED: Final = {"not_before": None, "trouble_count": 0, "failure": WHY_IN_DOUBT}
"""What was noted of a copy until now is about reading it; why it may be bad holds if it stays after all."""
_IS_GOING: Final = sa.text(GOING)
_MAY_BE_SENT: Final = sa.and_(
    _IS_GOING,
    _Copy.status != _Status.DELETION_IN_PROGRESS,
    sa.or_(_Copy.not_before.is_(None), _Copy.not_before <= _NOW),
)
_IS_LOST: Final = sa.and_(_IS_GOING, _Copy.status == _Status.DELETION_IN_PROGRESS)
_IS_KEPT: Final = sa.or_(keeps_all(), is_paused())


def locations_to_look_at(session: Session) -> Sequence[int]:
    """Locations whose turn it is to be looked at; no other manager looks at them meanwhile."""
    is_due = sa.or_(_Location.retention_look_at.is_(None), _Location.retention_look_at <= _NOW)
    chosen = sa.select(_Location.id).where(is_due, sa.not_(_IS_KEPT)).order_by(_Location.id)
    taken = chosen.with_for_update(of=_Location.__table__, key_share=True, skip_locked=True).cte("taken")
    next_time = sa.update(_Location).where(_Location.id == taken.c.id).values(retention_look_at=_NOW + _EVERY)
    return session.scalars(next_time.returning(_Location.id), execution_options={"synchronize_session": False}).all()


def mark(session: Session, location_id: int, *, by: str) -> int:
    """Mark what is to go at a location; how many copies that was."""
    [place], now = places(session, [location_id]), session.scalars(sa.select(_NOW)).one()
    marked = _mark(session, copies_over(session, place, now=now, most=_MARKED_AT_ONCE), seen_at=now, by=by)
    if not marked:
        going = copies_for_room(session, place, now=now, most=_MARKED_AT_ONCE)
        marked = _mark(session, going, seen_at=now, for_room=True, by=by)
    if marked or place.room(now):
        _look_again(session, location_id, after=_AT_ONCE if marked == _MARKED_AT_ONCE else _WHEN_FULL)
    return marked


def _mark(session: Session, found: Mapping[int, Kind], *, seen_at: datetime, for_room: bool = False, by: str) -> int:
    free = _still_free(session, found, seen_at=seen_at)
    by_kind: defaultdict[Kind, list[int]] = defaultdict(list)
    for copy_id in free:
        by_kind[found[copy_id]].append(copy_id)
    to, marked = _Status.DELETION_POSSIBLE, 0
    for kind, ids in by_kind.items():
        because = goes(kind, for_room=for_room)
        marked += len(advance(session, _Copy, ids, to=to, because=because, by=by, values=_NEVER_TRIED))
    return marked


def _still_free(session: Session, copy_ids: Collection[int], *, seen_at: datetime) -> list[int]:
    """Those of some copies that nothing hinders, now that nobody else may begin to use them, nor did meanwhile."""
    if not copy_ids:
        return []
    unused = sa.or_(_Copy.used_at.is_(None), _Copy.used_at <= seen_at)
    held = sa.select(_Copy.id).where(is_among(_Copy.id, copy_ids), unused).order_by(_Copy.id).with_for_update()
    locked = session.scalars(held).all()
    hinders = obstacles(session, locked)
    return [copy_id for copy_id in locked if copy_id not in hinders]


def _look_again(session: Session, location_id: int, *, after: timedelta) -> None:
    here = sa.update(_Location).where(_Location.id == location_id)
    session.execute(here.values(retention_look_at=sa.func.least(_Location.retention_look_at, _NOW + after)))


def with_deletions(session: Session) -> Sequence[int]:
    """Locations where somebody is to be told to remove something."""
    some = sa.exists().where(_Copy.data_location_id == _Location.id, _MAY_BE_SENT, claims.is_free(_Copy))
    return session.scalars(sa.select(_Location.id).where(some, sa.not_(is_paused())).order_by(_Location.id)).all()


def schedule_deletions(session: Session, location_id: int, *, by: str, lease: timedelta) -> list[int]:
    """Schedule the next batch of copies at a location; none where enough is under way.

    Where no worker takes it until the lease is over, it is scheduled again.
    """
    leased = sa.and_(_Copy.lease_until.is_not(None), _Copy.lease_until >= _NOW)
    under_way = sa.select(sa.func.count()).where(_Copy.data_location_id == location_id, leased, _IS_GOING)
    room = _UNDERWAY - session.scalars(under_way).one()
    if room <= 0:
        return []
    here = sa.and_(_Copy.data_location_id == location_id, _MAY_BE_SENT)
    chosen = claims.claim(session, _Copy, where=here, by=by, lease=lease, limit=min(room, BATCH))
    because, marked = "scheduled for deletion", [_Status.DELETION_POSSIBLE]
    advance(session, _Copy, chosen, to=_Status.DELETION_SCHEDULED, expected=marked, because=because, by=by)
    return chosen


def recover_lost_deletions(session: Session, *, by: str) -> int:
    """Have removals gone on with whose worker was lost, and return how many.

    Whoever goes on looks whether the object is still there.
    """
    lost = claims.claim(session, _Copy, where=_IS_LOST, by=by, lease=timedelta(minutes=1), limit=_UNDERWAY)
    fail_deletion(session, lost, because="its worker ended in the middle", by=by, pause=_AT_ONCE)
    return len(lost)


def next_deletion_moment(session: Session) -> datetime | None:
    """When the next pause or lease of a deletion ends, or the next location is looked at."""
    ends = sa.func.coalesce(_Copy.lease_until, _Copy.not_before)
    of_copies = sa.select(sa.func.min(ends)).where(_IS_GOING, ends > _NOW)
    of_places = sa.select(sa.func.min(_Location.retention_look_at)).where(sa.not_(_IS_KEPT))
    moments = [session.scalar(of_copies), session.scalar(of_places)]
    return min((one for one in moments if one is not None), default=None)
