"""SUBMITTED, RUNNING → where their jobs are: one question per backend and round, whatever the number of runs."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.claims import is_free, release
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import Brought, is_among, is_given, table_of
from ccat_ops_db.states import FailureClass, RunStatus
from ccat_service.logging import StructuredLogger
from ccat_service.processes import claimant
from ccat_service.trouble import is_transient
from ccat_workflow_manager.execution.container import container_trouble
from ccat_workflow_manager.hpc.base import Backend, BackendUnavailable, JobObservation, JobState
from ccat_workflow_manager.hpc.failures import one_line_cause
from ccat_workflow_manager.plan.outcomes import Followed, Outcome, has_to_end, outcome, waits_for
from ccat_workflow_manager.verbs.cancelling import end_jobs, end_unfollowed
from ccat_workflow_manager.verbs.failing import Failure, fail_attempts
from ccat_workflow_manager.verbs.queueing import has_status
from ccat_workflow_manager.verbs.workplace import Workplace, note

_Run, _Attempt, _Revision = models.ExecutedReductionStep, models.RunAttempt, models.ReductionStepRevision
_log = StructuredLogger(__name__)
_WATCHED: Final = (RunStatus.SUBMITTED, RunStatus.RUNNING)
_OBSERVER: Final = "observer"
_LEASE: Final = timedelta(seconds=15)
"""How long one look at a location may take before another worker looks too; that does no harm, only double work."""
_BATCH: Final = 100
"""Runs whose news is recorded in one transaction."""
_LOCATION: Final = table_of(models.DataLocation)
_WRITES: Final = {"synchronize_session": False}
_MOMENT: Final = sa.TIMESTAMP(timezone=True)

_NEWEST: Final = sa.select(sa.func.max(_Attempt.id)).where(_Attempt.run_id == _Run.id).correlate(_Run).scalar_subquery()
_TAKE_OVER: Final = (
    sa.update(_LOCATION)
    .where(_LOCATION.c.id == sa.bindparam("location", type_=sa.BigInteger()))
    .where(sa.or_(is_free(models.DataLocation), sa.not_(_LOCATION.c.claimed_by.startswith(_OBSERVER))))
    .values(claimed_by=sa.bindparam("observer", type_=sa.Text()), lease_until=sa.func.clock_timestamp() + _LEASE)
    .returning(_LOCATION.c.id)
)
_FOLLOWED: Final = (
    sa.select(
        _Attempt.job_id,
        _Attempt.id.label("attempt_id"),
        _Run.id.label("run_id"),
        _Run.status,
        sa.func.coalesce(_Attempt.time_hours, _Revision.resources["time_hours"].as_float()).label("time_hours"),
        sa.func.coalesce(_Attempt.memory_gb, _Revision.resources["memory_gb"].as_float()).label("memory_gb"),
        sa.func.coalesce(_Attempt.submitted_at, _Attempt.created_at).label("submitted_at"),
        _Attempt.unknown_since,
        _Run.is_to_be_cancelled,
        _Run.waiting_for,
        _Attempt.cancel_asked_at,
    )
    .join(_Attempt, _Attempt.id == _NEWEST)
    .join(_Run.step_revision)
    .where(_Run.data_location_id == sa.bindparam("location", type_=sa.BigInteger()))
    .where(has_status(*_WATCHED), _Attempt.job_id.is_not(None))
)
_IN_IMAGES: Final = (
    sa.select(_Run.id)
    .join(_Run.software_version)
    .where(is_given(_Run.id, "runs"), models.ReductionSoftwareVersion.image_ref.is_not(None))
)
_LOCKED: Final = sa.select(_Run.id).where(is_given(_Run.id, "runs")).order_by(_Run.id).with_for_update()
_STATUS: Final = sa.select(_Run.id, _NEWEST, _Run.status, _Run.is_to_be_cancelled).where(is_given(_Run.id, "runs"))
_LOST: Final = Brought("lost", unknown_since=_MOMENT)
_NOTE_LOST: Final = (
    sa.update(_Attempt)
    .where(_Attempt.id == _LOST.c.id, _Attempt.unknown_since.is_distinct_from(_LOST.c.unknown_since))
    .values(unknown_since=_LOST.c.unknown_since)
)
_WAITING: Final = Brought("waiting", waiting_for=sa.Text())
_NOTE_WAITING: Final = sa.update(_Run).where(_Run.id == _WAITING.c.id).values(waiting_for=_WAITING.c.waiting_for)
_SEEN: Final = Brought(
    "seen",
    started_at=_MOMENT,
    ended_at=_MOMENT,
    exit_code=sa.BigInteger(),
    wall_time_s=sa.Double(),
    cpu_time_s=sa.Double(),
    peak_memory_bytes=sa.BigInteger(),
    host=sa.Text(),
    log_tail=sa.Text(),
    unknown_since=_MOMENT,
)
_MEASURE: Final = (
    sa.update(_Attempt)
    .where(_Attempt.id == _SEEN.c.id)
    .values({name: column for name, column in _SEEN.c.items() if name != "id"})
)
_TOLD: Final = Brought("told", because=sa.Text(), waiting_for=sa.Text(), answer=sa.Text())
_MOVED: Final = {
    "waiting_for": _TOLD.c.waiting_for,
    "cancel_answer": sa.func.coalesce(_TOLD.c.answer, _Run.cancel_answer),
}


@dataclass(frozen=True)
class _Watched:
    """A run that is followed, as it was when the backend was asked."""

    attempt_id: int
    run_id: int
    followed: Followed
    memory_gb: float
    waiting_for: str | None
    cancel_asked_at: datetime | None


@dataclass(frozen=True)
class _News:
    """What a look at one job means for its run; without an outcome it stays where it is."""

    watched: _Watched
    seen: JobObservation
    outcome: Outcome | None
    unknown_since: datetime | None
    waiting_for: str | None
    log_tail: str | None

    @property
    def run_id(self) -> int:
        return self.watched.run_id


def observe_locations(workplace: Workplace, location_ids: Sequence[int]) -> int:
    """Ask the backend of each location about all its jobs, move their runs, and return for how many there was news.

    Jobs that have to end, as their run is to be cancelled, took too long or went on without them, are ended. A location
    that another worker is asking about is left to it. A backend that does not answer is told as what its runs wait for;
    nothing else follows from it.
    """
    return sum(_observe_alone(workplace, location_id) for location_id in location_ids)


def _observe_alone(workplace: Workplace, location_id: int) -> int:
    me = f"{claimant(f'{_OBSERVER} {workplace.name}')} {secrets.token_hex(4)}"
    with workplace.database.transaction() as session:
        if not _take_over(session, location_id, by=me):
            return 0
        watched = _watched(session, location_id)
    try:
        return _observe(workplace, location_id, watched) + end_unfollowed(workplace, location_id)
    finally:
        with workplace.database.transaction() as session:
            release(session, models.DataLocation, [location_id], by=me)


def _take_over(session: Session, location_id: int, *, by: str) -> bool:
    """Take the lease of the manager that asks; False where another observer has it."""
    return session.scalar(_TAKE_OVER, {"location": location_id, "observer": by}) is not None


def _watched(session: Session, location_id: int) -> dict[str, _Watched]:
    """Runs of a location that are followed, by the job of their newest attempt."""
    found: Iterable[Any] = session.execute(_FOLLOWED, {"location": location_id})
    return {row.job_id: _as_watched(row) for row in found}


def _as_watched(row: Any) -> _Watched:
    limit = timedelta(hours=row.time_hours)
    followed = Followed(row.status, limit, row.submitted_at, row.unknown_since, row.is_to_be_cancelled)
    return _Watched(row.attempt_id, row.run_id, followed, row.memory_gb, row.waiting_for, row.cancel_asked_at)


def _observe(workplace: Workplace, location_id: int, watched: Mapping[str, _Watched]) -> int:
    if not watched:
        return 0
    backend, now = workplace.backends[location_id], datetime.now(UTC)
    try:
        seen = backend.observe(watched.keys())
    except BackendUnavailable as error:
        _log.warning("jobs cannot be observed, tried again", location=location_id, error=str(error))
        with workplace.database.transaction() as session:
            note(session, [one.run_id for one in watched.values()], str(error), where=_Run.status.in_(_WATCHED))
        return 0
    end_jobs(workplace, location_id, _to_end(watched, seen, now=now), now=now)
    looks = ((watched[job_id], look, partial(_log_tail, backend, job_id)) for job_id, look in seen.items())
    news = [one for look in looks if (one := _news(*look, now=now))]
    return sum(_apply_batch(workplace, news[start : start + _BATCH], now) for start in range(0, len(news), _BATCH))


def _to_end(
    watched: Mapping[str, _Watched], seen: Mapping[str, JobObservation], *, now: datetime
) -> dict[int, tuple[str, datetime | None]]:
    """Jobs that have to end, and when that was asked for last; by attempt."""
    return {
        watched[job_id].attempt_id: (job_id, watched[job_id].cancel_asked_at)
        for job_id, look in seen.items()
        if has_to_end(watched[job_id].followed, look, now=now)
    }


def _news(
    watched: _Watched, seen: JobObservation, read_log: Callable[[], str | None], *, now: datetime
) -> _News | None:
    """What is new about a job, if anything is."""
    before = watched.followed.unknown_since
    since = (before or now) if seen.state is JobState.UNKNOWN else None
    found, reason = outcome(watched.followed, seen, now=now), waits_for(watched.followed, seen)
    if found is None and (since, reason) == (before, watched.waiting_for):
        return None
    return _News(watched, seen, found, since, reason, read_log() if seen.is_over else None)


def _log_tail(backend: Backend, job_id: str) -> str | None:
    """What a job wrote last, without the one character that the database does not keep."""
    try:
        return backend.logs(job_id).replace("\0", "\N{REPLACEMENT CHARACTER}")
    except (BackendUnavailable, OSError) as error:
        _log.warning("the log of a job cannot be read", job=job_id, error=str(error))
        return None


def _apply_batch(workplace: Workplace, news: Sequence[_News], now: datetime) -> int:
    """Record news together; where that goes wrong each by itself, so that one does not hold up the others."""
    try:
        with workplace.database.transaction() as session:
            return _apply(session, news, now=now, by=workplace.name)
    except Exception as error:
        if is_transient(error) or len(news) == 1:
            raise
        _log.warning("news of jobs cannot be recorded together, trying them one by one", error=str(error))
    return sum(_apply_alone(workplace, one, now) for one in news)


def _apply_alone(workplace: Workplace, news: _News, now: datetime) -> int:
    try:
        return _apply_batch(workplace, [news], now)
    except Exception as error:
        if is_transient(error):
            raise
        attempt = news.watched.attempt_id
        _log.exception("news of a job cannot be recorded", error, run=news.run_id, attempt=attempt)
        return 0


def _apply(session: Session, news: Sequence[_News], *, now: datetime, by: str) -> int:
    """Apply news to those runs that are still as they were when the backend was asked; of how many."""
    current = _still_so(session, news)
    waiting = [one for one in current if one.outcome is None]
    ended = [one for one in current if one.outcome is not None]
    _note(session, waiting)
    _measure(session, ended)
    in_images = _in_images(session, ended)
    failed = {one.watched.attempt_id: failure for one in ended if (failure := _failure(one, in_images))}
    if failed:
        fail_attempts(session, failed, expected=_WATCHED, now=now, by=by)
    _move(session, [one for one in ended if one.watched.attempt_id not in failed], now=now, by=by)
    return len(current)


def _still_so(session: Session, news: Sequence[_News]) -> list[_News]:
    """News of runs, now locked, that did not move, nor were wished to be cancelled, since the backend was asked."""
    runs = {"runs": [one.run_id for one in news]}
    session.execute(_LOCKED, runs)
    now = {row[0]: tuple(row[1:]) for row in session.execute(_STATUS, runs)}
    return [one for one in news if now.get(one.run_id) == _identity(one.watched)]


def _identity(watched: _Watched) -> tuple[int, RunStatus, bool]:
    return watched.attempt_id, watched.followed.status, watched.followed.is_to_be_cancelled


def _note(session: Session, news: Sequence[_News]) -> None:
    """Write down why runs stay where they are."""
    if not news:
        return
    attempts = [one.watched.attempt_id for one in news]
    lost = _LOST.rows(attempts, unknown_since=[one.unknown_since for one in news])
    session.execute(_NOTE_LOST, lost.parameters, execution_options=_WRITES)
    told = _WAITING.rows([one.run_id for one in news], waiting_for=[one.waiting_for for one in news])
    session.execute(_NOTE_WAITING, told.parameters, execution_options=_WRITES)


def _measure(session: Session, news: Sequence[_News]) -> None:
    """Write down on attempts what was seen of their jobs."""
    if not news:
        return
    seen = [one.seen for one in news]
    measured = _SEEN.rows(
        [one.watched.attempt_id for one in news],
        started_at=[one.started_at for one in seen],
        ended_at=[one.ended_at for one in seen],
        exit_code=[one.exit_code for one in seen],
        wall_time_s=[_seconds(one.wall_time) for one in seen],
        cpu_time_s=[_seconds(one.cpu_time) for one in seen],
        peak_memory_bytes=[one.peak_memory_bytes for one in seen],
        host=[one.host for one in seen],
        log_tail=[one.log_tail for one in news],
        unknown_since=[one.unknown_since for one in news],
    )
    session.execute(_MEASURE, measured.parameters, execution_options=_WRITES)


def _seconds(time: timedelta | None) -> float | None:
    return time.total_seconds() if time is not None else None


def _in_images(session: Session, news: Iterable[_News]) -> Collection[int]:
    """Runs whose software failed by its exit code and is in an image: it may be that this never started."""
    failed = [one.run_id for one in news if one.outcome and one.outcome.failure is FailureClass.PAYLOAD]
    return session.scalars(_IN_IMAGES, {"runs": failed}).all() if failed else ()


def _failure(news: _News, in_images: Collection[int]) -> Failure | None:
    found = news.outcome
    if found is None or found.failure is None:
        return None
    log_tail = news.log_tail or ""
    trouble = container_trouble(news.seen.exit_code, log_tail) if news.run_id in in_images else None
    kind, cause = trouble or (
        found.failure,
        found.because or one_line_cause(log_tail, news.seen, memory_gb=news.watched.memory_gb),
    )
    return Failure(kind, cause, news.log_tail, found.exhausted, may_live=found.may_live)


def _move(session: Session, news: Iterable[_News], *, now: datetime, by: str) -> None:
    """Move runs whose jobs began, ended well, or were cancelled."""
    by_status: defaultdict[RunStatus, list[_News]] = defaultdict(list)
    for one in news:
        if one.outcome is not None:
            by_status[one.outcome.to].append(one)
    for to, alike in by_status.items():
        _move_alike(session, to, alike, now=now, by=by)


def _move_alike(session: Session, to: RunStatus, news: Sequence[_News], *, now: datetime, by: str) -> None:
    outcomes = [(one, one.outcome) for one in news if one.outcome is not None]
    told = _TOLD.rows(
        [one.run_id for one, _ in outcomes],
        because=[found.because or f"its job is {one.seen.state}" for one, found in outcomes],
        waiting_for=[one.waiting_for for one, _ in outcomes],
        answer=[found.answer for _, found in outcomes],
    )
    values: dict[str, Any] = dict(_MOVED)
    if to is RunStatus.RUNNING:  # what is lost while it runs is no trouble that never ends
        values["trouble_since"] = None
    if to is RunStatus.CANCELLED:
        values["finished_at"] = now
        _abandon(session, [one for one, found in outcomes if found.may_live], now=now)
    advance(
        session,
        _Run,
        [one.run_id for one, _ in outcomes],
        to=to,
        expected=[status for status in _WATCHED if status is not to],
        because=_TOLD.c.because,
        by=by,
        values=values,
        listed=told,
    )


def _abandon(session: Session, news: Sequence[_News], *, now: datetime) -> None:
    """Have jobs ended, should they live somewhere after all."""
    if news:
        left = sa.update(_Attempt).where(is_among(_Attempt.id, [one.watched.attempt_id for one in news]))
        session.execute(left.values(abandoned_at=now), execution_options=_WRITES)
