"""PENDING runs whose inputs are not fixed yet, kept as their sub-groups are now: limits ask what they are for."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.scope import Scope
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.gap.telling import tell
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.states import RunStatus, Verdict

_Run, _Group = models.ExecutedReductionStep, models.SubGroup
_PENDING: Final = _Run.status == RunStatus.PENDING
_IS_OPEN: Final = sa.and_(_PENDING, _Run.inputs_frozen_at.is_(None))
_WRITES: Final = {"synchronize_session": False}
STARTABLE: Final = (Verdict.WANTED, Verdict.COOLING, Verdict.BLOCKED)
"""Verdicts on sub-groups that need the run that they have."""


def is_unneeded() -> sa.ColumnElement[bool]:
    """Condition on a PENDING run: as last evaluated, its sub-group is gone or needs it no more."""
    again = sa.and_(_Run.inputs_frozen_at.is_not(None), _Group.verdict != Verdict.UP_TO_DATE)
    of_run = sa.and_(_Group.reduction_step_id == _Run.reduction_step_id, _Group.key == _Run.sub_group_key)
    needs_it = sa.exists().where(of_run, sa.or_(_Group.verdict.in_(STARTABLE), again)).correlate(_Run)
    return sa.not_(sa.or_(_Run.is_trial, needs_it))


def note_pending(session: Session, step: StepNow, looked: Scope, *, gone: Sequence[str]) -> None:
    """Let runs of sub-groups that were looked at say why they are necessary now, and be looked at where they are not.

    `gone` are the keys of sub-groups of the step that are there no more.
    """
    has_other_reason = sa.func.coalesce(sa.and_(_IS_OPEN, _Run.reason != _Group.reason), sa.false())
    found = session.execute(
        sa.select(_Group.id, has_other_reason)
        .join(_Run, _Run.id == _Group.active_run_id)
        .where(_Group.reduction_step_id == step.id, looked.covers(_Group.id), _PENDING)
        .where(sa.or_(has_other_reason, _Group.verdict.not_in(STARTABLE)))
    ).all()
    _tell_anew(session, step, [number for number, is_other in found if is_other])
    if found or _are_pending(session, step, gone):
        _wake(session)


def _tell_anew(session: Session, step: StepNow, ids: Sequence[int]) -> None:
    if not ids:
        return
    because = tell(session, step, ids)
    told = sa.func.unnest(
        sa.literal(list(because), sa.ARRAY(sa.BigInteger)), sa.literal(list(because.values()), sa.ARRAY(sa.Text))
    ).table_valued("id", "because", name="told")
    told = told.render_derived()
    of_group = sa.and_(_Group.id == told.c.id, _Run.id == _Group.active_run_id)
    now = {"reason": _Group.reason, "because": told.c.because}
    session.execute(sa.update(_Run).where(of_group, _IS_OPEN).values(now), execution_options=_WRITES)


def _are_pending(session: Session, step: StepNow, keys: Sequence[str]) -> bool:
    of_keys = sa.exists().where(_Run.reduction_step_id == step.id, _Run.sub_group_key.in_(keys), _PENDING)
    return bool(keys) and bool(session.scalar(sa.select(of_keys)))


def bring_along(session: Session, pipeline: PipelineNow) -> None:
    """Let runs of a pipeline wait where it runs now."""
    elsewhere = sa.and_(_Run.pipeline_id == pipeline.id, _Run.data_location_id != pipeline.location_id)
    there = sa.update(_Run).where(elsewhere, _IS_OPEN).values(data_location_id=pipeline.location_id)
    if session.scalars(there.returning(_Run.id), execution_options=_WRITES).all():
        _wake(session)


def _wake(session: Session) -> None:
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{_Run.__tablename__}:{RunStatus.PENDING}")))
