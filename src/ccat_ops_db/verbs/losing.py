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
from ccat_ops_db.plan.losses import DECLARED
from ccat_ops_db.session import in_transaction
from ccat_ops_db.states import LocationType, PhysicalCopyStatus
from ccat_ops_db.verbs.copies import take_back
from ccat_ops_db.verbs.reading import forget_looks
from ccat_ops_db.verbs.reasons import require_reason
from ccat_ops_db.verbs.vacating import cut_off

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

    From the beginning none of them counts for anything, at a buffer or an archive. What is wanted of them is made anew
    by itself, in other places, as far as anything sound is left. Where it was interrupted, whoever looks after copies
    goes on. Raises ReasonMissing and UnknownName.
    """
    require_reason(because, outcome="Nothing was called lost.")
    location_id = in_transaction(engine, partial(_close, name=name, because=because.strip(), by=by))
    told, done = DECLARED + because.strip(), 0
    while lost := in_transaction(engine, partial(_lose_some, location_id=location_id, because=told, by=by)):
        done += len(lost)
        progress(done)
    return done


def lose_the_rest(session: Session, *, by: str) -> list[int]:
    """Call copies missing that are left, or came, where all is lost, some of each location; which."""
    left = sa.exists().where(_Copy.data_location_id == _Location.id, _Copy.status.in_(_THERE))
    lost = session.execute(sa.select(_Location.id, _Location.lost_because).where(_Location.lost_at.is_not(None), left))
    return [
        copy_id
        for location_id, because in lost.all()
        for copy_id in _lose_some(session, location_id=location_id, because=f"{DECLARED}{because}", by=by)
    ]


def _close(session: Session, *, name: str, because: str, by: str) -> int:
    location = find(session, LOCATION, name)
    if location.location_type in _ARE_FILLED:
        if location.lost_at is None:
            location.lost_at, location.lost_because = sa.func.clock_timestamp(), f"{because} ({by})"
        location.active = False
        forget_looks(session, location)  # as nobody waits for it any more
        if location.trouble is not None:
            location.trouble = location.trouble_since = None
            location.free_bytes = location.total_bytes = location.space_checked_at = None
        session.flush()
        cut_off(session, location.id)
    session.execute(sa.update(models.ReplicationRound).values(looked_up_to=0, look_at=None))
    return location.id


def _lose_some(session: Session, *, location_id: int, because: str, by: str) -> list[int]:
    here = sa.select(_Copy.id).where(_Copy.data_location_id == location_id, _Copy.status.in_(_THERE))
    ids = session.scalars(here.order_by(_Copy.id).limit(_AT_ONCE).with_for_update()).all()
    _keep(session, ids, because=because, by=by)
    options: dict[str, Any] = {"because": because, "by": by, "values": {"verified_at": None, **_IDLE}}
    return advance(session, _Copy, ids, to=_Status.MISSING, expected=_SOUND, **options)


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
