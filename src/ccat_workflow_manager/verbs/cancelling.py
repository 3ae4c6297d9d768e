"""Jobs that have to end, and those that nobody follows: asked for again and again, until the backend confirms."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.cancelling import CONFIRMED
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.timeouts import TIME_OUTS, UNKNOWN_TOO_LONG
from ccat_ops_db.sets import is_given
from ccat_ops_db.states import FailureClass, RunStatus
from ccat_service.logging import StructuredLogger
from ccat_workflow_manager.execution.durable import alone
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.hpc.base import BackendUnavailable, JobObservation, JobState
from ccat_workflow_manager.verbs.failing import Failure, fail_attempts
from ccat_workflow_manager.verbs.queueing import has_status
from ccat_workflow_manager.verbs.spaces import has_space
from ccat_workflow_manager.verbs.workplace import Workplace

_Run, _Attempt = models.ExecutedReductionStep, models.RunAttempt
_log = StructuredLogger(__name__)
_ASK_AGAIN: Final = timedelta(seconds=10)
"""Pause before a backend is asked again to end a job, or for a job that nobody follows."""
_FORGET: Final = timedelta(minutes=10)
"""How long such a job is looked for: whoever was at handing it in has done so by then, or never will."""
_HERE: Final = _Run.data_location_id == models.DataLocation.id
_IS_STAGING: Final = has_status(RunStatus.STAGING_DATA)
_WRITES: Final = {"synchronize_session": False}
_MOMENT: Final = sa.TIMESTAMP(timezone=True)
_IS_CURRENT: Final = sa.and_(_IS_STAGING, _Attempt.ended_at.is_(None))
_PREPARED_BEFORE: Final = sa.bindparam("prepared_before", type_=_MOMENT)
_UNFOLLOWED: Final = (
    _Attempt.abandoned_at.is_not(None),
    sa.and_(_Run.is_to_be_cancelled, _IS_CURRENT),
    sa.and_(_IS_CURRENT, _Attempt.prepared_at < _PREPARED_BEFORE, has_space()),  # else it waits for that
)
"""Conditions on attempts with their runs, any of which lets a job be looked for."""
_IS_DUE: Final = sa.or_(
    _Attempt.cancel_asked_at.is_(None), _Attempt.cancel_asked_at < sa.bindparam("asked_before", type_=_MOMENT)
)
_TO_FOLLOW: Final = sa.select(models.DataLocation.id).where(
    # Of an array the database expects ten, and for as many looks through all attempts that there ever were.
    models.DataLocation.id.in_(sa.bindparam("places", expanding=True)),
    sa.or_(
        sa.exists().where(_HERE, has_status(RunStatus.SUBMITTED, RunStatus.RUNNING)),
        *(sa.exists().where(_Attempt.run_id == _Run.id, _HERE, _IS_DUE, which) for which in _UNFOLLOWED),
    ),
)
_TO_LOOK_FOR: Final = sa.union(  # each by an index of its own
    *(
        sa.select(
            _Attempt.id,
            _Run.id,
            _Attempt.job_name,
            _Attempt.directory,
            _Attempt.abandoned_at,
            _Run.is_to_be_cancelled,
            _Run.waiting_for,
            sa.func.coalesce(_Attempt.time_hours, models.ReductionStepRevision.resources["time_hours"].as_float()),
        )
        .join(_Run, _Run.id == _Attempt.run_id)
        .join(_Run.step_revision)
        .where(_Run.data_location_id == sa.bindparam("location", type_=sa.BigInteger()), _IS_DUE, which)
        for which in _UNFOLLOWED
    )
)
_ASKED: Final = (
    sa.update(_Attempt)
    .where(is_given(_Attempt.id, "attempts"))
    .values(cancel_asked_at=sa.bindparam("now", type_=_MOMENT))
)
_OVER: Final = sa.update(_Attempt).where(is_given(_Attempt.id, "attempts")).values(abandoned_at=None)


@dataclass(frozen=True)
class _Unfollowed:
    """An attempt that may have a job, which is not observed as its run is not, or no more, SUBMITTED."""

    id: int
    run_id: int
    job_name: str
    directory: str
    abandoned_at: datetime | None
    is_to_be_cancelled: bool
    waiting_for: str | None
    time_hours: float


def locations_to_follow(session: Session, location_ids: Iterable[int], *, now: datetime) -> Sequence[int]:
    """Those of some locations where there are jobs to be observed, ended or looked for."""
    return session.scalars(_TO_FOLLOW, {"places": list(location_ids), **_moments(now)}).all()


def _moments(now: datetime) -> Mapping[str, datetime]:
    return {
        "asked_before": now - _ASK_AGAIN,
        "prepared_before": now - TIME_OUTS[RunStatus.STAGING_DATA].after,
    }


def end_jobs(
    workplace: Workplace, location_id: int, jobs: Mapping[int, tuple[str, datetime | None]], *, now: datetime
) -> None:
    """Ask a backend to end jobs, given by attempt with the moment when it was asked last; no sooner than useful."""
    due = {attempt: job_id for attempt, (job_id, asked_at) in jobs.items() if _is_to_be_asked(asked_at, now)}
    if not due:
        return
    try:
        workplace.backends[location_id].cancel(list(due.values()))
    except (BackendUnavailable, OSError) as error:
        _log.warning("jobs cannot be ended, tried again", location=location_id, error=str(error))
        return
    with workplace.database.transaction() as session:
        _note_asked(session, due, now=now)


def _is_to_be_asked(asked_at: datetime | None, now: datetime) -> bool:
    return asked_at is None or now - asked_at > _ASK_AGAIN


def _note_asked(session: Session, attempt_ids: Collection[int], *, now: datetime) -> None:
    session.execute(_ASKED, {"attempts": list(attempt_ids), "now": now}, execution_options=_WRITES)


def end_unfollowed(workplace: Workplace, location_id: int) -> int:
    """Look for jobs that nobody follows, by their names, and end them; of how many runs and jobs something came out."""
    now = datetime.now(UTC)
    with workplace.database.transaction() as session:
        found = _find(session, location_id, now=now)
    left = [one for one in found if one.abandoned_at is not None]
    done = _scoped(workplace, left, partial(_end_abandoned, workplace, location_id, left, now=now)) if left else 0
    waiting = [one for one in found if one.abandoned_at is None]
    return done + sum(
        _scoped(workplace, [one], partial(_decide, workplace, location_id, one, now=now)) for one in waiting
    )


def _scoped(workplace: Workplace, concerned: Sequence[_Unfollowed], act: Callable[[], int]) -> int:
    """Look for some jobs; trouble with these keeps no others from being looked for, and they are looked for later."""
    try:
        return act()
    except (BackendUnavailable, OSError) as error:
        _log.warning("jobs cannot be looked for, tried again", runs=[one.run_id for one in concerned], error=str(error))
    with workplace.database.transaction() as session:
        _note_asked(session, [one.id for one in concerned], now=datetime.now(UTC))
    return 0


def _find(session: Session, location_id: int, *, now: datetime) -> Sequence[_Unfollowed]:
    rows = session.execute(_TO_LOOK_FOR, {"location": location_id, **_moments(now)})
    return [_Unfollowed(*row) for row in rows]


def _decide(workplace: Workplace, location_id: int, one: _Unfollowed, *, now: datetime) -> bool:
    """Cancel a run that is to be, or fail one that is not handed in for too long, unless its backend has its job.

    Nobody hands it in meanwhile; whoever is at it comes first. Raises OSError where its disk is away.
    """
    workplace.bases[location_id].stat()  # a lock that is made where it is not mounted keeps nobody away
    with alone(RunLayout((workplace.bases[location_id] / one.directory).parent).lock) as is_alone:
        if not is_alone:
            return False
        job_id = workplace.backends[location_id].find([one.job_name]).get(one.job_name)
        with workplace.database.transaction() as session:
            _note_asked(session, [one.id], now=now)
            if job_id is not None:
                return one.is_to_be_cancelled and _adopt(session, one, job_id, now=now, by=workplace.name)
            if one.is_to_be_cancelled:
                return _cancel(session, one, now=now, by=workplace.name)
            return _give_up(session, one, now=now, by=workplace.name)


def _is_still_so(session: Session, one: _Unfollowed) -> bool:
    """Whether the run, now locked, waits with this attempt and the same wish."""
    session.execute(sa.select(_Run.id).where(_Run.id == one.run_id).with_for_update())
    newest = sa.select(sa.func.max(_Attempt.id)).where(_Attempt.run_id == one.run_id).scalar_subquery()
    same = (_Run.id == one.run_id, _IS_STAGING, _Run.is_to_be_cancelled == one.is_to_be_cancelled, newest == one.id)
    return session.scalar(sa.select(sa.exists().where(*same))) or False


def _adopt(session: Session, one: _Unfollowed, job_id: str, *, now: datetime, by: str) -> bool:
    """Follow a job that was handed in, so that it is ended as any other."""
    if not _is_still_so(session, one):
        return False
    handed_in = sa.update(_Attempt).where(_Attempt.id == one.id)
    values = {"job_id": job_id, "submitted_at": now, "cancel_asked_at": None}
    session.execute(handed_in.values(values), execution_options=_WRITES)
    because = f"job {job_id} was handed in before, and is to be ended"
    return _move(session, one, to=RunStatus.SUBMITTED, because=because, by=by)


def _cancel(session: Session, one: _Unfollowed, *, now: datetime, by: str) -> bool:
    if not _is_still_so(session, one):
        return False
    values = {"finished_at": now, "cancel_answer": CONFIRMED, "waiting_for": None}
    _move(session, one, to=RunStatus.CANCELLED, because="its job was not handed in", by=by, values=values)
    ended = sa.update(_Attempt).where(_Attempt.id == one.id)
    session.execute(ended.values(ended_at=now, abandoned_at=now), execution_options=_WRITES)
    return True


def _move(
    session: Session,
    one: _Unfollowed,
    *,
    to: RunStatus,
    because: str,
    by: str,
    values: Mapping[str, object] = MappingProxyType({}),
) -> bool:
    staging = [RunStatus.STAGING_DATA]
    values = {**values, "claimed_by": None, "lease_until": None}
    moved = advance(session, _Run, [one.run_id], to=to, expected=staging, because=because, by=by, values=values)
    return bool(moved)


def _give_up(session: Session, one: _Unfollowed, *, now: datetime, by: str) -> bool:
    if not _is_still_so(session, one):
        return False
    why = one.waiting_for or "no worker handed it in"
    cause = f"its job was not handed in within {TIME_OUTS[RunStatus.STAGING_DATA].after}: {why}"
    failure = Failure(FailureClass.INFRASTRUCTURE, cause, may_live=True)
    return bool(fail_attempts(session, {one.id: failure}, expected=[RunStatus.STAGING_DATA], now=now, by=by))


def _end_abandoned(workplace: Workplace, location_id: int, left: Sequence[_Unfollowed], *, now: datetime) -> int:
    """End jobs whose runs went on without them; how many are known to be over now, or never to have been."""
    backend = workplace.backends[location_id]
    jobs = backend.find([one.job_name for one in left])
    if jobs:
        backend.cancel(list(jobs.values()))
    seen = backend.observe(list(jobs.values())) if jobs else {}
    over = [one.id for one in left if _is_over(one, seen.get(jobs.get(one.job_name, "")), now=now)]
    with workplace.database.transaction() as session:
        _note_asked(session, [one.id for one in left], now=now)
        session.execute(_OVER, {"attempts": over}, execution_options=_WRITES)
    return len(over)


def _is_over(one: _Unfollowed, seen: JobObservation | None, *, now: datetime) -> bool:
    """Whether nothing of an abandoned job can live; one that nobody can tell anything of has ended after its limit."""
    since = now - (one.abandoned_at or now)
    if seen is None:
        return since > _FORGET
    return seen.is_over or (
        seen.state is JobState.UNKNOWN and since > timedelta(hours=one.time_hours) + UNKNOWN_TOO_LONG
    )
