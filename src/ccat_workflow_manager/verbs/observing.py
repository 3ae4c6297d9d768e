"""SUBMITTED, RUNNING → where their jobs are: one question per backend and round, whatever the number of runs."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.claims import claim, is_free, release
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import RunStatus
from ccat_service.logging import StructuredLogger
from ccat_service.processes import claimant
from ccat_service.trouble import is_transient
from ccat_workflow_manager.hpc.base import Backend, BackendUnavailable, JobObservation, JobState
from ccat_workflow_manager.hpc.failures import one_line_cause
from ccat_workflow_manager.plan.outcomes import Outcome, outcome, waits_for
from ccat_workflow_manager.verbs.describing import current_attempts
from ccat_workflow_manager.verbs.failing import Failure, fail_attempt
from ccat_workflow_manager.verbs.workplace import Workplace, note

_Run = models.ExecutedReductionStep
_log = StructuredLogger(__name__)
_WATCHED: Final = (RunStatus.SUBMITTED, RunStatus.RUNNING)
_OBSERVER: Final = "observer"
_LEASE: Final = timedelta(seconds=15)
"""How long one look at a location may take before another worker looks too; that does no harm, only double work."""
_BATCH: Final = 100
"""Runs whose news is recorded in one transaction."""


@dataclass(frozen=True)
class _Watched:
    """What the meaning of a look depends on, beside the look."""

    attempt_id: int
    run_id: int
    status: RunStatus
    time_limit: timedelta
    unknown_since: datetime | None
    waiting_for: str | None


@dataclass(frozen=True)
class _News:
    """What a look at one job means for its run; without an outcome it stays where it is."""

    watched: _Watched
    observation: JobObservation
    outcome: Outcome | None
    unknown_since: datetime | None
    waiting_for: str | None
    log_tail: str | None


def observe_locations(workplace: Workplace, location_ids: Sequence[int]) -> int:
    """Ask the backend of each location about all its jobs, move their runs, and return for how many there was news.

    A location that another worker is asking about is left to it. A backend that does not answer is told as what its
    runs wait for; nothing else follows from it.
    """
    return sum(_observe_alone(workplace, location_id) for location_id in location_ids)


def _observe_alone(workplace: Workplace, location_id: int) -> int:
    me = f"{claimant(f'{_OBSERVER} {workplace.name}')} {secrets.token_hex(4)}"
    with workplace.database.transaction() as session:
        if not _take_over(session, location_id, by=me):
            return 0
    try:
        return _observe(workplace, location_id)
    finally:
        with workplace.database.transaction() as session:
            release(session, models.DataLocation, [location_id], by=me)


def _take_over(session: Session, location_id: int, *, by: str) -> bool:
    """Take the lease of the manager that asks; False where another observer has it."""
    location = models.DataLocation
    here = sa.select(location.claimed_by).where(location.id == location_id)
    holder = session.scalar(here.where(sa.not_(is_free(location))).with_for_update(of=location.__table__))
    if holder is not None and holder.startswith(_OBSERVER):
        return False
    release(session, location, [location_id])
    return bool(claim(session, location, where=location.id == location_id, by=by, lease=_LEASE, limit=1))


def _observe(workplace: Workplace, location_id: int) -> int:
    with workplace.database.transaction() as session:
        watched = {one.job_id: _as_watched(one) for one in _attempts(session, location_id) if one.job_id}
    try:
        news = _look(workplace.backends[location_id], watched, now=datetime.now(UTC)) if watched else []
    except BackendUnavailable as error:
        _log.warning("jobs cannot be observed, tried again", location=location_id, error=str(error))
        with workplace.database.transaction() as session:
            note(session, [one.run_id for one in watched.values()], str(error), where=_Run.status.in_(_WATCHED))
        return 0
    return sum(_apply_batch(workplace, news[start : start + _BATCH]) for start in range(0, len(news), _BATCH))


def _apply_batch(workplace: Workplace, news: Sequence[_News]) -> int:
    """Apply news to those attempts that are still where they were when the backend was asked."""
    by_attempt = {one.watched.attempt_id: one for one in news}
    run_ids = [one.watched.run_id for one in news]
    with workplace.database.transaction() as session:
        session.execute(sa.select(_Run.id).where(is_among(_Run.id, run_ids)).order_by(_Run.id).with_for_update())
        attempts = [one for one in current_attempts(session, is_among(_Run.id, run_ids)) if one.id in by_attempt]
        return sum(
            _apply_alone(session, attempt, by_attempt[attempt.id], by=workplace.name)
            for attempt in attempts
            if attempt.run.status is by_attempt[attempt.id].watched.status
        )


def _attempts(session: Session, location_id: int) -> Sequence[models.RunAttempt]:
    return current_attempts(session, _Run.data_location_id == location_id, _Run.status.in_(_WATCHED))


def _as_watched(attempt: models.RunAttempt) -> _Watched:
    run = attempt.run
    limit = timedelta(hours=run.step_revision.resources["time_hours"])
    return _Watched(attempt.id, run.id, run.status, limit, attempt.unknown_since, run.waiting_for)


def _look(backend: Backend, watched: Mapping[str, _Watched], *, now: datetime) -> list[_News]:
    """What is new about jobs."""
    news = []
    for job_id, observation in backend.observe(watched.keys()).items():
        before = watched[job_id]
        since = (before.unknown_since or now) if observation.state is JobState.UNKNOWN else None
        unknown_for = now - since if since else timedelta()
        found = outcome(before.status, observation, unknown_for=unknown_for, time_limit=before.time_limit)
        reason = waits_for(observation)
        if found is not None and since is not None:
            backend.cancel([job_id])  # should it live somewhere after all
        if found is not None or (since, reason) != (before.unknown_since, before.waiting_for):
            log_tail = _log_tail(backend, job_id) if observation.is_over else None
            news.append(_News(before, observation, found, since, reason, log_tail))
    return news


def _log_tail(backend: Backend, job_id: str) -> str:
    """What a job wrote last, without the one character that the database does not keep."""
    return backend.logs(job_id).replace("\0", "\N{REPLACEMENT CHARACTER}")


def _apply_alone(session: Session, attempt: models.RunAttempt, news: _News, *, by: str) -> bool:
    """Apply the news of one job; whatever is wrong with it, the others of its location go on."""
    try:
        with session.begin_nested():
            _apply(session, attempt, news, by=by)
    except Exception as error:
        if is_transient(error):
            raise
        _log.exception("news of a job cannot be recorded", error, run=attempt.run_id, job=attempt.job_id)
        return False
    return True


def _apply(session: Session, attempt: models.RunAttempt, news: _News, *, by: str) -> None:
    seen, now = news.observation, datetime.now(UTC)
    attempt.unknown_since = news.unknown_since
    if news.outcome is None:
        attempt.run.waiting_for = news.waiting_for
        return
    _measure(attempt, news)
    if news.outcome.failure is not None:
        cause = one_line_cause(news.log_tail or "", seen)
        failure = Failure(news.outcome.failure, cause, news.log_tail)
        fail_attempt(session, attempt, failure, expected=_WATCHED, now=now, by=by)
        return
    advance(
        session,
        _Run,
        [attempt.run_id],
        to=news.outcome.to,
        expected=[status for status in _WATCHED if status is not news.outcome.to],
        because=f"its job is {seen.state}",
        by=by,
        values={"waiting_for": None, **({"finished_at": now} if news.outcome.to is RunStatus.CANCELLED else {})},
    )


def _measure(attempt: models.RunAttempt, news: _News) -> None:
    seen = news.observation
    attempt.started_at = seen.started_at
    attempt.ended_at = seen.ended_at
    attempt.exit_code = seen.exit_code
    attempt.wall_time_s = seen.wall_time.total_seconds() if seen.wall_time else None
    attempt.cpu_time_s = seen.cpu_time.total_seconds() if seen.cpu_time else None
    attempt.peak_memory_bytes = seen.peak_memory_bytes
    attempt.host = seen.host
    attempt.log_tail = news.log_tail
