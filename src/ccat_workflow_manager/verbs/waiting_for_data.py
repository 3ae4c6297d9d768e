"""STAGING_DATA runs whose data are not there: each says what keeps them, and fails where they do not come."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.plan.timeouts import TIME_OUTS
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import FailureClass, RunStatus, Status
from ccat_workflow_manager.verbs.failing import Failure, fail_attempts, newest_attempts
from ccat_workflow_manager.verbs.spaces import has_space
from ccat_workflow_manager.verbs.staged import ON_ITS_WAY, is_missing

_Run, _Attempt = models.ExecutedReductionStep, models.RunAttempt
_IS_STAGING: Final = _Run.status == RunStatus.STAGING_DATA


def fail_unstaged_runs(session: Session, location_ids: Iterable[int], *, now: datetime, by: str) -> int:
    """Fail STAGING_DATA runs whose data nobody brings any more, or not in time, and return how many.

    Their retry asks anew. What the cluster may have a job of is left to whoever can ask it; and what was there in time
    has no time-out here: it waits for room on the disk or for a worker.
    """
    here = sa.and_(_IS_STAGING, _Run.data_location_id.in_(location_ids))
    seen = _stuck(session, here, now=now)
    if not seen:
        return 0
    failures = _still_stuck(session, seen.keys(), now=now)
    return len(fail_attempts(session, failures, expected=[RunStatus.STAGING_DATA], now=now, by=by))


def _still_stuck(session: Session, run_ids: Collection[int], *, now: datetime) -> dict[int, Failure]:
    """What to tell of runs, locked by it, whose data do not come; by attempt."""
    session.execute(sa.select(_Run.id).where(is_among(_Run.id, run_ids)).order_by(_Run.id).with_for_update())
    # A worker may have prepared some since they were found.
    stuck = _stuck(session, sa.and_(_IS_STAGING, is_among(_Run.id, run_ids)), now=now)
    given_up = _staging_failures(session, [run_id for run_id, (_, is_hopeless) in stuck.items() if is_hopeless])
    late = f"its data were not there within {TIME_OUTS[RunStatus.STAGING_DATA].after}"
    return {
        attempt_id: Failure(FailureClass.INFRASTRUCTURE, given_up.get(run_id, late), may_live=True)
        for run_id, (attempt_id, _) in stuck.items()
    }


def _stuck(session: Session, which: sa.ColumnElement[bool], *, now: datetime) -> dict[int, tuple[int, bool]]:
    """Runs without a job whose data do not come: the newest attempt of each, and whether nobody brings them."""
    job, taken = models.StagingJob, models.RunInput
    is_hopeless = sa.func.bool_or(job.id.is_(None))
    is_late = sa.and_(_Attempt.created_at < now - TIME_OUTS[RunStatus.STAGING_DATA].after, has_space())
    found = (
        newest_attempts(which, _Attempt.prepared_at.is_(None), is_missing())
        .join(taken, taken.run_id == _Run.id)
        .outerjoin(job, ON_ITS_WAY)
        .group_by(_Run.id, _Attempt.id)
        .having(sa.or_(is_hopeless, sa.func.bool_or(is_late)))
        .add_columns(is_hopeless)
    )
    return {run_id: (attempt_id, is_hopeless) for run_id, attempt_id, is_hopeless in session.execute(found)}


def note_staging(session: Session, location_ids: Iterable[int]) -> None:
    """Write on STAGING_DATA runs how many of their packages they wait for, and what keeps these."""
    job, taken = models.StagingJob, models.RunInput
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
        .outerjoin(job, ON_ITS_WAY)
        .where(_IS_STAGING, _Run.data_location_id.in_(location_ids), is_missing())
        .group_by(_Run.id)
        .subquery()
    )
    runs = sa.update(_Run).where(_Run.id == waits.c.id, _Run.waiting_for.is_distinct_from(waits.c.told))
    session.execute(runs.values(waiting_for=waits.c.told).execution_options(synchronize_session=False))


def _staging_failures(session: Session, run_ids: Collection[int]) -> dict[int, str]:
    """Why nobody brings the data of runs; by run."""
    job, taken = models.StagingJob, models.RunInput
    if not run_ids:
        return {}
    newest = session.execute(
        sa.select(_Run.id, job.failure)
        .join(taken, taken.run_id == _Run.id)
        .join(
            job,
            sa.and_(
                job.raw_data_package_id == taken.raw_data_package_id,
                job.data_location_id == _Run.data_location_id,
                job.status == Status.FAILED,
            ),
        )
        .where(is_among(_Run.id, run_ids))
        .ext(distinct_on(_Run.id))
        .order_by(_Run.id, job.id.desc())
    )
    unknown = dict.fromkeys(run_ids, "its raw data are no longer staged")
    return unknown | {run_id: f"staging failed: {failure}" for run_id, failure in newest}
