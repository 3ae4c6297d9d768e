"""PENDING runs, kept as their sub-groups are now: what nothing needs any more is cancelled, the rest says why it is."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.cancelling import ask_to_cancel
from ccat_ops_db.gap.scope import Scope
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.gap.telling import tell
from ccat_ops_db.models.runs import ACTIVE_RUN
from ccat_ops_db.moves import CHANNEL, advance
from ccat_ops_db.sets import is_given
from ccat_ops_db.states import LIVE_RUN_STATUSES, RunReason, RunStatus, Verdict

_Run, _Group = models.ExecutedReductionStep, models.SubGroup
_IS_UNDER_WAY: Final = (
    sa.text(ACTIVE_RUN),  # an index has them
    _Run.status.in_(LIVE_RUN_STATUSES),
    _Run.cancel_requested_at.is_(None),
)
_PENDING: Final = _Run.status == RunStatus.PENDING
_IS_FROZEN: Final = _Run.inputs_frozen_at.is_not(None)
_IS_OPEN: Final = sa.and_(_PENDING, sa.not_(_IS_FROZEN))
_GONE: Final = "its sub-group is gone"
_WRITES: Final = {"synchronize_session": False}
_NOW: Final = sa.func.now()
_PAGE: Final = 5_000
"""Runs that are cancelled at a time, however many they are."""
_STARTABLE: Final = (Verdict.WANTED, Verdict.COOLING, Verdict.BLOCKED)
"""Verdicts on sub-groups that need the run that they have."""
_IS_UNNEEDED: Final = sa.case(
    (_Run.reason == RunReason.RECOMPUTE, sa.false()),  # others need it, who look for themselves
    (_IS_FROZEN, _Group.verdict == Verdict.UP_TO_DATE),
    else_=_Group.verdict.not_in(_STARTABLE),
)
_IS_NEWS: Final = sa.and_(_IS_OPEN, _Run.reason != _Group.reason)
"""Limits ask what runs are for: those whose inputs are not fixed yet have the reason of their sub-group."""


def drop(session: Session, run_ids: Sequence[int], *, because: str, by: str) -> list[int]:
    """Let PENDING runs that nothing needs be CANCELLED, which blocks nothing; those that were PENDING still."""
    values = {"not_needed": True, "finished_at": _NOW, "waiting_for": None, "held_by_limit": False}
    pending = (RunStatus.PENDING,)
    return advance(
        session, _Run, run_ids, to=RunStatus.CANCELLED, because=because, by=by, expected=pending, values=values
    )


def drop_strays(session: Session, pipeline: PipelineNow, *, now: datetime, by: str) -> list[int]:
    """Cancel runs of a pipeline whose sub-groups are there no more; those that were PENDING."""
    return _drop_gone(session, _Run.pipeline_id == pipeline.id, now=now, by=by)


def drop_those_of(session: Session, step: StepNow, keys: Collection[str], *, now: datetime, by: str) -> list[int]:
    """Cancel runs of sub-groups of a step that have these keys and are there no more; those that were PENDING."""
    has_key = _Run.sub_group_key == sa.any_(sa.literal(sorted(keys), sa.ARRAY(sa.Text)))
    which = sa.and_(_Run.reduction_step_id == step.id, has_key)
    return _drop_gone(session, which, now=now, by=by) if keys else []


def _drop_gone(session: Session, which: sa.ColumnElement[bool], *, now: datetime, by: str) -> list[int]:
    of_run = sa.and_(_Group.reduction_step_id == _Run.reduction_step_id, _Group.key == _Run.sub_group_key)
    is_gone = sa.and_(sa.not_(_Run.is_trial), sa.not_(sa.exists().where(of_run)))
    found = session.execute(sa.select(_Run.id, _Run.status).where(which, *_IS_UNDER_WAY, is_gone)).all()
    if live := [run_id for run_id, status in found if status is not RunStatus.PENDING]:
        ask_to_cancel(session, live, because=_GONE, by=by, now=now, not_needed=True)
    pending = [run_id for run_id, status in found if status is RunStatus.PENDING]
    return drop(session, pending, because=_GONE, by=by) if pending else []


def keep_pending(session: Session, step: StepNow, told: Scope, *, by: str) -> list[int]:
    """Cancel runs that sub-groups need no more, and let the others say why they are necessary now; those cancelled."""
    if not told:
        return []
    groups = {} if told.ids is None else {"groups": sorted(told.ids)}
    found = session.execute(_otherwise(some=told.ids is not None), {"step": step.id, **groups}).all()
    unneeded = [(group_id, run_id) for group_id, run_id, is_unneeded in found if is_unneeded]
    pages = [dict(unneeded[start : start + _PAGE]) for start in range(0, len(unneeded), _PAGE)]
    dropped = [run_id for runs in pages for run_id in _drop_page(session, step, runs, by=by)]
    _tell_anew(session, step, [group_id for group_id, _, is_unneeded in found if not is_unneeded])
    return dropped


@cache
def _otherwise(*, some: bool) -> sa.Select[int, int, bool]:
    """Sub-groups with PENDING runs that they need no more, or for another reason; `groups`, if only some are asked."""
    of_group = sa.and_(
        _Run.id == _Group.active_run_id, _Group.reduction_step_id == sa.bindparam("step", type_=sa.BigInteger())
    )
    told = is_given(_Group.id, "groups") if some else sa.true()
    return sa.select(_Group.id, _Run.id, _IS_UNNEEDED).where(of_group, told, _PENDING, sa.or_(_IS_UNNEEDED, _IS_NEWS))


def _drop_page(session: Session, step: StepNow, runs: Mapping[int, int], *, by: str) -> Iterator[int]:
    """Cancel runs, given by their sub-groups, each with what is said of that."""
    by_sentence: defaultdict[str, list[int]] = defaultdict(list)
    for group_id, because in tell(session, step, runs).items():
        by_sentence[because].append(runs[group_id])
    for because, ids in by_sentence.items():
        yield from drop(session, ids, because=f"not needed: {because}", by=by)


def _tell_anew(session: Session, step: StepNow, ids: Sequence[int]) -> None:
    if not ids:
        return
    because = tell(session, step, ids)
    listed = sa.func.unnest(
        sa.literal(list(because), sa.ARRAY(sa.BigInteger)), sa.literal(list(because.values()), sa.ARRAY(sa.Text))
    ).table_valued("id", "because", name="told")
    listed = listed.render_derived()
    of_group = sa.and_(_Group.id == listed.c.id, _Run.id == _Group.active_run_id)
    now = {"reason": _Group.reason, "because": listed.c.because}
    session.execute(sa.update(_Run).where(of_group, _IS_OPEN).values(now), execution_options=_WRITES)
    _wake(session)


def bring_along(session: Session, pipeline: PipelineNow) -> None:
    """Let runs of a pipeline wait where it runs now."""
    elsewhere = sa.and_(_Run.pipeline_id == pipeline.id, _Run.data_location_id != pipeline.location_id)
    there = sa.update(_Run).where(elsewhere, _IS_OPEN).values(data_location_id=pipeline.location_id)
    if session.scalars(there.returning(_Run.id), execution_options=_WRITES).all():
        _wake(session)


def _wake(session: Session) -> None:
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{_Run.__tablename__}:{RunStatus.PENDING}")))
