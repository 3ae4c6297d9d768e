"""Which PENDING runs are looked at next: those that may start, and in turns those that waited for something."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from ccat_ops_db import models
from ccat_ops_db.claims import claiming, is_free
from ccat_ops_db.plan.limits import Limits
from ccat_ops_db.queries.limits import IS_ANYTHING_LIMITED, limits_now
from ccat_ops_db.queries.pauses import IS_ANYTHING_STOPPED, stopped
from ccat_ops_db.sets import is_given
from ccat_workflow_manager.verbs.limiting import NOTED, first_in_line, has_some_room
from ccat_workflow_manager.verbs.queueing import IS_IN_LINE, IS_PENDING, LINE, WAITS

_Run = models.ExecutedReductionStep
_SHARE: Final = 4
"""One of so many in a batch is a run that waited for something: it may go on by now, and would be passed over else."""
_LONGEST_AGO: Final[Sequence[sa.ColumnElement[Any]]] = (_Run.lease_until.asc().nulls_first(),)
"""What waits was given a lease when it was looked at last."""
_IN_THE_WAY: Final = sa.select(
    IS_ANYTHING_LIMITED, IS_ANYTHING_STOPPED, sa.exists().where(IS_PENDING, WAITS, is_free(_Run))
)


def claim_pending(
    session: Session, which: sa.ColumnElement[bool], *, by: str, lease: timedelta, most: int, now: datetime
) -> list[int]:
    """Lease PENDING runs that are to be looked at, of those that meet a condition.

    Limits are filled in the order of the queue by what may start as far as known. What waits for something else takes
    no room; where it may start after all, it competes with the others of its batch. Paused and disabled pipelines take
    no part.
    """
    is_limited, is_stopped, some_wait = session.execute(_IN_THE_WAY).one()
    limits = limits_now(session, now=now) if is_limited else Limits()
    passed_over = list(stopped(session)) if is_stopped else []
    wait = _claim_waiting(which, has_some_room(limits))
    given = {"by": by, "lease": lease}
    others = {**given, "passed_over": passed_over}
    share = most // _SHARE
    claimed = list(session.scalars(wait, {**others, "limit": share})) if some_wait else []
    some_wait = some_wait and len(claimed) == share
    in_line = sa.and_(which, LINE.id.not_in(passed_over)) if passed_over else which
    if ready := first_in_line(session, limits, in_line, most=most - len(claimed)):
        claimed += session.scalars(_claim_ready(which), {**given, "limit": len(ready), "ready": ready})
    if some_wait and (left := most - len(claimed)):
        claimed += session.scalars(wait, {**others, "limit": left})
    return sorted(claimed)


@lru_cache(maxsize=8)
def _claim_waiting(which: sa.ColumnElement[bool], has_room: sa.ColumnElement[bool]) -> ReturningUpdate[int]:
    may_start = _Run.pipeline_id != sa.all_(sa.bindparam("passed_over", type_=sa.ARRAY(sa.BigInteger)))
    return claiming(_Run, where=sa.and_(which, IS_PENDING, WAITS, may_start, has_room), order_by=_LONGEST_AGO)


@lru_cache(maxsize=8)
def _claim_ready(which: sa.ColumnElement[bool]) -> ReturningUpdate[int]:
    return claiming(_Run, where=sa.and_(is_given(_Run.id, "ready"), which, IS_PENDING, IS_IN_LINE))


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
