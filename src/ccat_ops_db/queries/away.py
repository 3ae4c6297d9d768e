"""Which locations are away: nothing can be read there, or nobody has looked for long, or ever."""

from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.plan.retention import AWAY_AFTER
from ccat_ops_db.queries.spaces import IS_SHORT

_NOW: Final = sa.func.clock_timestamp()


def is_away(place: Any = models.DataLocation, *, for_long: timedelta = timedelta()) -> sa.ColumnElement[bool]:
    """Condition on a location, as `retention.sql` has it: it is away, and was for so long, or is lost.

    A new one has as much time until somebody looks as others between two looks.
    """
    unseen = _NOW - max(AWAY_AFTER, for_long)
    looked_at = sa.func.coalesce(place.space_checked_at, place.probed_at, place.created_at)
    moments = ((place.unreadable_since, _NOW - for_long), (looked_at, unseen), (place.probed_at, unseen))
    seen_away = (sa.func.coalesce(moment <= since, sa.false()) for moment, since in moments)
    return sa.or_(place.lost_at.is_not(None), *seen_away)


def is_shut() -> sa.ColumnElement[bool]:
    """Condition on a location: what is to go there would wait now, as it is away, or full, or cannot be written."""
    return sa.func.coalesce(sa.or_(is_away(), IS_SHORT), sa.false())
