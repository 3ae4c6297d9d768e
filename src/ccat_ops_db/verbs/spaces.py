from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.plan.spaces import is_short
from ccat_ops_db.verbs.limiting import tell_limits


def record_space(session: Session, location_id: int, *, free: int, total: int, now: datetime) -> None:
    """Write down what is free at a location; who waits for room there, or has to be held, is looked at at once."""
    location = models.DataLocation
    here = sa.select(location).where(location.id == location_id)
    # Whoever writes a row that is at this location holds its key: neither waits for the other.
    one = session.scalars(here.with_for_update(of=location.__table__, key_share=True)).one()
    reserve = one.free_space_reserve_bytes
    was_short = one.free_bytes is not None and is_short(one.free_bytes, reserve=reserve)
    one.free_bytes, one.total_bytes, one.space_checked_at = free, total, now
    if is_short(free, reserve=reserve) != was_short:
        tell_limits(session)
