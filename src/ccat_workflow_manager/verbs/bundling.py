"""Handing in attempts together: the row of a bundle is committed before its backend hears of it."""

from collections.abc import Sequence
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.sets import is_among
from ccat_workflow_manager.hpc.base import bundle_name

_Attempt, _Bundle = models.RunAttempt, models.JobBundle


def open_bundle(session: Session, attempts: Sequence[models.RunAttempt]) -> tuple[int, str]:
    """Write down that attempts, all at one location, are about to be handed in together; id and name of the bundle."""
    bundle = _Bundle(data_location_id=attempts[0].run.data_location_id, size=len(attempts))
    session.add(bundle)
    session.flush()
    ours = sa.update(_Attempt).where(is_among(_Attempt.id, [one.id for one in attempts]))
    session.execute(ours.values(job_bundle_id=bundle.id), execution_options={"synchronize_session": False})
    installation = session.scalars(sa.select(models.Installation.installation_id)).one()
    return bundle.id, bundle_name(installation, bundle_id=bundle.id)


def record_bundle(session: Session, bundle_id: int) -> None:
    """Write down that the backend took a bundle."""
    taken = sa.update(_Bundle).where(_Bundle.id == bundle_id).values(submitted_at=datetime.now(UTC))
    session.execute(taken, execution_options={"synchronize_session": False})
