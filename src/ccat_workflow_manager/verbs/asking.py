"""What the next attempts of runs ask the cluster for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.sets import is_among
from ccat_workflow_manager.plan.resources import Asked, next_request

_Run, _Attempt, _Revision = models.ExecutedReductionStep, models.RunAttempt, models.ReductionStepRevision


@dataclass(frozen=True)
class NextAttempt:
    """The attempt that follows the last one of a run."""

    number: int
    asked: Asked


def next_attempts(session: Session, run_ids: Collection[int]) -> Mapping[int, NextAttempt]:
    """Number of the next attempt of each run, and what it asks for: more than the last, where that was too little."""
    last = (
        sa.select(_Attempt.run_id, _Attempt.number, _Attempt.memory_gb, _Attempt.time_hours, _Attempt.exhausted)
        .where(is_among(_Attempt.run_id, run_ids))
        .ext(distinct_on(_Attempt.run_id))
        .order_by(_Attempt.run_id, _Attempt.number.desc())
        .subquery()
    )
    columns = (last.c.number, last.c.memory_gb, last.c.time_hours, last.c.exhausted)
    rows = session.execute(
        sa.select(_Run.id, _Revision.resources, *columns)
        .join(_Run.step_revision)
        .outerjoin(last, last.c.run_id == _Run.id)
        .where(is_among(_Run.id, run_ids))
    )
    return {
        run_id: NextAttempt((number or 0) + 1, next_request(resources, asked_by(memory_gb, time_hours), used_up))
        for run_id, resources, number, memory_gb, time_hours, used_up in rows
    }


def asked_by(memory_gb: float | None, time_hours: float | None) -> Asked | None:
    """What an attempt asked for; None where that was not written down, or there is none."""
    return Asked(memory_gb, time_hours) if memory_gb is not None and time_hours is not None else None


def asked_or_first(attempt: models.RunAttempt) -> Asked:
    """What an attempt asks for: what its step does, where nothing else was written down."""
    return asked_by(attempt.memory_gb, attempt.time_hours) or next_request(attempt.run.step_revision.resources)
