"""STAGING_DATA runs whose data are not there: each says what keeps them, and fails where they do not come."""

from collections.abc import Collection
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.plan.timeouts import TIME_OUTS
from ccat_ops_db.sets import is_given
from ccat_ops_db.states import FailureClass, RunStatus, Status
from ccat_workflow_manager.verbs.failing import Failure, fail_attempts, newest_attempts
from ccat_workflow_manager.verbs.queueing import has_status
from ccat_workflow_manager.verbs.spaces import has_space
from ccat_workflow_manager.verbs.staged import BRINGS, ON_ITS_WAY, is_missing

_Run, _Attempt = models.ExecutedReductionStep, models.RunAttempt
_Job, _Taken = models.StagingJob, models.RunInput
_PATIENCE: Final = TIME_OUTS[RunStatus.STAGING_DATA].after
_IS_STAGING: Final = has_status(RunStatus.STAGING_DATA)
_IS_HERE: Final = sa.and_(_IS_STAGING, is_given(_Run.data_location_id, "places"))
_ONE_OF_SOME: Final = is_given(_Run.id, "runs")
_LOCK: Final = sa.select(_Run.id).where(_ONE_OF_SOME).order_by(_Run.id).with_for_update()


def _counted() -> sa.ColumnElement[str]:
    """How many of the inputs of a run, as words: `2 of its raw packages and 1 of its products`."""
    kinds = {"raw packages": _Taken.raw_data_package_id, "products": _Taken.data_product_id}
    numbers = {what: sa.func.nullif(sa.func.count(sa.distinct(column)), 0) for what, column in kinds.items()}
    return sa.func.concat_ws(" and ", *(sa.cast(one, sa.Text) + f" of its {what}" for what, one in numbers.items()))


_WAITS: Final = (
    sa.select(
        _Run.id,
        sa.func.concat_ws(
            ": ",
            sa.func.format("waits for %s to be staged", _counted()),
            sa.func.min(_Job.failure),
        ).label("told"),
    )
    .join(_Taken, _Taken.run_id == _Run.id)
    .outerjoin(_Job, ON_ITS_WAY)
    .where(_IS_HERE, is_missing())
    .group_by(_Run.id)
    .subquery()
)
_NOTE: Final = (
    sa.update(_Run)
    .where(_Run.id == _WAITS.c.id, _Run.waiting_for.is_distinct_from(_WAITS.c.told))
    .values(waiting_for=_WAITS.c.told)
)


def fail_unstaged_runs(session: Session, location_ids: Collection[int], *, now: datetime, by: str) -> int:
    """Fail STAGING_DATA runs whose data nobody brings any more, or not in time, and return how many.

    Their retry asks anew. What the cluster may have a job of is left to whoever can ask it; and what was there in time
    has no time-out here: it waits for room on the disk or for a worker.
    """
    seen = _found(session.execute(_STUCK_HERE, {"places": list(location_ids), "before": now - _PATIENCE}))
    if not seen:
        return 0
    failures = _still_stuck(session, seen.keys(), now=now)
    return len(fail_attempts(session, failures, expected=[RunStatus.STAGING_DATA], now=now, by=by))


def _still_stuck(session: Session, run_ids: Collection[int], *, now: datetime) -> dict[int, Failure]:
    """What to tell of runs, locked by it, whose data do not come; by attempt."""
    given = {"runs": list(run_ids)}
    session.execute(_LOCK, given)
    # A worker may have prepared some since they were found.
    stuck = _found(session.execute(_STUCK_OF_SOME, {**given, "before": now - _PATIENCE}))
    given_up = _staging_failures(session, [run_id for run_id, (_, is_hopeless) in stuck.items() if is_hopeless])
    late = f"its data were not there within {_PATIENCE}"
    return {
        attempt_id: Failure(FailureClass.INFRASTRUCTURE, given_up.get(run_id, late), may_live=True)
        for run_id, (attempt_id, _) in stuck.items()
    }


def _stuck(which: sa.ColumnElement[bool]) -> sa.Select[int, int, bool]:
    """Runs without a job whose data do not come: the newest attempt of each, and whether nobody brings them."""
    is_hopeless = sa.func.bool_or(_Job.id.is_(None))
    is_late = sa.and_(_Attempt.created_at < sa.bindparam("before", type_=sa.TIMESTAMP(timezone=True)), has_space())
    return (
        newest_attempts(which, _Attempt.prepared_at.is_(None), is_missing())
        .join(_Taken, _Taken.run_id == _Run.id)
        .outerjoin(_Job, ON_ITS_WAY)
        .group_by(_Run.id, _Attempt.id)
        .having(sa.or_(is_hopeless, sa.func.bool_or(is_late)))
        .add_columns(is_hopeless)
    )


_STUCK_HERE: Final = _stuck(_IS_HERE)
_STUCK_OF_SOME: Final = _stuck(sa.and_(_IS_STAGING, _ONE_OF_SOME))


def _found(stuck: sa.Result[int, int, bool]) -> dict[int, tuple[int, bool]]:
    return {run_id: (attempt_id, is_hopeless) for run_id, attempt_id, is_hopeless in stuck}


def note_staging(session: Session, location_ids: Collection[int]) -> None:
    """Write on STAGING_DATA runs how many of their inputs they wait for, and what keeps these."""
    session.execute(_NOTE, {"places": list(location_ids)}, execution_options={"synchronize_session": False})


def _staging_failures(session: Session, run_ids: Collection[int]) -> dict[int, str]:
    """Why nobody brings the data of runs; by run."""
    if not run_ids:
        return {}
    failed = sa.and_(BRINGS, _Job.data_location_id == _Run.data_location_id, _Job.status == Status.FAILED)
    newest = session.execute(
        sa.select(_Run.id, _Job.failure)
        .join(_Taken, _Taken.run_id == _Run.id)
        .join(_Job, failed)
        .where(_ONE_OF_SOME, is_missing())
        .ext(distinct_on(_Run.id))
        .order_by(_Run.id, _Job.id.desc()),
        {"runs": list(run_ids)},
    )
    unknown = dict.fromkeys(run_ids, "its data are no longer staged")
    return unknown | {run_id: f"staging failed: {failure}" for run_id, failure in newest}
