"""Runs that have been in their status for longer than its time-out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.plan.timeouts import TIME_OUTS
from ccat_ops_db.states import LIVE_RUN_STATUSES, RunStatus

_Run, _Change = models.ExecutedReductionStep, models.StatusChange


@dataclass(frozen=True)
class Overdue:
    """A run that has been in its status for too long."""

    run_id: int
    status: RunStatus
    since: datetime
    waiting_for: str | None


def overdue_runs(session: Session, *, now: datetime, limit: int) -> Sequence[Overdue]:
    """Runs whose time-out is over, the oldest first; all but the PENDING ones are acted on, as soon as that can be.

    A RUNNING one has its time limit first, and is left out: its cluster ends it.
    """
    after = {status: TIME_OUTS[status].after for status in LIVE_RUN_STATUSES if not TIME_OUTS[status].is_beyond_limit}
    came = (
        sa.select(sa.func.max(_Change.at))
        .where(_Change.noun == _Run.__tablename__, _Change.object_id == _Run.id)
        .correlate(_Run)
        .scalar_subquery()
    )
    since = sa.func.coalesce(came, _Run.created_at)
    late = [
        sa.and_(_Run.status == sa.literal_column(f"'{status}'"), _Run.created_at < now - time, since < now - time)
        for status, time in after.items()
    ]
    rows = session.execute(
        sa.select(_Run.id, _Run.status, since.label("since"), _Run.waiting_for)
        .where(sa.or_(*late))
        .order_by(sa.text("since"), _Run.id)
        .limit(limit)
    )
    return [Overdue(*row) for row in rows]


def in_status_since(session: Session, run: models.ExecutedReductionStep) -> datetime:
    """When a run came to the status that it has."""
    changes = sa.select(sa.func.max(_Change.at)).where(
        _Change.noun == _Run.__tablename__, _Change.object_id == run.id, _Change.to_status == run.status
    )
    return session.scalar(changes) or run.created_at
