import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.models.runs import LIVE_RUN

_Run, _Version = models.ExecutedReductionStep, models.ReductionSoftwareVersion
_IN_USE = sa.select(_Version.content_digest).where(
    _Version.image_ref.is_not(None), sa.exists().where(_Run.software_version_id == _Version.id, sa.text(LIVE_RUN))
)


def images_in_use(session: Session) -> frozenset[str]:
    """Digests of the images that live runs need."""
    return frozenset(session.scalars(_IN_USE))
