"""Conditions on runs: how far what they wait for before they are submitted is."""

from functools import cache

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.sets import once_more
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PhysicalCopyStatus

_Run, _Attempt = models.ExecutedReductionStep, models.RunAttempt
_Newest, _Prepared = once_more(_Attempt), once_more(_Attempt)
_Copy, _Job, _Input = models.PhysicalCopy, models.StagingJob, models.RunInput
ON_ITS_WAY = sa.and_(
    _Job.raw_data_package_id == _Input.raw_data_package_id,
    _Job.data_location_id == _Run.data_location_id,
    _Job.status.in_(LIVE_TRANSFER_STATUSES),
)
"""Condition on an input, its run and a staging job: this brings it there."""


@cache
def is_missing() -> sa.ColumnElement[bool]:
    """Condition on an input and its run: it is raw, and not STAGED at the location of the run."""
    staged = sa.exists().where(
        _Copy.raw_data_package_id == _Input.raw_data_package_id,
        _Copy.data_location_id == _Run.data_location_id,
        _Copy.status == PhysicalCopyStatus.STAGED,
    )
    is_raw = _Input.raw_data_package_id.is_not(None)  # as the index of what a run takes says it
    return sa.and_(is_raw, sa.not_(staged.correlate(_Run, _Input)))


@cache
def unstaged() -> sa.ColumnElement[bool]:
    """Condition on a run: a raw input of it is not STAGED at its location."""
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
