"""Runs that people cancel."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.cancelling import Answer, ask_to_cancel
from ccat_ops_db.queries.runs import require_runs
from ccat_ops_db.sets import is_among
from ccat_ops_db.verbs.reasons import require_reason


def request_cancel(
    session: Session, run_ids: Sequence[int], *, because: str, by: str, now: datetime
) -> Mapping[int, Answer]:
    """Have runs cancelled, and say what becomes of each; a sub-group is not run again by itself for the same.

    Raises UnknownRun and ReasonMissing.
    """
    require_reason(because, outcome="Nothing was cancelled.")
    require_runs(session, run_ids)
    answers = ask_to_cancel(session, run_ids, because=because.strip(), by=by, now=now)
    asked = [run_id for run_id, answer in answers.items() if answer is Answer.ASKED]
    # Somebody wants it now, whatever it was to be cancelled for before.
    run = models.ExecutedReductionStep
    wanted = sa.update(run).where(is_among(run.id, asked), run.not_needed).values(not_needed=False)
    session.execute(wanted, execution_options={"synchronize_session": False})
    return answers
