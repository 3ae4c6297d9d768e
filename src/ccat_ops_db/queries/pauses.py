from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.steps import current_revision

_Pause, _Pipeline = models.Pause, models.Pipeline
DISABLED: Final = "its pipeline is disabled"
_PIPELINE: Final = sa.bindparam("pipeline", type_=sa.BigInteger())
_REVISION: Final = current_revision()
_OF_EVERYTHING: Final = sa.and_(_Pause.pipeline_id.is_(None), _Pause.data_location_id.is_(None))
_HOLDS: Final = sa.or_(_Pause.data_location_id == models.DataLocation.id, _OF_EVERYTHING)


def is_held() -> sa.ColumnElement[bool]:
    """Condition on a location: it is paused, or everything is."""
    # Not `sa.exists().where(...)`: with nothing of the ORM but a disjunction it would be of all locations at once.
    return sa.select(_Pause.id).where(_HOLDS).correlate(models.DataLocation).exists()


def held_because() -> sa.ScalarSelect[str | None]:
    """Why a location is paused, or everything is; NULL where it is not."""
    because = sa.select(_Pause.because).where(_HOLDS).correlate(models.DataLocation)
    return because.order_by(_Pause.id).limit(1).scalar_subquery()


_HERE: Final = sa.select(_REVISION.c.processing_location_id).where(_REVISION.c.pipeline_id == _PIPELINE)
_FIRST: Final = (
    sa.select(_Pause)
    .where(sa.or_(_Pause.pipeline_id == _PIPELINE, _Pause.data_location_id.in_(_HERE), _OF_EVERYTHING))
    .order_by(_Pause.id)
    .limit(1)
)
IS_ANYTHING_STOPPED: Final = sa.or_(sa.exists(_Pause.id), sa.exists().where(sa.not_(_Pipeline.enabled)))
"""Condition on the installation: mostly nothing is, and it is asked in each round."""
_ANY_STOPPED: Final = sa.select(IS_ANYTHING_STOPPED)
_STOPPED: Final = (
    sa.select(_Pipeline.id, _Pipeline.enabled, _Pause)
    .outerjoin(_REVISION, _REVISION.c.pipeline_id == _Pipeline.id)
    .outerjoin(
        _Pause,
        sa.or_(
            _Pause.pipeline_id == _Pipeline.id,
            _Pause.data_location_id == _REVISION.c.processing_location_id,
            _OF_EVERYTHING,
        ),
    )
    .where(sa.or_(sa.not_(_Pipeline.enabled), _Pause.id.is_not(None)))
    .order_by(_Pause.id.desc())  # of several pauses the first is told
)


def pause_of(session: Session, pipeline_id: int) -> str | None:
    """Why a pipeline is paused, itself, where it runs, or as everything is; None where it is not."""
    pause = session.scalars(_FIRST, {"pipeline": pipeline_id}).first()
    return _sentence(pause) if pause else None


def stopped(session: Session) -> Mapping[int, str]:
    """Why nothing of a pipeline starts, where it is paused or disabled; by its id."""
    if not session.scalar(_ANY_STOPPED):
        return {}
    rows = session.execute(_STOPPED)
    return {number: _sentence(pause) if enabled else DISABLED for number, enabled, pause in rows}


def _sentence(pause: models.Pause) -> str:
    return f"paused by {pause.by} since {pause.created_at:%F %H:%M} UTC: {pause.because}"
