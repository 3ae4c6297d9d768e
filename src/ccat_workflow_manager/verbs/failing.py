import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.states import (
    LIVE_TRANSFER_STATUSES,
    FailureClass,
    InputRole,
    PhysicalCopyStatus,
    RunStatus,
    Status,
)
from ccat_workflow_manager.plan.retries import Tries, retry_after
from ccat_workflow_manager.verbs.describing import current_attempts

_Run = models.ExecutedReductionStep


@dataclass(frozen=True)
class Failure:
    """What went wrong with an attempt."""

    kind: FailureClass
    cause: str
    """One line, for people."""
    log_tail: str | None = None


def fail_attempt(
    session: Session,
    attempt: models.RunAttempt,
    failure: Failure,
    *,
    expected: Collection[RunStatus],
    now: datetime,
    by: str,
) -> bool:
    """Record a failed attempt; its run becomes FAILED, with the moment of its retry if it gets one.

    Returns False where somebody else moved the run on from where it was expected.
    """
    run = attempt.run
    retry = retry_after(
        failure.kind,
        Tries(run.retry_count, run.trouble_count, run.step_revision.max_retries),
        jitter=random.random(),  # noqa: S311 - spreads retries, guards nothing
    )
    values = {
        "failure_class": failure.kind,
        "failure": failure.cause,
        "finished_at": now,
        "retry_at": now + retry.delay if retry else None,
        "retry_count": retry.counted if retry else run.retry_count,
        "trouble_count": retry.trouble if retry else run.trouble_count,
        "waiting_for": None,
        "claimed_by": None,
        "lease_until": None,
    }
    moved = advance(
        session, _Run, [run.id], to=RunStatus.FAILED, expected=expected, because=failure.cause, by=by, values=values
    )
    if moved:
        attempt.failure_class = failure.kind
        attempt.cause = failure.cause
        attempt.log_tail = failure.log_tail
        attempt.ended_at = attempt.ended_at or now
    return bool(moved)


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
    return advance(session, _Run, due, to=RunStatus.PENDING, because="tried again", by=by, values=values)


def next_retry(session: Session) -> datetime | None:
    """The moment of the next automatic retry."""
    return session.scalar(sa.select(sa.func.min(_Run.retry_at)).where(_Run.status == RunStatus.FAILED))


def unstaged(*, hopeless: bool) -> sa.ColumnElement[bool]:
    """Condition on a run: a raw input of it is not STAGED at its location; `hopeless`: and nobody is at it."""
    copy, job, taken = models.PhysicalCopy, models.StagingJob, models.RunInput
    staged = (
        sa.exists()
        .where(
            copy.raw_data_package_id == taken.raw_data_package_id,
            copy.data_location_id == _Run.data_location_id,
            copy.status == PhysicalCopyStatus.STAGED,
        )
        .correlate(_Run, taken)  # the run that is asked about, and not any
    )
    under_way = (
        sa.exists()
        .where(
            job.raw_data_package_id == taken.raw_data_package_id,
            job.data_location_id == _Run.data_location_id,
            job.status.in_(LIVE_TRANSFER_STATUSES),
        )
        .correlate(_Run, taken)
    )
    missing = sa.exists().where(taken.run_id == _Run.id, taken.role == InputRole.RAW, sa.not_(staged))
    return missing.where(sa.not_(under_way)) if hopeless else missing


def is_prepared() -> sa.ColumnElement[bool]:
    """Condition on a run: the directories of its newest attempt are complete."""
    attempt, newest = models.RunAttempt, sa.orm.aliased(models.RunAttempt)
    number = sa.select(sa.func.max(newest.number)).where(newest.run_id == _Run.id).correlate(_Run).scalar_subquery()
    prepared = sa.orm.aliased(attempt)
    return (
        sa.exists()
        .where(prepared.run_id == _Run.id, prepared.number == number, prepared.prepared_at.is_not(None))
        .correlate(_Run)
    )


def fail_unstaged_runs(session: Session, location_ids: Iterable[int], *, now: datetime, by: str) -> int:
    """Fail STAGING_DATA runs whose data nobody brings any more, and return how many; their retry asks anew."""
    stuck = current_attempts(
        session,
        _Run.status == RunStatus.STAGING_DATA,
        _Run.data_location_id.in_(location_ids),
        unstaged(hopeless=True),
        sa.not_(is_prepared()),  # its job may be handed in already
    )
    for attempt in stuck:
        failure = Failure(FailureClass.INFRASTRUCTURE, _staging_failure(session, attempt.run))
        fail_attempt(session, attempt, failure, expected=[RunStatus.STAGING_DATA], now=now, by=by)
    return len(stuck)


def note_staging(session: Session, location_ids: Iterable[int]) -> None:
    """Write on STAGING_DATA runs how many of their packages they wait for, and what keeps these."""
    copy, job, taken = models.PhysicalCopy, models.StagingJob, models.RunInput
    staged = sa.exists().where(
        copy.raw_data_package_id == taken.raw_data_package_id,
        copy.data_location_id == _Run.data_location_id,
        copy.status == PhysicalCopyStatus.STAGED,
    )
    on_its_way = sa.and_(
        job.raw_data_package_id == taken.raw_data_package_id,
        job.data_location_id == _Run.data_location_id,
        job.status.in_(LIVE_TRANSFER_STATUSES),
    )
    waits = (
        sa.select(
            _Run.id,
            sa.func.concat_ws(
                ": ",
                sa.func.format("waits for %s of its raw packages to be staged", sa.func.count(taken.id)),
                sa.func.min(job.failure),
            ).label("told"),
        )
        .join(taken, taken.run_id == _Run.id)
        .outerjoin(job, on_its_way)
        .where(
            _Run.status == RunStatus.STAGING_DATA,
            _Run.data_location_id.in_(location_ids),
            taken.role == InputRole.RAW,
            sa.not_(staged),
        )
        .group_by(_Run.id)
        .subquery()
    )
    runs = sa.update(_Run).where(_Run.id == waits.c.id, _Run.waiting_for.is_distinct_from(waits.c.told))
    session.execute(runs.values(waiting_for=waits.c.told).execution_options(synchronize_session=False))


def _staging_failure(session: Session, run: _Run) -> str:
    job, taken = models.StagingJob, models.RunInput
    newest = session.scalars(
        sa.select(job)
        .join(taken, taken.raw_data_package_id == job.raw_data_package_id)
        .where(taken.run_id == run.id, job.data_location_id == run.data_location_id, job.status == Status.FAILED)
        .order_by(job.id.desc())
        .limit(1)
    ).one_or_none()
    return f"staging failed: {newest.failure}" if newest else "its raw data are no longer staged"
