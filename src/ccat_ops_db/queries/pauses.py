import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.steps import current_revisions

_Pause = models.Pause


def pause_of(session: Session, pipeline_id: int) -> str | None:
    """Why a pipeline is paused, itself, where it runs, or as everything is; None where it is not."""
    revision = current_revisions().where(models.PipelineRevision.pipeline_id == pipeline_id).subquery()
    applies = sa.or_(
        _Pause.pipeline_id == pipeline_id,
        _Pause.data_location_id.in_(sa.select(revision.c.processing_location_id)),
        sa.and_(_Pause.pipeline_id.is_(None), _Pause.data_location_id.is_(None)),
    )
    pause = session.scalars(sa.select(_Pause).where(applies).order_by(_Pause.id).limit(1)).first()
    return f"paused by {pause.by} since {pause.created_at:%F %H:%M} UTC: {pause.because}" if pause else None
