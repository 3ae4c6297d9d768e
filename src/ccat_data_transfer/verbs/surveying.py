"""All archived packages are looked at in turn, whether they have enough copies, some at a time.

What is archived, found bad, or given up is looked at when that happens. What a person changes or says, such as a class
of data, a new archive or a lost one, concerns any number of packages, and they are come to in the course of a round.
"""

from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_data_transfer.verbs.closing import MOST_CLOSED, close_needless, close_replaced
from ccat_data_transfer.verbs.replicating import AT_ONCE, busy_archives, replicate, take_back_useless, wanting_copies
from ccat_ops_db import models
from ccat_ops_db.queries.pauses import is_held
from ccat_ops_db.states import LocationType

_Round, _Package, _Location = models.ReplicationRound, models.RawDataPackage, models.DataLocation
_LOOKED_AT: Final = 20_000
"""Packages that one look is about: it takes a third of a second, and a round of ten million an hour and a half."""
_PAUSE: Final = timedelta(seconds=10)
_EVERY: Final = timedelta(hours=1)
_WHEN_BUSY: Final = timedelta(minutes=10)
"""What an archive had no room for in its queue is come to again."""
_NOW: Final = sa.func.clock_timestamp()
_IS_TIME: Final = sa.and_(
    sa.or_(_Round.look_at.is_(None), _Round.look_at <= _NOW),
    sa.exists().where(_Location.location_type == LocationType.LONG_TERM_ARCHIVE, sa.not_(is_held())),
)


def look_through(session: Session, *, by: str) -> int:
    """Ask for archive copies that are wanting of the next packages, if it is time to; how many were asked for.

    What lost archives had of them is closed where it was replaced. No other manager looks meanwhile.
    """
    session.execute(insert(_Round).values(id=1).on_conflict_do_nothing())
    now = session.scalars(sa.select(_Round).where(_IS_TIME).with_for_update(skip_locked=True)).one_or_none()
    if now is None:
        return 0
    if not now.looked_up_to:
        take_back_useless(session, by=by)
    coming = sa.select(_Package.id).where(_Package.id > now.looked_up_to).order_by(_Package.id).limit(_LOOKED_AT)
    last = session.scalar(sa.select(sa.func.max(coming.subquery().c.id)))
    these = sa.false() if last is None else _Package.id.between(now.looked_up_to + 1, last)
    wanting = wanting_copies(session, these)
    close_replaced(session, these, by=by)
    goes_on = close_needless(session, by=by) >= MOST_CLOSED
    now.looked_up_to = wanting[-1] if len(wanting) == AT_ONCE else last or 0
    busy = busy_archives(session)
    now.look_at = _NOW + (_PAUSE if now.looked_up_to or goes_on else _WHEN_BUSY if busy else _EVERY)
    return replicate(session, wanting, leave_out=busy, by=by) if wanting else 0
