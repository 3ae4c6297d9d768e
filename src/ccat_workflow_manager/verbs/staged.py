"""Conditions on runs: how far what they wait for before they are submitted is."""

from functools import cache

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.sets import once_more
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PhysicalCopyStatus

_Run, _Attempt = models.ExecutedReductionStep, models.RunAttempt
_Newest, _Prepared = once_more(_Attempt), once_more(_Attempt)
_Copy, _Job, _Input = models.PhysicalCopy, models.StagingJob, models.RunInput
BRINGS = sa.or_(_Job.raw_data_package_id == _Input.raw_data_package_id, _Job.data_product_id == _Input.data_product_id)
"""Condition on an input and a staging job: this is for it, at some location."""
ON_ITS_WAY = sa.and_(
    BRINGS,
    _Job.data_location_id == _Run.data_location_id,
    _Job.status.in_(LIVE_TRANSFER_STATUSES),
)
"""Condition on an input, its run and a staging job: this brings it there."""


@cache
def is_missing() -> sa.ColumnElement[bool]:
    """Condition on an input and its run: it is not where the run is, a raw package STAGED, a product PRESENT."""
    here = _Copy.data_location_id == _Run.data_location_id
    package, product = _Input.raw_data_package_id, _Input.data_product_id
    staged = sa.exists().where(_Copy.raw_data_package_id == package, here, _Copy.status == PhysicalCopyStatus.STAGED)
    present = sa.exists().where(_Copy.data_product_id == product, here, _Copy.status == PhysicalCopyStatus.PRESENT)
    return sa.or_(  # as the indexes of what a run takes say it
        sa.and_(package.is_not(None), sa.not_(staged.correlate(_Run, _Input))),
        sa.and_(product.is_not(None), sa.not_(present.correlate(_Run, _Input))),
    )


@cache
def unstaged() -> sa.ColumnElement[bool]:
    """Condition on a run: an input of it is not at its location."""
    return sa.exists().where(_Input.run_id == _Run.id, is_missing()).correlate(_Run)  # the one asked about, not any


@cache
def is_prepared() -> sa.ColumnElement[bool]:
    """Condition on a run: the directories of its newest attempt are complete."""
    number = sa.select(sa.func.max(_Newest.number)).where(_Newest.run_id == _Run.id).correlate(_Run).scalar_subquery()
    return (
        sa.exists()
        .where(_Prepared.run_id == _Run.id, _Prepared.number == number, _Prepared.prepared_at.is_not(None))
        .correlate(_Run)
    )
