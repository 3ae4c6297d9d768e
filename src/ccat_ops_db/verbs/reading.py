"""When archives were read again last, and whether they can be: what is archived meanwhile says nothing of that."""

from datetime import timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.states import LocationType

_Location: Final = models.DataLocation
_NOW: Final = sa.func.clock_timestamp()
_IS_ARCHIVE: Final = _Location.location_type == LocationType.LONG_TERM_ARCHIVE
_NOT_OFTENER: Final = timedelta(minutes=1)
"""Many small copies are read in a second."""


def begin_to_read(session: Session, location_id: int | None = None) -> None:
    """Hold nothing against an archive, or any where none is named, that was not read until now."""
    which = sa.true() if location_id is None else _Location.id == location_id
    session.execute(sa.update(_Location).where(which, _IS_ARCHIVE).values(read_at=_NOW))


def note_read(session: Session, location_id: int) -> None:
    """Note that a copy at a location was read again."""
    is_old = sa.or_(_Location.read_at.is_(None), _Location.read_at < _NOW - _NOT_OFTENER)
    session.execute(sa.update(_Location).where(_Location.id == location_id, is_old).values(read_at=_NOW))


def note_unreadable(session: Session, location_id: int, because: str) -> None:
    """Note that nothing can be read at an archive: nobody relies on what it has until something can."""
    values = {"unreadable": because, "unreadable_since": sa.func.coalesce(_Location.unreadable_since, _NOW)}
    session.execute(sa.update(_Location).where(_Location.id == location_id, _IS_ARCHIVE).values(values))


def note_readable(session: Session, location_id: int) -> None:
    """Note that something was read at an archive."""
    is_noted = sa.and_(_Location.id == location_id, _Location.unreadable.is_not(None))
    session.execute(sa.update(_Location).where(is_noted).values(unreadable=None, unreadable_since=None))


def note_probe(session: Session, location_id: int, *, before: str | None) -> None:
    """Note that something can be read at an archive, where `before` was known of it: somebody may know more by now."""
    note = sa.update(_Location).where(_Location.id == location_id)
    session.execute(note.values(probed_at=_NOW))
    as_before = _Location.unreadable.is_not_distinct_from(before)
    session.execute(note.where(as_before).values(unreadable=None, unreadable_since=None))
