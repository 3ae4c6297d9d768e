"""Products whose copy in an archive is damaged or gone are archived anew from where they were made."""

from collections.abc import Collection
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LocationType, PhysicalCopyStatus, ProductState
from ccat_ops_db.verbs.archiving import request_archiving

_Run, _Product, _Copy, _Location = (
    models.ExecutedReductionStep,
    models.DataProduct,
    models.PhysicalCopy,
    models.DataLocation,
)
_LOST: Final = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)


def archive_lost(session: Session, run_ids: Collection[int] | None = None) -> list[int]:
    """Ask for what archives have lost of these runs or of any, where the copy that was made first is sound.

    The ids of the transfers that are new. What does not count any more is not archived anew.
    """
    made = aliased(_Copy, flat=True)
    is_sound = sa.exists().where(
        made.data_product_id == _Product.id,
        made.data_location_id == _Run.data_location_id,
        made.status == PhysicalCopyStatus.PRESENT,
    )
    lost = (
        sa.select(_Run.id)
        .join(_Product, _Product.run_id == _Run.id)
        .join(_Copy, _Copy.data_product_id == _Product.id)
        .join(_Location, _Location.id == _Copy.data_location_id)
        .where(
            _Copy.data_product_id.is_not(None),
            _Copy.status.in_(_LOST),
            _Location.location_type == LocationType.LONG_TERM_ARCHIVE,
            _Product.state == ProductState.CURRENT,
            sa.true() if run_ids is None else is_among(_Run.id, run_ids),
            is_sound,
        )
        .distinct()
    )
    found = session.scalars(lost).all()
    return request_archiving(session, is_among(_Run.id, found)) if found else []
