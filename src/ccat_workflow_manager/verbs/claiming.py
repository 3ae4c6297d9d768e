"""Which PENDING runs are looked at next: those that may start, and in turns those that waited for something."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.claims import claim
from ccat_ops_db.queries.limits import limits_now
from ccat_ops_db.queries.pauses import stopped
from ccat_ops_db.sets import is_among
from ccat_workflow_manager.verbs.limiting import NOTED, first_in_line, has_some_room
from ccat_workflow_manager.verbs.queueing import IS_IN_LINE, IS_PENDING, LINE, WAITS

_Run = models.ExecutedReductionStep
_SHARE: Final = 4
"""One of so many in a batch is a run that waited for something: it may go on by now, and would be passed over else."""
_LONGEST_AGO: Final[Sequence[sa.ColumnElement[Any]]] = (_Run.lease_until.asc().nulls_first(),)
"""What waits was given a lease when it was looked at last."""


def claim_pending(
    session: Session, which: sa.ColumnElement[bool], *, by: str, lease: timedelta, most: int, now: datetime
) -> list[int]:
    """Lease PENDING runs that are to be looked at, of those that meet a condition.

    Limits are filled in the order of the queue by what may start as far as known. What waits for something else takes
    no room; where it may start after all, it competes with the others of its batch. Paused and disabled pipelines take
    no part.
    """
    limits, passed_over = limits_now(session, now=now), list(stopped(session))
    waits = sa.and_(which, IS_PENDING, WAITS, _Run.pipeline_id.not_in(passed_over), has_some_room(limits))
    claim_runs = partial(claim, session, _Run, by=by, lease=lease)
    claimed = claim_runs(where=waits, limit=most // _SHARE, order_by=_LONGEST_AGO)
    ready = first_in_line(session, limits, sa.and_(which, LINE.id.not_in(passed_over)), most=most - len(claimed))
    claimed += claim_runs(where=sa.and_(is_among(_Run.id, ready), which, IS_PENDING, IS_IN_LINE), limit=len(ready))
    if left := most - len(claimed):
        claimed += claim_runs(where=waits, limit=left, order_by=_LONGEST_AGO)
    return sorted(claimed)


def note_stopped(session: Session, which: sa.ColumnElement[bool]) -> int:
    """Write on some PENDING runs of paused and disabled pipelines why they do not start; on how many, at most."""
    because = stopped(session)
    if not because:
        return 0
    told = sa.case(dict(because), value=_Run.pipeline_id, else_=None)
    chosen = (
        sa.select(_Run.id, told.label("told"))
        .where(which, IS_PENDING, _Run.pipeline_id.in_(list(because)), _Run.waiting_for.is_distinct_from(told))
        .limit(NOTED)
        .with_for_update(skip_locked=True)
        .subquery()
    )
    noted = sa.update(_Run).where(_Run.id == chosen.c.id).values(waiting_for=chosen.c.told, held_by_limit=False)
    return len(session.scalars(noted.returning(_Run.id), execution_options={"synchronize_session": False}).all())
