"""Which PENDING runs are looked at next: those that may start, and in turns those that waited for something."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.claims import claim
from ccat_ops_db.queries.limits import limits_now
from ccat_ops_db.queries.pauses import stopped
from ccat_ops_db.states import RunStatus
from ccat_workflow_manager.verbs.limiting import IS_IN_LINE, NOTED, ORDER, WAITS, has_room, has_some_room

_Run = models.ExecutedReductionStep
_IS_PENDING: Final = _Run.status == sa.literal_column(f"'{RunStatus.PENDING}'")  # as the indexes of the queue say it
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
    free = sa.and_(which, _IS_PENDING, _Run.pipeline_id.not_in(list(stopped(session))))
    limits = limits_now(session, now=now)
    waiting, ready = sa.and_(free, WAITS), sa.and_(free, IS_IN_LINE)
    waiting = sa.and_(waiting, has_some_room(limits))
    ready = sa.and_(ready, has_room(limits, ready))
    claimed: list[int] = []
    for where, order, up_to in (
        (waiting, _LONGEST_AGO, most // _SHARE),
        (ready, ORDER, most),
        (waiting, _LONGEST_AGO, most),
    ):
        if left := up_to - len(claimed):
            claimed += claim(session, _Run, where=where, by=by, lease=lease, limit=left, order_by=order)
    return sorted(claimed)


def note_stopped(session: Session, which: sa.ColumnElement[bool]) -> int:
    """Write on some PENDING runs of paused and disabled pipelines why they do not start; on how many, at most."""
    because = stopped(session)
    if not because:
        return 0
    told = sa.case(dict(because), value=_Run.pipeline_id, else_=None)
    chosen = (
        sa.select(_Run.id, told.label("told"))
        .where(which, _IS_PENDING, _Run.pipeline_id.in_(list(because)), _Run.waiting_for.is_distinct_from(told))
        .limit(NOTED)
        .with_for_update(skip_locked=True)
        .subquery()
    )
    noted = sa.update(_Run).where(_Run.id == chosen.c.id).values(waiting_for=chosen.c.told, held_by_limit=False)
    return len(session.scalars(noted.returning(_Run.id), execution_options={"synchronize_session": False}).all())
