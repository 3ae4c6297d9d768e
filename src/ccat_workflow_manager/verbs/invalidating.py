"""What was made with something that was withdrawn meanwhile is not registered."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import FailureClass, RunStatus
from ccat_workflow_manager.verbs.failing import Failure, fail_attempt
from ccat_workflow_manager.verbs.requesting import ask_again

_Run = models.ExecutedReductionStep


def refuse_invalid(
    session: Session, attempts: Iterable[models.RunAttempt], invalid: Mapping[int, str], *, now: datetime, by: str
) -> list[int]:
    """Fail the COLLECTING_RESULTS runs of those attempts that `invalid_inputs` named, for good; their ids.

    That blocks nothing: what is wanted is made from what is valid by another run, even if its inputs are the same
    bytes, and what was asked of this run is asked of that one.
    """
    expected = [RunStatus.COLLECTING_RESULTS]
    failed = [
        attempt.run_id
        for attempt in attempts
        if attempt.run_id in invalid
        and fail_attempt(session, attempt, _failure(invalid[attempt.run_id]), expected=expected, now=now, by=by)
    ]
    if failed:
        done = sa.update(_Run).where(is_among(_Run.id, failed)).values(not_needed=True)
        session.execute(done, execution_options={"synchronize_session": False})
        ask_again(session, is_among(_Run.id, failed))
    return failed


def _failure(why: str) -> Failure:
    return Failure(FailureClass.DATA, f"its results are not registered: {why}; another run makes what is wanted")
