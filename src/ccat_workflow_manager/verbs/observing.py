"""SUBMITTED, RUNNING → where their jobs are: one question per backend and round, whatever the number of runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.claims import release
from ccat_ops_db.moves import advance
from ccat_ops_db.states import RunStatus
from ccat_service.logging import StructuredLogger
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


@dataclass(frozen=True)
class _Watched:
    """What the meaning of a look depends on, beside the look."""

    status: RunStatus
    time_limit: timedelta
    unknown_since: datetime | None
    waiting_for: str | None


@dataclass(frozen=True)
class _News:
    """What a look at one job means for its run; without an outcome it stays where it is."""

    observation: JobObservation
    outcome: Outcome | None
    unknown_since: datetime | None
    waiting_for: str | None
    log_tail: str | None


def observe_locations(workplace: Workplace, location_ids: Sequence[int]) -> int:
    """Ask the backend of each location about all its jobs, move their runs, and return for how many there was news.

    A backend that does not answer is told as what its runs wait for; nothing else follows from it.
    """
    try:
        return sum(_observe(workplace, location_id) for location_id in location_ids)
    finally:
        with workplace.database.transaction() as session:
            release(session, models.DataLocation, location_ids)


def _observe(workplace: Workplace, location_id: int) -> int:
    with workplace.database.transaction() as session:
        watched = {one.job_id: _as_watched(one) for one in _attempts(session, location_id) if one.job_id}
    try:
        news = _look(workplace.backends[location_id], watched, now=datetime.now(UTC)) if watched else {}
    except BackendUnavailable as error:
        _log.warning("jobs cannot be observed, tried again", location=location_id, error=str(error))
        with workplace.database.transaction() as session:
            note(session, [attempt.run_id for attempt in _attempts(session, location_id)], str(error))
        return 0
    if not news:
        return 0
    with workplace.database.transaction() as session:
        attempts = [attempt for attempt in _attempts(session, location_id) if attempt.job_id in news]
        return sum(_apply_alone(session, attempt, news[str(attempt.job_id)], by=workplace.name) for attempt in attempts)


def _attempts(session: Session, location_id: int) -> Sequence[models.RunAttempt]:
    return current_attempts(session, _Run.data_location_id == location_id, _Run.status.in_(_WATCHED))


def _as_watched(attempt: models.RunAttempt) -> _Watched:
    run = attempt.run
    limit = timedelta(hours=run.step_revision.resources["time_hours"])
    return _Watched(run.status, limit, attempt.unknown_since, run.waiting_for)


def _look(backend: Backend, watched: Mapping[str, _Watched], *, now: datetime) -> dict[str, _News]:
    """What is new about jobs."""
    news = {}
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
            news[job_id] = _News(observation, found, since, reason, log_tail)
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
