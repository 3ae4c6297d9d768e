"""STAGING_DATA runs at a location that has no room or cannot be written: they go no further, and say why."""

from collections.abc import Collection
from functools import cache

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.queries.spaces import IS_SHORT, short_locations
from ccat_ops_db.states import RunStatus
from ccat_workflow_manager.verbs.staged import unstaged

_Run = models.ExecutedReductionStep


@cache
def has_space() -> sa.ColumnElement[bool]:
    """Condition on a run: its location can be written and has room, as far as is known."""
    return _Run.data_location_id.not_in(sa.select(models.DataLocation.id).where(IS_SHORT))


def note_short(session: Session, location_ids: Collection[int]) -> None:
    """Write on STAGING_DATA runs whose data are staged that their location takes nothing, and why."""
    short = {one: why for one, why in short_locations(session).items() if one in location_ids}
    if not short:
        return
    told = sa.case(short, value=_Run.data_location_id)
    waits = (_Run.status == RunStatus.STAGING_DATA, _Run.data_location_id.in_(short), sa.not_(unstaged()))
    runs = sa.update(_Run).where(*waits, _Run.waiting_for.is_distinct_from(told)).values(waiting_for=told)
    session.execute(runs, execution_options={"synchronize_session": False})
