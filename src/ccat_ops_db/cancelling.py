"""The wish to cancel runs: it stands on a run until whoever follows its job has seen the end of that."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.moves import CHANNEL, advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import RunStatus

_Run, _Attempt = models.ExecutedReductionStep, models.RunAttempt
_WRITES: Final = {"synchronize_session": False}
WISHED: Final = f"{_Run.__tablename__}:to_be_cancelled"
"""Payload of the wake-up that follows a wish that somebody has to carry out."""
CONFIRMED: Final = "cancelled"
"""Answer to a wish that was carried out."""
_WAITS: Final = "it is being cancelled: the worker at its location has its job ended"


class Answer(StrEnum):
    """What a wish to cancel a run leads to."""

    CANCELLED = "cancelled"
    """It had no job: it is CANCELLED."""
    ASKED = "asked"
    """It is CANCELLED as soon as its job is seen to be over."""
    NOT_RETRIED = "not_retried"
    """It had FAILED, and is not tried again."""
    TOO_LATE = "too_late"
    """Its results are being collected."""
    OVER = "over"
    """There is nothing left to cancel."""


_SENTENCES: Final[Mapping[Answer, str | None]] = {
    Answer.CANCELLED: CONFIRMED,
    Answer.ASKED: None,
    Answer.NOT_RETRIED: "it had failed, and is not tried again",
    Answer.TOO_LATE: "too late: its results were being collected",
}


def ask_to_cancel(
    session: Session, run_ids: Iterable[int], *, because: str, by: str, now: datetime, not_needed: bool = False
) -> Mapping[int, Answer]:
    """Wish runs to be cancelled, do at once what needs no cluster, and say what becomes of each.

    A wish that stands already stays as it is. What is cancelled as `not_needed` blocks nothing: what its sub-group
    wants later is started by itself.
    """
    answers = _answers(session, run_ids)
    by_answer: defaultdict[Answer, list[int]] = defaultdict(list)
    for run_id, (answer, is_wished) in answers.items():
        if not is_wished and answer is not Answer.OVER:
            by_answer[answer].append(run_id)
    wish = {"cancel_requested_at": now, "cancel_requested_by": by, "cancel_because": because}
    for answer, ids in by_answer.items():
        told = wish | {"cancel_answer": _SENTENCES[answer]} | _also(answer, not_needed=not_needed)
        session.execute(sa.update(_Run).where(is_among(_Run.id, ids)).values(told), execution_options=_WRITES)
    if without_job := by_answer[Answer.CANCELLED]:
        _cancel_at_once(session, without_job, because=f"wished by {by}: {because}", by=by, now=now)
    if by_answer[Answer.ASKED] or by_answer[Answer.CANCELLED]:
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, WISHED)))
    return {run_id: answer for run_id, (answer, _) in answers.items()}


def _also(answer: Answer, *, not_needed: bool) -> dict[str, Any]:
    match answer:
        case Answer.NOT_RETRIED:
            return {"retry_at": None, "not_needed": not_needed}
        case Answer.ASKED:
            return {"waiting_for": _WAITS, "not_needed": not_needed}
        case Answer.CANCELLED:
            return {"not_needed": not_needed}
        case _:
            return {}


def _answers(session: Session, run_ids: Iterable[int]) -> dict[int, tuple[Answer, bool]]:
    """What a wish leads to, and whether it stands already, of runs that are locked by it."""
    columns = (_Run.id, _Run.status, _Run.retry_at, _Run.is_to_be_cancelled)
    locked = sa.select(*columns).where(is_among(_Run.id, run_ids)).order_by(_Run.id).with_for_update()
    rows = session.execute(locked).all()
    prepared = _with_a_job(session, [row.id for row in rows if row.status is RunStatus.STAGING_DATA])
    return {
        row.id: (
            _answer(row.status, is_retried=row.retry_at is not None, may_have_job=row.id in prepared),
            row.is_to_be_cancelled,
        )
        for row in rows
    }


def _answer(status: RunStatus, *, is_retried: bool, may_have_job: bool) -> Answer:
    match status:
        case RunStatus.PENDING:
            return Answer.CANCELLED
        case RunStatus.STAGING_DATA:
            return Answer.ASKED if may_have_job else Answer.CANCELLED
        case RunStatus.SUBMITTED | RunStatus.RUNNING:
            return Answer.ASKED
        case RunStatus.COLLECTING_RESULTS:
            return Answer.TOO_LATE
        case RunStatus.FAILED if is_retried:
            return Answer.NOT_RETRIED
        case _:
            return Answer.OVER


def _with_a_job(session: Session, run_ids: Sequence[int]) -> frozenset[int]:
    """Runs in STAGING_DATA whose job may be handed in already."""
    newest = _newest(run_ids).subquery()
    prepared = sa.select(_Attempt.run_id).join(newest, newest.c.id == _Attempt.id)
    return frozenset(session.scalars(prepared.where(_Attempt.prepared_at.is_not(None)))) if run_ids else frozenset()


def _newest(run_ids: Sequence[int]) -> sa.Select[int]:
    """The newest attempts of runs."""
    return (
        sa.select(sa.func.max(_Attempt.id).label("id"))
        .where(is_among(_Attempt.run_id, run_ids))
        .group_by(_Attempt.run_id)
    )


def _cancel_at_once(session: Session, run_ids: Sequence[int], *, because: str, by: str, now: datetime) -> None:
    """Cancel runs that have no job; should a worker hand one in at this moment, it is ended all the same."""
    values = {"finished_at": now, "waiting_for": None, "held_by_limit": False, "claimed_by": None, "lease_until": None}
    advance(session, _Run, run_ids, to=RunStatus.CANCELLED, because=because, by=by, values=values)
    begun = sa.update(_Attempt).where(_Attempt.id.in_(_newest(run_ids)), _Attempt.ended_at.is_(None))
    session.execute(begun.values(abandoned_at=now, ended_at=now), execution_options=_WRITES)
