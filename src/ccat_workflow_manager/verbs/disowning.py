"""Runs that were under way in another installation, of which this database is a copy, are none of ours."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.cancelling import CONFIRMED
from ccat_ops_db.models.runs import ACTIVE_RUN
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import FailureClass, RunStatus
from ccat_workflow_manager.hpc.base import bundle_name
from ccat_workflow_manager.verbs.requesting import ask_again

_Run, _Attempt = models.ExecutedReductionStep, models.RunAttempt
_WRITES: Final = {"synchronize_session": False}
_NOTHING: Final = {"waiting_for": None, "held_by_limit": False, "claimed_by": None, "lease_until": None}
_IS_OPEN: Final = sa.and_(_Attempt.prepared_at.is_not(None), _Attempt.ended_at.is_(None))


@dataclass(frozen=True)
class Disowned:
    """What another installation was at."""

    runs: int
    trials: int
    """Those of the runs that nothing makes anew."""
    jobs: Sequence[str]
    """Names of the jobs, and of bundles of them, that may still run there."""


def disown_runs(session: Session, *, because: str, by: str, now: datetime) -> Disowned:
    """End every active run without a question to any cluster, and follow none of their jobs; what that was.

    That blocks nothing: what is still wanted is made by another run, and what was asked of these is asked of that one;
    but for what a person wished to be cancelled, which stays so.
    """
    active = session.execute(sa.select(_Run.id, _Run.status, _Run.is_trial).where(sa.text(ACTIVE_RUN))).all()
    runs = [one.id for one in active]
    jobs = _jobs_of(session, runs)
    session.execute(sa.update(_Run).where(is_among(_Run.id, runs)).values(_answered()), execution_options=_WRITES)
    _end(session, runs, because=because, by=by, now=now)
    begun = sa.update(_Attempt).where(is_among(_Attempt.run_id, runs), _Attempt.ended_at.is_(None))
    session.execute(begun.values(ended_at=now, cause=because), execution_options=_WRITES)
    followed = sa.update(_Attempt).where(_Attempt.abandoned_at.is_not(None))
    session.execute(followed.values(abandoned_at=None), execution_options=_WRITES)
    ask_again(session, sa.and_(is_among(_Run.id, runs), _Run.not_needed))
    return Disowned(len(runs), sum(one.is_trial for one in active), jobs)


def _jobs_of(session: Session, runs: Sequence[int]) -> list[str]:
    """Names by which clusters know what may still run; those of bundles for what was handed in together."""
    may_run = sa.or_(sa.and_(is_among(_Attempt.run_id, runs), _IS_OPEN), _Attempt.abandoned_at.is_not(None))
    attempts = session.execute(
        sa.select(_Attempt.job_name, _Attempt.job_bundle_id).where(may_run).order_by(_Attempt.id)
    )
    installation = session.scalars(sa.select(models.Installation.installation_id)).one()
    named = (name if bundle is None else bundle_name(installation, bundle_id=bundle) for name, bundle in attempts)
    return list(dict.fromkeys(named))


def _answered() -> dict[str, sa.ColumnElement[object] | None]:
    """Nothing needs the runs any more; a standing wish to cancel one is carried out."""
    answer = sa.case((_Run.is_to_be_cancelled, CONFIRMED), else_=_Run.cancel_answer)
    return {"not_needed": sa.not_(_Run.is_to_be_cancelled), "cancel_answer": answer, "retry_at": None}


def _end(session: Session, runs: Sequence[int], *, because: str, by: str, now: datetime) -> None:
    ended = {**_NOTHING, "finished_at": now}
    advance(session, _Run, runs, to=RunStatus.CANCELLED, because=because, by=by, values=ended)
    failed = {**ended, "failure": because, "failure_class": FailureClass.INFRASTRUCTURE}
    collecting = [RunStatus.COLLECTING_RESULTS]
    advance(session, _Run, runs, to=RunStatus.FAILED, because=because, by=by, expected=collecting, values=failed)
