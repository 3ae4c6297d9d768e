from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.steps import current_revision

_Pause, _Pipeline = models.Pause, models.Pipeline
DISABLED: Final = "its pipeline is disabled"


def pause_of(session: Session, pipeline_id: int) -> str | None:
    """Why a pipeline is paused, itself, where it runs, or as everything is; None where it is not."""
    revision = current_revision()
    here = sa.select(revision.c.processing_location_id).where(revision.c.pipeline_id == pipeline_id)
    applies = sa.or_(
        _Pause.pipeline_id == pipeline_id,
        _Pause.data_location_id.in_(here),
        sa.and_(_Pause.pipeline_id.is_(None), _Pause.data_location_id.is_(None)),
    )
    pause = session.scalars(sa.select(_Pause).where(applies).order_by(_Pause.id).limit(1)).first()
    return _sentence(pause) if pause else None


def stopped(session: Session) -> Mapping[int, str]:
    """Why nothing of a pipeline starts, where it is paused or disabled; by its id."""
    if not session.scalar(sa.select(sa.or_(sa.exists(_Pause.id), sa.exists().where(sa.not_(_Pipeline.enabled))))):
        return {}
    revision = current_revision()
    applies = sa.or_(
        _Pause.pipeline_id == _Pipeline.id,
        _Pause.data_location_id == revision.c.processing_location_id,
        sa.and_(_Pause.pipeline_id.is_(None), _Pause.data_location_id.is_(None)),
    )
    rows = session.execute(
        sa.select(_Pipeline.id, _Pipeline.enabled, _Pause)
        .outerjoin(revision, revision.c.pipeline_id == _Pipeline.id)
        .outerjoin(_Pause, applies)
        .where(sa.or_(sa.not_(_Pipeline.enabled), _Pause.id.is_not(None)))
        .order_by(_Pause.id.desc())  # of several pauses the first is told
    )
    return {number: _sentence(pause) if enabled else DISABLED for number, enabled, pause in rows}


def _sentence(pause: models.Pause) -> str:
    return f"paused by {pause.by} since {pause.created_at:%F %H:%M} UTC: {pause.because}"
