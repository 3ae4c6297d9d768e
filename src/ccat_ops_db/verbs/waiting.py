from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.states import RunStatus

_Run = models.ExecutedReductionStep
_NOTHING: Final = {"waiting_for": None, "held_by_limit": False, "claimed_by": None, "lease_until": None}


def look_again(session: Session, which: sa.ColumnElement[bool]) -> None:
    """Give PENDING runs that could not start their place in the order again, as what they waited for may be over."""
    waiting = sa.and_(which, _Run.status == RunStatus.PENDING, _Run.waiting_for.is_not(None))
    session.execute(sa.update(_Run).where(waiting).values(_NOTHING), execution_options={"synchronize_session": False})
    wake(session)


def wake(session: Session) -> None:
    """Have the workflow-manager look at PENDING runs."""
    session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{_Run.__tablename__}:{RunStatus.PENDING}")))
