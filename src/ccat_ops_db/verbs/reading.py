"""When archives were read again last: what was archived meanwhile says nothing of that."""

from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.states import LocationType

_Location: Final = models.DataLocation
_NOW: Final = sa.func.clock_timestamp()
_NOT_OFTENER: Final = timedelta(minutes=1)
"""Many small copies are read in a second."""


def begin_to_read(session: Session, location_id: int | None = None) -> None:
    """Hold nothing against an archive, or any where none is named, that was not read until now."""
    which = sa.true() if location_id is None else _Location.id == location_id
    archives = _Location.location_type == LocationType.LONG_TERM_ARCHIVE
    session.execute(sa.update(_Location).where(which, archives).values(read_at=_NOW))


def note_read(session: Session, location_id: int) -> None:
    """Note that a copy at a location was read again."""
    is_old = sa.or_(_Location.read_at.is_(None), _Location.read_at < _NOW - _NOT_OFTENER)
    session.execute(sa.update(_Location).where(_Location.id == location_id, is_old).values(read_at=_NOW))
