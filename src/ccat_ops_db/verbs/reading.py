"""When archives were read again last, and whether they can be: what is archived meanwhile says nothing of that."""

from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.plan.retention import AWAY_AFTER
from ccat_ops_db.queries.unread import LOOKED_LATELY
from ccat_ops_db.states import LocationType

_Location, _Reader = models.DataLocation, models.ArchiveReader
_NOW: Final = sa.func.clock_timestamp()
_IS_ARCHIVE: Final = _Location.location_type == LocationType.LONG_TERM_ARCHIVE
_NOT_OFTENER: Final = timedelta(minutes=1)
"""Many small copies are read in a second."""
_ENDED: Final = _NOW - AWAY_AFTER
"""Who looked last before then is there no more."""
_READABLE: Final = {"unreadable": None, "unreadable_since": None}


def begin_to_read(session: Session, location_id: int | None = None) -> None:
    """Hold nothing against an archive, or any where none is named, that was not read until now."""
    which = sa.true() if location_id is None else _Location.id == location_id
    session.execute(sa.update(_Location).where(which, _IS_ARCHIVE).values(read_at=_NOW))


def note_read(session: Session, location_id: int) -> None:
    """Note that a copy at a location was read again."""
    is_old = sa.or_(_Location.read_at.is_(None), _Location.read_at < _NOW - _NOT_OFTENER)
    session.execute(sa.update(_Location).where(_Location.id == location_id, is_old).values(read_at=_NOW))


def note_unreadable(session: Session, location_id: int, because: str, *, by: str) -> None:
    """Note that a worker can read nothing at an archive: nobody relies on what it has until somebody can.

    Where another worker has just read there, it is this one that cannot, and the others are relied on.
    """
    here = sa.select(_Location.id).where(_Location.id == location_id, _IS_ARCHIVE)
    # Of two that cannot at the same moment the later one sees the other.
    if session.scalar(here.with_for_update(of=_Location.__table__, key_share=True)) is None:
        return
    _note_look(session, location_id, by=by, unreadable=because)
    if not session.scalar(sa.select(_is_read_by_another(location_id, by))):
        values = {"unreadable": because, "unreadable_since": sa.func.coalesce(_Location.unreadable_since, _NOW)}
        session.execute(sa.update(_Location).where(_Location.id == location_id).values(values))


def note_readable(session: Session, location_id: int, *, by: str) -> None:
    """Note that a worker has read something at an archive."""
    for noun, which in ((_Location, _Location.id == location_id), (_Reader, _is_of(location_id, by))):
        is_noted = sa.and_(which, noun.unreadable.is_not(None))
        session.execute(sa.update(noun).where(is_noted).values(_READABLE))


def note_probe(session: Session, location_id: int, *, began: datetime, by: str) -> None:
    """Note that a worker can read something at an archive, as it saw since `began`: others may know more by now."""
    note = sa.update(_Location).where(_Location.id == location_id)
    session.execute(note.values(probed_at=_NOW))
    session.execute(note.where(_Location.unreadable_since <= began).values(_READABLE))
    _note_look(session, location_id, by=by, unreadable=None)
    known = sa.update(_Reader).where(_is_of(location_id, by), _Reader.unreadable_since <= began)
    session.execute(known.values(_READABLE))


def forget_looks(session: Session, location: models.DataLocation) -> None:
    """Forget whether a location can be read."""
    location.unreadable = location.unreadable_since = None
    session.execute(sa.delete(_Reader).filter_by(data_location_id=location.id))


def _note_look(session: Session, location_id: int, *, by: str, unreadable: str | None) -> None:
    """Note that a worker has looked; what it met before stays where it is not told what it meets now."""
    session.execute(sa.delete(_Reader).where(_Reader.data_location_id == location_id, _Reader.looked_at < _ENDED))
    look = {"looked_at": _NOW, "unreadable": unreadable, "unreadable_since": None if unreadable is None else _NOW}
    again: dict[str, Any] = {"looked_at": _NOW}
    if unreadable is not None:
        again |= {"unreadable": unreadable, "unreadable_since": sa.func.coalesce(_Reader.unreadable_since, _NOW)}
    new = insert(_Reader).values(data_location_id=location_id, worker=by, **look)
    session.execute(new.on_conflict_do_update(index_elements=["data_location_id", "worker"], set_=again))


def _is_of(location_id: int, by: str) -> sa.ColumnElement[bool]:
    return sa.and_(_Reader.data_location_id == location_id, _Reader.worker == by)


def _is_read_by_another(location_id: int, by: str) -> sa.Exists:
    another = sa.and_(_Reader.data_location_id == location_id, _Reader.worker != by)
    return sa.exists().where(another, _Reader.unreadable.is_(None), LOOKED_LATELY)
