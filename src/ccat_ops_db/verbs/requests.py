from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import RunReason


def carry_on(session: Session, run_ids: Sequence[int]) -> None:
    """Let runs that are taken up again belong to their triggers as before, so that what follows from them does too."""
    run, trigger, request = models.ExecutedReductionStep, models.Trigger, models.RunRequest
    taken_up = sa.and_(is_among(run.id, run_ids), trigger.id == run.trigger_id)
    values = (
        run.reduction_step_id,
        run.sub_group_key,
        trigger.id,
        run.reason == RunReason.REQUESTED,
        trigger.created_at,
        run.id,
    )
    columns = ["reduction_step_id", "sub_group_key", "trigger_id", "is_forced", "created_at", "run_id"]
    session.execute(insert(request).from_select(columns, sa.select(*values).where(taken_up)).on_conflict_do_nothing())
    session.execute(
        sa.update(trigger).where(taken_up).values(closed_at=None), execution_options={"synchronize_session": False}
    )
