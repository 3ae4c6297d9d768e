"""Copies that are needed are kept, and held, by those who need them."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_given
from ccat_ops_db.states import LocationType, PhysicalCopyStatus

_Copy, _Run, _Taken = models.PhysicalCopy, models.ExecutedReductionStep, models.RunInput
_Status = PhysicalCopyStatus
_AN_HOUR: Final = timedelta(hours=1)
_IS_UNREAD: Final = sa.and_(_Copy.raw_data_file_id.is_(None), _Copy.verified_at.is_(None))
WHY_IN_DOUBT: Final = sa.case((_IS_UNREAD, _Copy.failure))
"""What was noted of a copy that was not read since, and so may be bad; else NULL."""
_UNTOUCHED: Final = {
    "claimed_by": None,
    "lease_until": None,
    "failure": WHY_IN_DOUBT,
    "not_before": None,
    "trouble_count": 0,
}
_MAY_COME_BACK: Final = (_Status.DELETION_POSSIBLE, _Status.DELETION_SCHEDULED)
_UNPACKED: Final = sa.select(_Copy.id).where(
    is_given(_Copy.id, "copies"),
    _Copy.raw_data_package_id.is_not(None),
    _Copy.location.has(location_type=LocationType.PROCESSING),
)
_IS_THERE: Final = _Copy.status != sa.literal_column("'deleted'")
_TAKEN: Final = sa.union(
    *(
        sa.select(_Copy.id)
        .join(_Taken, getattr(_Copy, column) == getattr(_Taken, column))
        .join(_Run, sa.and_(_Run.id == _Taken.run_id, _Run.data_location_id == _Copy.data_location_id))
        .where(is_given(_Run.id, "runs"), getattr(_Taken, column).is_not(None), _IS_THERE)  # as the indexes say it
        for column in ("raw_data_package_id", "data_product_id")
    )
)
_NOW: Final = sa.func.clock_timestamp()
_IS_UNNOTED: Final = sa.func.coalesce(_Copy.used_at, _Copy.verified_at, _Copy.created_at) < _NOW - _AN_HOUR
_SEEN: Final = sa.select(_Copy.id, _Copy.status, _IS_UNNOTED.label("is_unnoted")).where(_Copy.id.in_(_TAKEN))
_HOLD: Final = sa.select(_Copy.id).where(_Copy.id.in_(_TAKEN)).order_by(_Copy.id).with_for_update(read=True)
_NOTE_USE: Final = (
    sa.update(_Copy)
    .where(
        _Copy.id.in_(
            sa.select(_Copy.id).where(is_given(_Copy.id, "copies")).order_by(_Copy.id).with_for_update(key_share=True)
        )
    )
    .values(used_at=_NOW)
)


def take_back(session: Session, ids: Collection[int], *, because: str, by: str) -> list[int]:
    """Let copies that were to be deleted stay, as what they were; those whose removal was begun are left to it."""
    if not ids:
        return []
    options: dict[str, Any] = {"because": because, "by": by, "values": _UNTOUCHED}
    advance(
        session,
        _Copy,
        ids,
        to=_Status.DELETION_POSSIBLE,
        expected=[_Status.DELETION_SCHEDULED],
        **options,
    )
    unpacked = session.scalars(_UNPACKED, {"copies": list(ids)}).all()
    stay = [_Status.DELETION_POSSIBLE]
    staged = advance(session, _Copy, unpacked, to=_Status.STAGED, expected=stay, **options)
    return staged + advance(session, _Copy, ids, to=_Status.PRESENT, expected=stay, **options)


def hold_inputs(session: Session, run_ids: Sequence[int], *, by: str) -> None:
    """Keep the copies that runs take at their locations from being deleted; call it once their inputs are written down.

    What was to be deleted is taken back. Until the transaction ends nobody begins to delete any of them, and who wants
    to after that finds the runs. Whose removal was begun before is no copy any more, and has to be brought anew.
    """
    seen = session.execute(_SEEN, {"runs": list(run_ids)}).all()
    wanted_again = [one.id for one in seen if one.status in _MAY_COME_BACK]
    if wanted_again:
        take_back(session, wanted_again, because="a run takes it", by=by)
    unnoted = [one.id for one in seen if one.status is _Status.STAGED and one.is_unnoted]
    note_use(session, unnoted)
    session.execute(_HOLD, {"runs": list(run_ids)})


def note_use(session: Session, copy_ids: Sequence[int]) -> None:
    """Write down that copies are used now: from now on retention keeps them for as long as is usual there."""
    if copy_ids:
        session.execute(_NOTE_USE, {"copies": copy_ids}, execution_options={"synchronize_session": False})
