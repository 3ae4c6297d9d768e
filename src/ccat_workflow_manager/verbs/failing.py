"""→ FAILED: attempts that failed are recorded together, each with its class, its cause, and the moment of its retry."""

import random
from collections.abc import Collection, Mapping, Sequence
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
from ccat_ops_db.sets import Brought, is_given, once_more
from ccat_ops_db.states import FailureClass, Resource, RunStatus
from ccat_workflow_manager.plan.fingerprints import fingerprint
from ccat_workflow_manager.plan.resources import may_grow, next_request
from ccat_workflow_manager.plan.retries import Retry, Tries, retry_after
from ccat_workflow_manager.verbs.asking import asked_by
from ccat_workflow_manager.verbs.queueing import has_status

_Run, _Attempt = models.ExecutedReductionStep, models.RunAttempt
_Newer = once_more(_Attempt)
_IS_FOLLOWED = sa.exists().where(_Newer.run_id == _Run.id, _Newer.number > _Attempt.number).correlate(_Run, _Attempt)
_WRITES: Final = {"synchronize_session": False}
_LEFT: Final = {"waiting_for": None, "claimed_by": None, "lease_until": None}
_UNWANTED: Final = "it is not tried again, as somebody wished it to be cancelled"
_MOMENT: Final = sa.TIMESTAMP(timezone=True)
_TOLD: Final = Brought(
    "told",
    failure_class=sa.Text(),
    failure=sa.Text(),
    fingerprint=sa.Text(),
    retry_at=_MOMENT,
    retry_count=sa.BigInteger(),
    trouble_count=sa.BigInteger(),
    finished_at=_MOMENT,
)
_IS_TROUBLE: Final = _TOLD.c.failure_class == FailureClass.INFRASTRUCTURE
_FAILED: Final[Mapping[str, Any]] = {
    **{name: _TOLD.c[name] for name in ("failure_class", "failure", "fingerprint", "retry_at", "finished_at")},
    **{name: sa.func.coalesce(_TOLD.c[name], getattr(_Run, name)) for name in ("retry_count", "trouble_count")},
    "trouble_since": sa.case((_IS_TROUBLE, sa.func.coalesce(_Run.trouble_since, _TOLD.c.finished_at)), else_=None),
}
_ENDED: Final = Brought("ended", because=sa.Text())
_NOTED: Final = Brought(
    "noted",
    failure_class=sa.Text(),
    cause=sa.Text(),
    fingerprint=sa.Text(),
    exhausted=sa.Text(),
    log_tail=sa.Text(),
    abandoned_at=_MOMENT,
    ended_at=_MOMENT,
)
_NOTE: Final = (
    sa.update(_Attempt)
    .where(_Attempt.id == _NOTED.c.id)
    .values(
        {
            **{name: column for name, column in _NOTED.c.items() if name != "id"},
            "log_tail": sa.func.coalesce(_NOTED.c.log_tail, _Attempt.log_tail),
            "ended_at": sa.func.coalesce(_Attempt.ended_at, _NOTED.c.ended_at),
        }
    )
)
NEXT_RETRY: Final = sa.select(sa.func.min(_Run.retry_at)).where(
    has_status(RunStatus.FAILED), _Run.retry_at.is_not(None)
)
"""The moment of the next automatic retry."""


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


def newest_attempts(*conditions: sa.ColumnElement[bool]) -> sa.Select[int, int]:
    """Runs and their newest attempts, as far as both meet conditions."""
    return (
        sa.select(_Run.id, _Attempt.id)
        .join(_Attempt, _Attempt.run_id == _Run.id)
        .where(*conditions, sa.not_(_IS_FOLLOWED))
    )


_NEWEST: Final = newest_attempts(is_given(_Run.id, "runs"))
_CONCERNED: Final = (
    sa.select(
        _Run.id,
        _Attempt.id.label("attempt_id"),
        _Run.is_to_be_cancelled,
        _Run.cancel_requested_at,
        _Run.retry_count,
        _Run.trouble_count,
        _Run.trouble_since,
        _Attempt.memory_gb,
        _Attempt.time_hours,
        models.ReductionStepRevision.max_retries,
        models.ReductionStepRevision.resources,
    )
    .join(_Attempt, _Attempt.run_id == _Run.id)
    .join(_Run.step_revision)
    .where(is_given(_Attempt.id, "attempts"), _Run.status.in_(sa.bindparam("expected", expanding=True)))
    .order_by(_Run.id)
    .with_for_update(of=_Run)
)


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
    given = {"attempts": list(failures), "expected": list(expected)}
    found: Sequence[Any] = session.execute(_CONCERNED, given).all()
    newest = {row[1] for row in session.execute(_NEWEST, {"runs": [row.id for row in found]})}
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
    each = failed.values()
    told = _TOLD.rows(
        failed,
        failure_class=[one.failure.kind for one in each],
        failure=[one.failure.cause for one in each],
        fingerprint=[one.fingerprint for one in each],
        retry_at=[now + one.retry.delay if one.retry else None for one in each],
        retry_count=[one.retry.counted if one.retry else None for one in each],
        trouble_count=[one.retry.trouble if one.retry else None for one in each],
        finished_at=[now] * len(each),
    )
    return advance(
        session,
        _Run,
        failed,
        to=RunStatus.FAILED,
        expected=expected,
        because=_TOLD.c.failure,
        by=by,
        values={**_FAILED, **_LEFT},
        listed=told,
    )


def _cancel(
    session: Session, failed: Mapping[int, _Failed], *, expected: Collection[RunStatus], now: datetime, by: str
) -> list[int]:
    """A run that is to be cancelled is not tried again, and not started again by itself."""
    if not failed:
        return []
    because = [f"its attempt ended with a failure: {one.failure.cause}" for one in failed.values()]
    return advance(
        session,
        _Run,
        failed,
        to=RunStatus.CANCELLED,
        expected=expected,
        because=_ENDED.c.because,
        by=by,
        values={"finished_at": now, "cancel_answer": CONFIRMED, **_LEFT},
        listed=_ENDED.rows(failed, because=because),
    )


def _record(session: Session, failed: Sequence[_Failed], *, now: datetime) -> None:
    """Write down on attempts how they failed."""
    if not failed:
        return
    failures = [one.failure for one in failed]
    noted = _NOTED.rows(
        [one.attempt_id for one in failed],
        failure_class=[one.kind for one in failures],
        cause=[one.cause for one in failures],
        fingerprint=[one.fingerprint for one in failed],
        exhausted=[one.exhausted for one in failures],
        log_tail=[one.log_tail for one in failures],
        abandoned_at=[now if one.may_live else None for one in failures],
        ended_at=[now] * len(failed),
    )
    session.execute(_NOTE, noted.parameters, execution_options=_WRITES)


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


def _uncollected() -> sa.Select[int, int, str, str | None]:
    """Runs whose results could be collected `before` a moment, and were not."""
    change, before = models.StatusChange, sa.bindparam("before", type_=_MOMENT)
    came = sa.and_(change.noun == _Run.__tablename__, change.object_id == _Run.id)
    came = sa.and_(came, change.to_status == RunStatus.COLLECTING_RESULTS)
    # Nobody could collect them before the job was seen to have ended.
    since = sa.select(sa.func.max(change.at)).where(came).correlate(_Run).scalar_subquery()
    here = sa.and_(has_status(RunStatus.COLLECTING_RESULTS), is_given(_Run.data_location_id, "places"))
    ended_at = sa.func.coalesce(_Attempt.ended_at, _Attempt.submitted_at)  # spares a look at the history of the others
    is_late = sa.and_(ended_at < before, sa.func.coalesce(since, ended_at) < before)
    return newest_attempts(here, is_late).add_columns(_Attempt.directory, _Run.waiting_for)


_UNCOLLECTED: Final = _uncollected()


def give_up_uncollected(session: Session, location_ids: Collection[int], *, now: datetime, by: str) -> int:
    """Give up runs whose results could not be collected in time, and return how many; no payload is repeated for it."""
    timeout = TIME_OUTS[RunStatus.COLLECTING_RESULTS].after
    late = session.execute(_UNCOLLECTED, {"places": list(location_ids), "before": now - timeout})
    failures = {
        attempt_id: Failure(
            FailureClass.INFRASTRUCTURE,
            f"{why or 'its results were not collected'}, for {timeout}; what it made stays in {directory}",
            gives_up=True,
        )
        for _, attempt_id, directory, why in late
    }
    if not failures:
        return 0
    return len(fail_attempts(session, failures, expected=[RunStatus.COLLECTING_RESULTS], now=now, by=by))
