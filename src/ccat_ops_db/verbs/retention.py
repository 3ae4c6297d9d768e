"""What people say about keeping copies."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.lookup import LOCATION, Named, find
from ccat_ops_db.models.data import GOING
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.plan.retention import keeping
from ccat_ops_db.states import PhysicalCopyStatus, StorageType
from ccat_ops_db.verbs.copies import take_back
from ccat_ops_db.verbs.reasons import require_reason

INSTRUMENT = Named("instrument", sa.select(models.Instrument), models.Instrument.name)
_Location = models.DataLocation
_HEED = sa.select(sa.func.pg_notify(CHANNEL, f"{_Location.__tablename__}:retention"))
"""Has whoever waits look at once."""


class LevelUnknown(CcatError):
    """Copies would have to go from a level on, where nobody knows how full it is."""

    code = "level_unknown"

    def __init__(self, location: str) -> None:
        super().__init__(
            f"Location {location} is in an object store, which does not tell how full it is: copies there go by time "
            f"only, as `ccat retention set {location} --days N` says. Nothing was changed."
        )


class MarksCrossed(CcatError):
    """Copies would have to go down to a mark above the one where that begins."""

    code = "marks_crossed"

    def __init__(self, location: str, *, high: float, low: float) -> None:
        super().__init__(
            f"Location {location} would make room above {high:g} down to {low:g} of its disk: both marks are "
            "fractions, and the low one is not above the high one. Say both, as in `--high 0.9 --low 0.8`. "
            "Nothing was changed."
        )


def set_retention(
    session: Session, name: str, *, days: int | None, high: float | None, low: float | None, by: str
) -> models.DataLocation:
    """Change how long a location keeps copies, and how full it may be; what is None stays as it was.

    What was marked to go is looked at anew. Raises UnknownName, LevelUnknown and MarksCrossed.
    """
    location = find(session, LOCATION, name)
    if days is not None:
        location.retention_days = days
    if high is not None or low is not None:
        if location.storage_type is not StorageType.DISK:
            raise LevelUnknown(name)
        high = location.high_watermark if high is None else high
        low = location.low_watermark if low is None else low
        marks = keeping(location.location_type, days=None, high=high, low=low)
        assert marks.high is not None  # noqa: S101 - one of them is given, so that both are; narrows the type
        assert marks.low is not None  # noqa: S101 - likewise
        if not 0 < marks.low <= marks.high <= 1:
            raise MarksCrossed(name, high=marks.high, low=marks.low)
        location.high_watermark, location.low_watermark = marks.high, marks.low
    _look_anew(session, [location.id], because="what is kept there was changed", by=by)
    return location


def forget_retention(session: Session, name: str, *, by: str) -> models.DataLocation:
    """Have a location keep copies as is usual for its type. Raises UnknownName."""
    location = find(session, LOCATION, name)
    location.retention_days = location.high_watermark = location.low_watermark = None
    _look_anew(session, [location.id], because="what is kept there was changed", by=by)
    return location


def pause_retention(session: Session, name: str | None, *, because: str, by: str) -> int:
    """Let nothing go at a location, or anywhere; at how many that is new. Raises UnknownName and ReasonMissing.

    What is being removed is removed; what was only marked to go stays.
    """
    require_reason(because, outcome="Nothing was paused.")
    new = sa.update(_Location).where(_which(session, name), _Location.retention_paused.is_(None))
    paused = session.scalars(new.values(retention_paused=because).returning(_Location.id)).all()
    _look_anew(session, paused, because=f"deleting is paused there: {because}", by=by)
    return len(paused)


def resume_retention(session: Session, name: str | None, *, by: str) -> int:
    """Let go what may go at a location, or anywhere; at how many it was paused. Raises UnknownName."""
    held = sa.update(_Location).where(_which(session, name), _Location.retention_paused.is_not(None))
    resumed = session.scalars(held.values(retention_paused=None).returning(_Location.id)).all()
    _look_anew(session, resumed, because="deleting goes on there", by=by)
    return len(resumed)


def retry_deletions(session: Session, name: str | None) -> int:
    """Have copies that could not be deleted tried again at once, at a location or anywhere; how many. UnknownName."""
    copy = models.PhysicalCopy
    where = sa.select(_Location.id).where(_which(session, name))
    tried = copy.status.in_([PhysicalCopyStatus.DELETION_SCHEDULED, PhysicalCopyStatus.DELETION_FAILED])
    failed = sa.and_(tried, copy.failure.is_not(None), copy.data_location_id.in_(where))
    again = sa.update(copy).where(failed).values(not_before=None, trouble_count=0).returning(copy.id)
    retried = session.scalars(again, execution_options={"synchronize_session": False}).all()
    session.execute(_HEED)
    return len(retried)


def set_data_class(session: Session, name: str, *, copies: int | None, instruments: Collection[str]) -> bool:
    """Make or change a class of raw data, and put instruments into it; whether it is new. Raises UnknownName."""
    is_new = session.scalar(sa.select(models.DataClass.id).filter_by(name=name)) is None
    row = {"name": name, **({"min_verified_archive_copies": copies} if copies is not None else {})}
    statement = insert(models.DataClass).values(row)
    session.execute(statement.on_conflict_do_update(index_elements=["name"], set_=row))
    made = session.scalars(sa.select(models.DataClass.id).filter_by(name=name)).one()
    for one in instruments:
        find(session, INSTRUMENT, one).data_class_id = made
    session.flush()
    return is_new


def _which(session: Session, name: str | None) -> sa.ColumnElement[bool]:
    return sa.true() if name is None else _Location.id == find(session, LOCATION, name).id


def _look_anew(session: Session, ids: Collection[int], *, because: str, by: str) -> None:
    """Take back what was marked at locations, and have them looked at at once."""
    copy = models.PhysicalCopy
    marked = sa.select(copy.id).where(copy.data_location_id.in_(ids), sa.text(GOING))
    take_back(session, session.scalars(marked).all(), because=because, by=by)
    session.execute(sa.update(_Location).where(_Location.id.in_(ids)).values(retention_look_at=None))
    session.execute(_HEED)
