"""Copies of products that were damaged or lost are made anew, where there is a sound one to make them of."""

from collections import defaultdict
from collections.abc import Collection
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.sets import is_among, once_more
from ccat_ops_db.states import LocationType, PhysicalCopyStatus, ProductState, Status
from ccat_ops_db.verbs.archiving import request_archiving
from ccat_ops_db.verbs.staging import request_repairs

_Copy, _Product, _Run = models.PhysicalCopy, models.DataProduct, models.ExecutedReductionStep
_Job, _Location, _Sound = models.StagingJob, models.DataLocation, once_more(models.PhysicalCopy)
_AT_ONCE: Final = 1_000
_IS_AT_HOME: Final = sa.and_(_Product.id == _Copy.data_product_id, _Copy.data_location_id == _Run.data_location_id)
_WAS_TRIED: Final = sa.exists().where(
    _Job.data_product_id == _Product.id,
    _Job.data_location_id == _Copy.data_location_id,
    _Job.status.not_in([Status.COMPLETED, Status.CANCELLED]),
    _Job.created_at > _Copy.created_at,
)
"""A job for it is under way, or has failed for good."""
_DAMAGED: Final = (
    sa.select(_Copy.data_location_id, _Product.id)
    .join(_Product, _Product.id == _Copy.data_product_id)
    .join(_Run, sa.and_(_Run.id == _Product.run_id, _IS_AT_HOME))
    .where(
        _Copy.data_product_id.is_not(None),
        _Copy.status.in_(["corrupt", "missing"]),
        _Product.state == ProductState.CURRENT,
        sa.exists().where(_Sound.data_product_id == _Product.id, _Sound.status == PhysicalCopyStatus.PRESENT),
        sa.not_(_WAS_TRIED),
    )
    .order_by(_Product.id)
    .limit(_AT_ONCE)
)


def repair(session: Session) -> int:
    """Ask for products that count to be brought back to where they were made, where they are damaged or lost there.

    How many were asked for. Only what is sound somewhere else is; the rest is made again by a run.
    """
    found = defaultdict[int, list[int]](list)
    for location_id, product_id in session.execute(_DAMAGED):
        found[location_id].append(product_id)
    return sum(len(request_repairs(session, ids, place)) for place, ids in sorted(found.items()))


def archive_anew(session: Session, run_ids: Collection[int]) -> list[int]:
    """Ask for products of runs to be archived that are in no archive any more, and are where they were made."""
    is_archived = sa.exists().where(
        _Sound.data_product_id == _Product.id,
        _Sound.status == PhysicalCopyStatus.PRESENT,
        _Location.id == _Sound.data_location_id,
        _Location.location_type == LocationType.LONG_TERM_ARCHIVE,
    )
    can_be = sa.exists().where(
        _Product.run_id == _Run.id,
        _Product.state == ProductState.CURRENT,
        _IS_AT_HOME,
        _Copy.status == PhysicalCopyStatus.PRESENT,
        sa.not_(is_archived.correlate(_Product)),
    )
    return request_archiving(session, sa.and_(is_among(_Run.id, run_ids), can_be.correlate(_Run)))
