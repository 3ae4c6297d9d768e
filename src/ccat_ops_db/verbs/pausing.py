import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.evaluation import come_by
from ccat_ops_db.lookup import LOCATION, PIPELINE, find
from ccat_ops_db.verbs.reading import begin_to_read
from ccat_ops_db.verbs.reasons import require_reason
from ccat_ops_db.verbs.waiting import look_again, wake

_Pause, _Run = models.Pause, models.ExecutedReductionStep


def pause(session: Session, *, pipeline: str | None, location: str | None, because: str, by: str) -> bool:
    """Let nothing be created or started: of a pipeline, at a location, or at all where neither is named.

    At a location, or anywhere where nothing is named, nothing begins to be deleted either. What is under way goes on.
    Returns False where it was paused already. Raises UnknownName and ReasonMissing.
    """
    require_reason(because, outcome="Nothing was paused.")
    values = {**_scope(session, pipeline, location), "because": because, "by": by}
    new = insert(_Pause).values(**values).on_conflict_do_nothing().returning(_Pause.id)
    wake(session)  # the runs that wait are told
    return session.scalars(new).first() is not None


def resume(session: Session, *, pipeline: str | None, location: str | None) -> bool:
    """Undo the pause of the same thing, and of nothing else; returns False where there was none. Raises UnknownName."""
    scope = _scope(session, pipeline, location)
    same = (getattr(_Pause, column).is_not_distinct_from(value) for column, value in scope.items())
    held = [getattr(_Run, column) == value for column, value in scope.items() if value is not None]
    ended = session.scalars(sa.delete(_Pause).where(*same).returning(_Pause.id)).first()
    # What has been wanted meanwhile is created at the next look, which comes at once.
    come_by(session, sa.true())
    look_again(session, sa.and_(sa.true(), *held))
    if ended is not None and pipeline is None:
        begin_to_read(session, scope["data_location_id"])
    return ended is not None


def _scope(session: Session, pipeline: str | None, location: str | None) -> dict[str, int | None]:
    return {
        "pipeline_id": find(session, PIPELINE, pipeline).id if pipeline is not None else None,
        "data_location_id": find(session, LOCATION, location).id if location is not None else None,
    }
