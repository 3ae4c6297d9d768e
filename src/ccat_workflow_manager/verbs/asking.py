"""What the next attempts of runs ask the cluster for."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.sets import is_given
from ccat_workflow_manager.hpc.base import job_name
from ccat_workflow_manager.plan.resources import Asked, next_request

_Run, _Attempt, _Revision = models.ExecutedReductionStep, models.RunAttempt, models.ReductionStepRevision
_LAST: Final = (
    sa.select(_Attempt.run_id, _Attempt.number, _Attempt.memory_gb, _Attempt.time_hours, _Attempt.exhausted)
    .where(is_given(_Attempt.run_id, "runs"))
    .ext(distinct_on(_Attempt.run_id))
    .order_by(_Attempt.run_id, _Attempt.number.desc())
    .subquery()
)
_NEXT: Final = (
    sa.select(
        _Run.id,
        sa.select(models.Installation.installation_id).scalar_subquery(),
        _Revision.resources,
        _LAST.c.number,
        _LAST.c.memory_gb,
        _LAST.c.time_hours,
        _LAST.c.exhausted,
    )
    .join(_Run.step_revision)
    .outerjoin(_LAST, _LAST.c.run_id == _Run.id)
    .where(is_given(_Run.id, "runs"))
)


@dataclass(frozen=True)
class NextAttempt:
    """The attempt that follows the last one of a run."""

    number: int
    job_name: str
    asked: Asked


def next_attempts(session: Session, run_ids: Collection[int]) -> Mapping[int, NextAttempt]:
    """The next attempt of each run, which asks for more than the last, where that was too little."""
    following = {}
    for run_id, installation, resources, last, *asked, used_up in session.execute(_NEXT, {"runs": list(run_ids)}):
        number = (last or 0) + 1
        name = job_name(installation, run_id=run_id, attempt=number)
        following[run_id] = NextAttempt(number, name, next_request(resources, asked_by(*asked), used_up))
    return following


def asked_by(memory_gb: float | None, time_hours: float | None) -> Asked | None:
    """What an attempt asked for; None where that was not written down, or there is none."""
    return Asked(memory_gb, time_hours) if memory_gb is not None and time_hours is not None else None


def asked_or_first(attempt: models.RunAttempt) -> Asked:
    """What an attempt asks for: what its step does, where nothing else was written down."""
    return asked_by(attempt.memory_gb, attempt.time_hours) or next_request(attempt.run.step_revision.resources)
