"""→ FAILED: attempts that failed are recorded together, each with its class, its cause, and the moment of its retry."""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.cancelling import CONFIRMED
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.hiding import hide
from ccat_ops_db.plan.timeouts import TIME_OUTS
from ccat_ops_db.sets import is_among, once_more, rows
from ccat_ops_db.states import FailureClass, Resource, RunStatus
from ccat_workflow_manager.plan.fingerprints import fingerprint
from ccat_workflow_manager.plan.resources import may_grow, next_request
from ccat_workflow_manager.plan.retries import Retry, Tries, retry_after
from ccat_workflow_manager.verbs.asking import asked_by

_Run, _Attempt = models.ExecutedReductionStep, models.RunAttempt
_Newer = once_more(_Attempt)
_IS_FOLLOWED = sa.exists().where(_Newer.run_id == _Run.id, _Newer.number > _Attempt.number).correlate(_Run, _Attempt)
_WRITES: Final = {"synchronize_session": False}
_LEFT: Final = {"waiting_for": None, "claimed_by": None, "lease_until": None}
_UNWANTED: Final = "it is not tried again, as somebody wished it to be cancelled"
_MOMENT: Final = sa.TIMESTAMP(timezone=True)


@dataclass(frozen=True)
class Failure:
    """What went wrong with an attempt."""

    kind: FailureClass
    cause: str
    """One line, for people."""
    log_tail: str | None = None
    exhausted: Resource | None = None
    """Of what it needed more than it had, if that was it."""
    may_live: bool = False
    """Whether its job may live somewhere all the same."""
    gives_up: bool = False
    """Whether it is not tried again, whatever its kind."""


@dataclass(frozen=True)
class _Failed:
    """A failed attempt, and what becomes of its run."""

    attempt_id: int
    failure: Failure
    is_to_be_cancelled: bool
    retry: Retry | None
    fingerprint: str


def fail_attempt(
    session: Session,
    attempt: models.RunAttempt,
    failure: Failure,
    *,
    expected: Collection[RunStatus],
    now: datetime,
    by: str,
) -> bool:
    """Record a failed attempt; returns False where somebody else moved its run on from where it was expected."""
    return bool(fail_attempts(session, {attempt.id: failure}, expected=expected, now=now, by=by))


def fail_attempts(
    session: Session, failures: Mapping[int, Failure], *, expected: Collection[RunStatus], now: datetime, by: str
) -> list[int]:
    """Record attempts, given by id, that failed: each run becomes FAILED, with the moment of its retry if it gets one.

    A run that somebody wishes to be cancelled is CANCELLED, and one for which that wish came too late gets no retry.
    Returns the runs that were moved: whoever else is not where it was expected, or has a newer attempt, was moved on by
    somebody else. What looks like a secret in a cause, which is told to people and may be any line that software wrote,
    is not recorded.
    """
    failures = {one: replace(failure, cause=hide((), failure.cause)) for one, failure in failures.items()}
    failed = _judge(session, failures, expected=expected, now=now)
    cancelled = {run_id: one for run_id, one in failed.items() if one.is_to_be_cancelled}
    given = {run_id: one for run_id, one in failed.items() if not one.is_to_be_cancelled}
    moved = _cancel(session, cancelled, expected=expected, now=now, by=by)
    moved += _fail(session, given, expected=expected, now=now, by=by)
    _record(session, [failed[run_id] for run_id in moved], now=now)
    return sorted(moved)


def _judge(
    session: Session, failures: Mapping[int, Failure], *, expected: Collection[RunStatus], now: datetime
) -> dict[int, _Failed]:
    """What becomes of the runs that are where they were expected, which are locked by it; by run id."""
    wish = (_Run.is_to_be_cancelled, _Run.cancel_requested_at)
    counts = (_Run.retry_count, _Run.trouble_count, _Run.trouble_since)
    asked = (_Attempt.memory_gb, _Attempt.time_hours)
    step = (models.ReductionStepRevision.max_retries, models.ReductionStepRevision.resources)
    found: Sequence[Any] = session.execute(
        sa.select(_Run.id, _Attempt.id.label("attempt_id"), *wish, *counts, *asked, *step)
        .join(_Attempt, _Attempt.run_id == _Run.id)
        .join(_Run.step_revision)
        .where(is_among(_Attempt.id, failures), _Run.status.in_(expected))
        .order_by(_Run.id)
        .with_for_update(of=_Run)
    ).all()
    newest = {row[1] for row in session.execute(newest_attempts(is_among(_Run.id, [row.id for row in found])))}
    return {row.id: _judged(row, failures[row.attempt_id], now=now) for row in found if row.attempt_id in newest}


def _judged(row: Any, failure: Failure, *, now: datetime) -> _Failed:
    last = asked_by(row.memory_gb, row.time_hours)
    grows = failure.exhausted is not None and may_grow(
        row.resources, last or next_request(row.resources), failure.exhausted
    )
    tries = Tries(
        row.retry_count,
        row.trouble_count,
        row.max_retries,
        trouble_for=now - row.trouble_since if row.trouble_since else timedelta(),
        may_grow=grows,
    )
    jitter = random.random()  # noqa: S311 - spreads retries, guards nothing
    retry = retry_after(failure.kind, tries, jitter=jitter)
    alike = fingerprint(failure.kind, failure.cause)
    if retry is not None and row.cancel_requested_at is not None and not row.is_to_be_cancelled:  # it came too late
        failure = replace(failure, cause=f"{failure.cause}; {_UNWANTED}", gives_up=True)
    return _Failed(row.attempt_id, failure, row.is_to_be_cancelled, None if failure.gives_up else retry, alike)


def _fail(
    session: Session, failed: Mapping[int, _Failed], *, expected: Collection[RunStatus], now: datetime, by: str
) -> list[int]:
    if not failed:
        return []
    text, count, each = sa.Text(), sa.BigInteger(), failed.values()
    told = rows(
        "told",
        list(failed),
        failure_class=(text, [one.failure.kind for one in each]),
        failure=(text, [one.failure.cause for one in each]),
        fingerprint=(text, [one.fingerprint for one in each]),
        retry_at=(_MOMENT, [now + one.retry.delay if one.retry else None for one in each]),
        retry_count=(count, [one.retry.counted if one.retry else None for one in each]),
        trouble_count=(count, [one.retry.trouble if one.retry else None for one in each]),
    )
    is_trouble = told.c.failure_class == FailureClass.INFRASTRUCTURE
    values = {
        **{name: told.c[name] for name in ("failure_class", "failure", "fingerprint", "retry_at")},
        **{name: sa.func.coalesce(told.c[name], getattr(_Run, name)) for name in ("retry_count", "trouble_count")},
        "trouble_since": sa.case((is_trouble, sa.func.coalesce(_Run.trouble_since, now)), else_=None),
        "finished_at": now,
        **_LEFT,
    }
    return advance(
        session,
        _Run,
        failed,
        to=RunStatus.FAILED,
        expected=expected,
        because=told.c.failure,
        by=by,
        values=values,
        listed=told,
    )


def _cancel(
    session: Session, failed: Mapping[int, _Failed], *, expected: Collection[RunStatus], now: datetime, by: str
) -> list[int]:
    """A run that is to be cancelled is not tried again, and not started again by itself."""
    if not failed:
        return []
    because = [f"its attempt ended with a failure: {one.failure.cause}" for one in failed.values()]
    told = rows("told", list(failed), because=(sa.Text(), because))
    return advance(
        session,
        _Run,
        failed,
        to=RunStatus.CANCELLED,
        expected=expected,
        because=told.c.because,
        by=by,
        values={"finished_at": now, "cancel_answer": CONFIRMED, **_LEFT},
        listed=told,
    )


def _record(session: Session, failed: Sequence[_Failed], *, now: datetime) -> None:
    """Write down on attempts how they failed."""
    if not failed:
        return
    text, failures = sa.Text(), [one.failure for one in failed]
    told = rows(
        "failed",
        [one.attempt_id for one in failed],
        failure_class=(text, [one.kind for one in failures]),
        cause=(text, [one.cause for one in failures]),
        fingerprint=(text, [one.fingerprint for one in failed]),
        exhausted=(text, [one.exhausted for one in failures]),
        log_tail=(text, [one.log_tail for one in failures]),
        abandoned_at=(_MOMENT, [now if one.may_live else None for one in failures]),
    )
    values = {name: column for name, column in told.c.items() if name != "id"}
    ended = {
        "ended_at": sa.func.coalesce(_Attempt.ended_at, now),
        "log_tail": sa.func.coalesce(told.c.log_tail, _Attempt.log_tail),
    }
    session.execute(
        sa.update(_Attempt).where(_Attempt.id == told.c.id).values(values | ended), execution_options=_WRITES
    )


def retry_due_runs(session: Session, *, now: datetime, by: str, limit: int = 100) -> list[int]:
    """Put FAILED runs whose retry is due back to PENDING; the start decides whether they are still wanted."""
    due = session.scalars(
        sa.select(_Run.id)
        .where(_Run.status == RunStatus.FAILED, _Run.retry_at <= now)
        .order_by(_Run.retry_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    values = {"retry_at": None, "finished_at": None}
    to, failed, because = RunStatus.PENDING, [RunStatus.FAILED], "tried again"
    return advance(session, _Run, due, to=to, expected=failed, because=because, by=by, values=values)


def next_retry(session: Session) -> datetime | None:
    """The moment of the next automatic retry."""
    return session.scalar(sa.select(sa.func.min(_Run.retry_at)).where(_Run.status == RunStatus.FAILED))


def give_up_uncollected(session: Session, location_ids: Iterable[int], *, now: datetime, by: str) -> int:
    """Give up runs whose results could not be collected in time, and return how many; no payload is repeated for it."""
    timeout = TIME_OUTS[RunStatus.COLLECTING_RESULTS].after
    here = sa.and_(_Run.status == RunStatus.COLLECTING_RESULTS, _Run.data_location_id.in_(location_ids))
    ended_at = sa.func.coalesce(_Attempt.ended_at, _Attempt.submitted_at)  # spares a look at the history of the others
    is_late = sa.and_(ended_at < now - timeout, sa.func.coalesce(_collecting_since(), ended_at) < now - timeout)
    late = newest_attempts(here, is_late).add_columns(_Attempt.directory, _Run.waiting_for)
    failures = {
        attempt_id: Failure(
            FailureClass.INFRASTRUCTURE,
            f"{why or 'its results were not collected'}, for {timeout}; what it made stays in {directory}",
            gives_up=True,
        )
        for _, attempt_id, directory, why in session.execute(late)
    }
    if not failures:
        return 0
    return len(fail_attempts(session, failures, expected=[RunStatus.COLLECTING_RESULTS], now=now, by=by))


def _collecting_since() -> sa.ScalarSelect[datetime]:
    """Since when the results of a run can be collected: nobody could before its job was seen to have ended."""
    change = models.StatusChange
    came = sa.and_(change.noun == _Run.__tablename__, change.object_id == _Run.id)
    came = sa.and_(came, change.to_status == RunStatus.COLLECTING_RESULTS)
    return sa.select(sa.func.max(change.at)).where(came).correlate(_Run).scalar_subquery()


def newest_attempts(*conditions: sa.ColumnElement[bool]) -> sa.Select[int, int]:
    """Runs and their newest attempts, as far as both meet conditions."""
    return (
        sa.select(_Run.id, _Attempt.id)
        .join(_Attempt, _Attempt.run_id == _Run.id)
        .where(*conditions, sa.not_(_IS_FOLLOWED))
    )
