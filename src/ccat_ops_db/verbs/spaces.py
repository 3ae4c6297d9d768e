from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.plan.spaces import is_short
from ccat_ops_db.sets import is_among, table_of
from ccat_ops_db.states import LocationType
from ccat_ops_db.verbs.hurrying import end_pauses_at
from ccat_ops_db.verbs.limiting import tell_limits

_SAID_FOR: Final = timedelta(seconds=10)
_SEEN_FOR: Final = timedelta(minutes=1)
"""So long what one worker sees holds against what another does not: each looks several times meanwhile."""


def record_space(
    session: Session,
    location_id: int,
    *,
    free: int | None,
    total: int | None,
    trouble: str | None = None,
    now: datetime,
) -> None:
    """Write down what is free at a location, or what keeps everybody from writing there.

    What keeps one worker from where no runs are holds only if no other has just seen that well. Who waits for that, or
    has to be held, is looked at at once; where trouble is over, what met it goes on. A disk that comes and goes, about
    its reserve or as one of its workers sees it and another does not, ends no pause.
    """
    location = models.DataLocation
    here = sa.select(location).where(location.id == location_id)
    # Whoever writes a row that is at this location holds its key: neither waits for the other.
    one = session.scalars(here.with_for_update(of=location.__table__, key_share=True)).one()
    is_of_runs = one.location_type is LocationType.PROCESSING
    if trouble is not None and free != 0 and not is_of_runs and _is_seen_well(one, now):
        return
    was_held, lasted = _is_held(one), _lasted(one, now)
    _note_trouble(one, trouble, now)
    one.free_bytes, one.total_bytes, one.space_checked_at = free, total, now
    if _is_held(one) != was_held:
        tell_limits(session)
    if lasted and trouble is None:
        end_pauses_at(session, location_id)


def record_trouble(session: Session, location_id: int, *, trouble: str, now: datetime) -> None:
    """Write down what keeps a worker from a location where no runs are, unless another one has just seen it well.

    When that was stays written: who relies on what is there asks for it.
    """
    location = models.DataLocation
    here = sa.select(location).where(location.id == location_id)
    one = session.scalars(here.with_for_update(of=location.__table__, key_share=True)).one()
    if _is_seen_well(one, now):
        return
    _note_trouble(one, trouble, now)
    one.free_bytes, one.total_bytes, one.space_checked_at = None, None, one.space_checked_at or now


def record_marked(session: Session, location_id: int) -> None:
    """Write down that a worker saw the mark of a location in its directory, if none has before."""
    location = models.DataLocation
    unseen = (location.id == location_id, location.marked_at.is_(None))
    session.execute(sa.update(location).where(*unseen).values(marked_at=sa.func.clock_timestamp()))


def record_served(session: Session, location_ids: Collection[int]) -> None:
    """Write down that a transfer-worker serves these locations now, but for those of which one has just said so."""
    location, now = table_of(models.DataLocation), sa.func.clock_timestamp()
    is_said = location.c.served_at > now - _SAID_FOR
    wanted = sa.select(location.c.id).where(is_among(location.c.id, location_ids), is_said.is_not(sa.true()))
    # Whoever holds a row says more of it than this, and it is said again in a moment.
    free = wanted.with_for_update(key_share=True, skip_locked=True).cte("free").prefix_with("MATERIALIZED")
    session.execute(sa.update(location).where(location.c.id == free.c.id).values(served_at=now))


def record_operations(session: Session, served: Mapping[int, Collection[str]]) -> None:
    """Write down which operations a transfer-worker takes at locations now, but for what one has just said."""
    taken, now = models.ServedOperation, sa.func.clock_timestamp()
    rows = [
        {"data_location_id": place, "operation": one, "served_at": now}
        for place, operations in sorted(served.items())
        for one in sorted(operations)
    ]
    if rows:
        said = insert(taken).values(rows)
        again = said.on_conflict_do_update(
            index_elements=["data_location_id", "operation"],
            set_={"served_at": now},
            where=taken.served_at < now - _SAID_FOR,
        )
        session.execute(again)


def _is_seen_well(one: models.DataLocation, now: datetime) -> bool:
    """Whether a worker has just seen a location without trouble."""
    return one.trouble is None and one.space_checked_at is not None and now - one.space_checked_at < _SEEN_FOR


def _note_trouble(one: models.DataLocation, trouble: str | None, now: datetime) -> None:
    """Note it before it is noted when that was seen: it is since somebody saw the location well last."""
    since = one.trouble_since if one.trouble is not None else one.space_checked_at
    one.trouble, one.trouble_since = trouble, None if trouble is None else since or now


def _lasted(one: models.DataLocation, now: datetime) -> bool:
    """Whether a location was in trouble for so long that it is not one that comes and goes."""
    return one.trouble is not None and (one.trouble_since is None or now - one.trouble_since >= _SEEN_FOR)


def _is_held(one: models.DataLocation) -> bool:
    is_full = one.free_bytes is not None and is_short(one.free_bytes, reserve=one.free_space_reserve_bytes)
    return is_full or one.trouble is not None
