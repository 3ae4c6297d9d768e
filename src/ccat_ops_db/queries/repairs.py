"""Repairs that failed: products that were damaged or lost where they were made, and could not be brought back."""

from typing import Final

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.sets import once_more
from ccat_ops_db.states import SOUND_COPY_STATUSES, ProductState, Status

_Job, _Product, _Copy = models.StagingJob, models.DataProduct, models.PhysicalCopy
_Later: Final = once_more(models.StagingJob, name="later")


def failed_repairs() -> sa.Select[models.StagingJob]:
    """Staging jobs that were to mend a copy of a product that counts: the last of each, where it is not mended since.

    What was asked for in vain since then, or is tried again just now, changes nothing.
    """
    of_same = (_Later.data_product_id == _Job.data_product_id, _Later.data_location_id == _Job.data_location_id)
    counts = sa.or_(_Later.status == Status.COMPLETED, sa.and_(_Later.is_repair, _Later.status == Status.FAILED))
    followed = sa.exists().where(*of_same, _Later.id > _Job.id, counts)
    is_there = sa.exists().where(
        _Copy.data_product_id == _Job.data_product_id,
        _Copy.data_location_id == _Job.data_location_id,
        _Copy.status.in_(SOUND_COPY_STATUSES),
    )
    found = sa.select(_Job).join(_Product, _Product.id == _Job.data_product_id)
    return found.where(
        _Job.is_repair,
        sa.text("staging_job.status = 'failed'"),  # as the index says it
        _Product.state == ProductState.CURRENT,
        sa.not_(followed),
        sa.not_(is_there),
    )
