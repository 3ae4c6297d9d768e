from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.states import RunStatus, TriggerType

_Trigger, _Request, _Run = models.Trigger, models.RunRequest, models.ExecutedReductionStep
_PLACE: Final = sa.tuple_(_Request.reduction_step_id, _Request.sub_group_key)


@dataclass(frozen=True)
class TriggerNow:
    """A trigger, and how far its chain of runs has come."""

    id: int
    pipeline: str
    type: TriggerType
    is_forced: bool
    because: str
    by: str
    opened_at: datetime
    closed_at: datetime | None
    """None while anything may follow."""
    requested: int
    """Sub-groups that are asked for and not done yet."""
    runs: Mapping[RunStatus, int]


def list_triggers(
    session: Session, *, pipeline: str | None, limit: int, before: int | None = None
) -> Sequence[TriggerNow]:
    """Triggers, the newest first."""
    query = sa.select(_Trigger, models.Pipeline.name).join(models.Pipeline).order_by(_Trigger.id.desc()).limit(limit)
    if pipeline is not None:
        query = query.where(models.Pipeline.name == pipeline)
    if before is not None:
        query = query.where(_Trigger.id < before)
    found = session.execute(query).all()
    ids = [trigger.id for trigger, _ in found]
    requests = dict(
        session.execute(
            sa.select(_Request.trigger_id, sa.func.count(sa.distinct(_PLACE)))
            .where(_Request.trigger_id.in_(ids))
            .group_by(_Request.trigger_id)
        ).all()
    )
    runs = session.execute(
        sa.select(_Run.trigger_id, _Run.status, sa.func.count())
        .where(_Run.trigger_id.in_(ids))
        .group_by(_Run.trigger_id, _Run.status)
    ).all()
    return [
        TriggerNow(
            id=trigger.id,
            pipeline=name,
            type=trigger.type,
            is_forced=trigger.is_forced,
            because=trigger.because,
            by=trigger.by,
            opened_at=trigger.created_at,
            closed_at=trigger.closed_at,
            requested=requests.get(trigger.id, 0),
            runs={status: number for trigger_id, status, number in runs if trigger_id == trigger.id},
        )
        for trigger, name in found
    ]
