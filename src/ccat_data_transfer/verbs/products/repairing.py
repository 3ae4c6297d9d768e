"""Copies of products that were damaged or lost are made anew, where there is a sound one to make them of."""

from collections import defaultdict
from collections.abc import Collection
from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.models.data import LOST
from ccat_ops_db.queries.repairs import failed_repairs
from ccat_ops_db.sets import is_among, once_more
from ccat_ops_db.states import (
    LIVE_TRANSFER_STATUSES,
    SOUND_COPY_STATUSES,
    LocationType,
    PhysicalCopyStatus,
    ProductState,
)
from ccat_ops_db.verbs.archiving import request_archiving
from ccat_ops_db.verbs.staging import request_repairs

_Copy, _Product, _Run = models.PhysicalCopy, models.DataProduct, models.ExecutedReductionStep
_Job, _Location, _Sound = models.StagingJob, models.DataLocation, once_more(models.PhysicalCopy)
_AT_ONCE: Final = 1_000
_IS_LOST: Final = sa.text(f"physical_copy.{LOST}")
_IS_AT_HOME: Final = sa.and_(_Product.id == _Copy.data_product_id, _Copy.data_location_id == _Run.data_location_id)
_PAUSE: Final = timedelta(days=1)
"""Until what could not be brought back is tried again: somebody may have mended what was in the way."""
_FAILED: Final = failed_repairs().with_only_columns(_Job.data_location_id, _Job.data_product_id).subquery()
_WAS_TRIED: Final = sa.or_(
    sa.exists().where(
        _Job.data_product_id == _Product.id,
        _Job.data_location_id == _Copy.data_location_id,
        _Job.status.in_(LIVE_TRANSFER_STATUSES),
    ),
    sa.exists().where(_FAILED.c.data_product_id == _Product.id, _FAILED.c.data_location_id == _Copy.data_location_id),
)
"""A job for it is under way, or the last repair has failed for good: one that a run asked for says nothing of it."""
_HAS_ANOTHER: Final = sa.exists().where(_Sound.data_product_id == _Product.id, _Sound.status.in_(SOUND_COPY_STATUSES))
_DAMAGED: Final = (
    sa.select(_Copy.data_location_id, _Product.id)
    .join(_Product, _Product.id == _Copy.data_product_id)
    .join(_Run, sa.and_(_Run.id == _Product.run_id, _IS_AT_HOME))
    .where(
        _Copy.data_product_id.is_not(None),
        _IS_LOST,
        _Product.state == ProductState.CURRENT,
        _HAS_ANOTHER,
        sa.not_(_WAS_TRIED),
    )
    .order_by(_Product.id)
    .limit(_AT_ONCE)
)
_TRIED_IN_VAIN: Final = (
    failed_repairs()
    .with_only_columns(_Job.data_location_id, _Product.id)
    .where(_HAS_ANOTHER, _Job.created_at < sa.func.clock_timestamp() - _PAUSE)
    .order_by(_Job.id)
    .limit(_AT_ONCE)
)


def repair(session: Session) -> int:
    """Ask for products that count to be brought back to where they were made, where they are damaged or lost there.

    How many were asked for. Only what is sound somewhere else is; the rest is made again by a run. What could not be
    brought back is tried again each day.
    """
    found = defaultdict[int, list[int]](list)
    for location_id, product_id in [*session.execute(_DAMAGED), *session.execute(_TRIED_IN_VAIN)]:
        found[location_id].append(product_id)
    return sum(len(request_repairs(session, ids, place)) for place, ids in sorted(found.items()))


def archive_lost(session: Session, run_ids: Collection[int] | None = None) -> list[int]:
    """Ask for what archives have lost of these runs or of any, where the copy that was made first is sound.

    The ids of the transfers that are new. What does not count any more is not archived anew.
    """
    is_sound = sa.exists().where(
        _Sound.data_product_id == _Product.id,
        _Sound.data_location_id == _Run.data_location_id,
        _Sound.status == PhysicalCopyStatus.PRESENT,
    )
    lost = (
        sa.select(_Run.id)
        .join(_Product, _Product.run_id == _Run.id)
        .join(_Copy, _Copy.data_product_id == _Product.id)
        .join(_Location, _Location.id == _Copy.data_location_id)
        .where(
            _Copy.data_product_id.is_not(None),
            _IS_LOST,
            _Location.location_type == LocationType.LONG_TERM_ARCHIVE,
            _Product.state == ProductState.CURRENT,
            sa.true() if run_ids is None else is_among(_Run.id, run_ids),
            is_sound,
        )
        .distinct()
    )
    found = session.scalars(lost).all()
    return request_archiving(session, is_among(_Run.id, found)) if found else []
