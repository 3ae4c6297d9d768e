"""Which raw packages are brought to processing locations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.transfers import LIVE
from ccat_ops_db.queries.alike import alike
from ccat_ops_db.sets import once_more
from ccat_ops_db.states import PhysicalCopyStatus, Status

_Job, _Package, _Copy = models.StagingJob, models.RawDataPackage, models.PhysicalCopy
_Later: Final = once_more(models.StagingJob, name="later")


@dataclass(frozen=True, kw_only=True)
class ToStage:
    """Raw packages that are to be unpacked at a processing location, alike in how that goes."""

    destination: str
    by_hand: bool
    """Whether a person asked for it, or runs only."""
    status: Status
    failure: str | None
    """Of the first of them; numbers and names in those of the others may differ."""
    packages: int
    size_bytes: int


def to_stage(session: Session) -> Sequence[ToStage]:
    """What is on its way, and what failed of what a person asked for and is not there still: runs say it themselves."""
    reason = alike(_Job.failure)
    told = (LOCATION.label.label("destination"), _Job.is_repair.label("by_hand"), _Job.status)
    rows = session.execute(
        sa.select(
            *told,
            sa.func.min(_Job.failure).label("failure"),
            sa.func.count().label("packages"),
            sa.cast(sa.func.coalesce(sa.func.sum(_Package.size_bytes), 0), sa.BigInteger).label("size_bytes"),
        )
        .select_from(_Job)
        .join(_Package, _Package.id == _Job.raw_data_package_id)
        .join(models.DataLocation, models.DataLocation.id == _Job.data_location_id)
        .join(models.DataLocation.site)
        .where(sa.or_(sa.text(f"staging_job.{LIVE}"), sa.and_(_failed_by_hand(), sa.not_(_is_over()))))
        .group_by(*told, reason)
        .order_by(*told, sa.func.count().desc(), reason)
    )
    return [ToStage(**row) for row in rows.mappings()]


def _failed_by_hand() -> sa.ColumnElement[bool]:
    return sa.and_(_Job.is_repair, sa.text("staging_job.status = 'failed'"))  # as the index says it


def _is_over() -> sa.ColumnElement[bool]:
    """Condition on a job that failed: it was asked for anew since then, or the package is there all the same."""
    same = (
        _Later.raw_data_package_id == _Job.raw_data_package_id,
        _Later.data_location_id == _Job.data_location_id,
    )
    staged = sa.exists().where(
        _Copy.raw_data_package_id == _Job.raw_data_package_id,
        _Copy.data_location_id == _Job.data_location_id,
        _Copy.status == PhysicalCopyStatus.STAGED,
    )
    return sa.or_(sa.exists().where(*same, _Later.id > _Job.id), staged)
