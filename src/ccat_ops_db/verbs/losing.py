"""A person says that a location is lost: its copies are missing, so that others are made in their place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.moves import advance
from ccat_ops_db.session import in_transaction
from ccat_ops_db.states import LocationType, PhysicalCopyStatus
from ccat_ops_db.verbs.copies import take_back

_Copy, _Location, _Status = models.PhysicalCopy, models.DataLocation, PhysicalCopyStatus
_THERE: Final = (
    _Status.PRESENT,
    _Status.STAGED,
    _Status.DELETION_POSSIBLE,
    _Status.DELETION_SCHEDULED,
    _Status.DELETION_IN_PROGRESS,
    _Status.DELETION_FAILED,
)
"""What copies are that may be there; what was only begun is given up by itself."""
_SOUND: Final = (_Status.PRESENT, _Status.STAGED)
_ARE_FILLED: Final = (LocationType.BUFFER, LocationType.LONG_TERM_ARCHIVE)
_AT_ONCE: Final = 1_000
_IDLE: Final = {"claimed_by": None, "lease_until": None}


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is lost with a location."""

    location: str
    copies: int
    raw_files: int
    """Copies of raw files, of these; the others are of packages and products."""
    last: int
    """Those of packages and products of which no other copy is known to be sound, anywhere."""
    unreadable: str | None
    """Why nothing can be read there, as its workers say."""
    seen_at: datetime | None
    """When a worker saw it last."""


def foresee_loss(session: Session, name: str) -> Loss:
    """What would be lost with a location; nothing is changed. Raises UnknownName."""
    location = find(session, LOCATION, name)
    here = (_Copy.data_location_id == location.id, _Copy.status.in_(_THERE))
    is_file = _Copy.raw_data_file_id.is_not(None)
    told = (sa.func.count(), sa.func.count().filter(is_file), sa.func.count().filter(sa.not_(is_file), _is_last()))
    copies, files, last = session.execute(sa.select(*told).where(*here)).one()
    seen = (location.space_checked_at, location.probed_at)
    return Loss(
        location=name,
        copies=copies,
        raw_files=files,
        last=last,
        unreadable=location.unreadable,
        seen_at=max((one for one in seen if one is not None), default=None),
    )


def lose_location(
    engine: sa.Engine, name: str, *, because: str, by: str, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Call all copies at a location missing, and put nothing new there; how many copies that are.

    What is wanted of them is made anew by itself, in other places, as far as anything sound is left. It may be said
    again where it was interrupted. Raises UnknownName.
    """
    location_id = in_transaction(engine, partial(_close, name=name))
    done = 0
    while lost := in_transaction(engine, partial(_lose_some, location_id=location_id, because=because, by=by)):
        done += lost
        progress(done)
    return done


def _close(session: Session, *, name: str) -> int:
    location = find(session, LOCATION, name)
    if location.location_type in _ARE_FILLED:
        location.active, location.lost_at = False, location.lost_at or sa.func.clock_timestamp()
        location.unreadable = location.unreadable_since = None  # as nobody waits for it any more
        if location.trouble is not None:
            location.trouble = location.free_bytes = location.total_bytes = location.space_checked_at = None
    session.execute(sa.update(models.ReplicationRound).values(looked_up_to=0, look_at=None))
    return location.id


def _lose_some(session: Session, *, location_id: int, because: str, by: str) -> int:
    here = sa.select(_Copy.id).where(_Copy.data_location_id == location_id, _Copy.status.in_(_THERE))
    ids = session.scalars(here.order_by(_Copy.id).limit(_AT_ONCE).with_for_update()).all()
    _keep(session, ids, because=because, by=by)
    options: dict[str, Any] = {"because": because, "by": by, "values": {"verified_at": None, **_IDLE}}
    return len(advance(session, _Copy, ids, to=_Status.MISSING, expected=_SOUND, **options))


def _keep(session: Session, ids: Sequence[int], *, because: str, by: str) -> None:
    """Take back what was to be deleted: whoever removes it cannot any more."""
    options: dict[str, Any] = {"because": because, "by": by, "values": _IDLE}
    steps = {
        _Status.DELETION_FAILED: _Status.DELETION_IN_PROGRESS,
        _Status.DELETION_SCHEDULED: _Status.DELETION_FAILED,
    }
    for to, was in steps.items():
        advance(session, _Copy, ids, to=to, expected=[was], **options)
    take_back(session, ids, because=because, by=by)


def _is_last() -> sa.ColumnElement[bool]:
    """Condition on a copy of a package or product: no other is known to be sound."""
    other = aliased(_Copy, flat=True)
    same = sa.or_(
        other.raw_data_package_id == _Copy.raw_data_package_id, other.data_product_id == _Copy.data_product_id
    )
    is_other = (same, other.id != _Copy.id, other.status.in_(_SOUND))
    is_parcel = _Copy.data_transfer_package_id.is_not(None)
    return sa.and_(sa.not_(is_parcel), sa.not_(sa.exists().where(*is_other).correlate(_Copy)))
