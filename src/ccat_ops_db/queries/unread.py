"""Whether archives can be read, and are again as often as they should be."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.plan.alerts import Condition
from ccat_ops_db.plan.retention import SCRUBBED_AFTER
from ccat_ops_db.plan.spaces import FRESH
from ccat_ops_db.queries.pauses import is_held
from ccat_ops_db.queries.serving import SCRUBBING, is_unserved
from ccat_ops_db.states import AlertKind, LocationType

_DAY: Final = timedelta(days=1)
_SLACK: Final = 10
"""Falling behind by a part of the time, and by a day at least, is told."""

_Copy, _Location = models.PhysicalCopy, models.DataLocation
_NOW: Final = sa.select(sa.func.clock_timestamp()).scalar_subquery()
"""Asked once: compared with a clock that goes on, rows are looked at one by one, and not found by an index."""
_EVERY: Final = sa.func.coalesce(_Location.scrub_days, SCRUBBED_AFTER.days)
_AFTER: Final = _EVERY * sa.cast(_DAY, sa.Interval)
_THERE: Final = sa.and_(
    _Copy.data_location_id == _Location.id,
    _Copy.raw_data_file_id.is_(None),
    sa.text("physical_copy.status = 'present'"),  # as the index says it
)
_OVERDUE: Final = (_Copy.verified_at.is_(None), _Copy.verified_at < _NOW - _AFTER)
"""Conditions on copies of which each is looked up by the index, and both at once are not."""
_IS_READ: Final = sa.and_(_Location.location_type == LocationType.LONG_TERM_ARCHIVE, _EVERY > 0)
_NEVER_READ: Final = (
    sa.select(_Copy.created_at)
    .where(_THERE, _Copy.verified_at.is_(None), _Copy.failure.is_(None))
    .order_by(_Copy.verified_at.desc(), _Copy.id)  # as the index has them
    .limit(1)
    .correlate(_Location)
    .scalar_subquery()
)
"""When the oldest copy was made that was never read; what is in doubt is told of by itself."""
_Reader: Final = models.ArchiveReader
LOOKED_LATELY: Final = _Reader.looked_at > _NOW - FRESH
"""Condition on a reader: it looks several times meanwhile, if it is there still."""
_OLDEST: Final = sa.select(sa.func.min(_Copy.verified_at)).where(_THERE).correlate(_Location).scalar_subquery()


@dataclass(frozen=True, kw_only=True)
class ReadAgain:
    """An archive whose copies are read again, and how far behind that is."""

    archive: str
    every_days: int
    oldest: datetime | None
    """When the copy was read that was not for longest; None where there is none."""
    overdue_copies: int
    """Not read for so many days, or never."""
    overdue_bytes: int


def read_again(session: Session) -> Sequence[ReadAgain]:
    """How far behind the reading of each archive is that is read again."""
    late = sa.union_all(
        *(sa.select(_Copy.size_bytes).where(_THERE, one).correlate(_Location) for one in _OVERDUE)
    ).subquery("late")
    number, size = sa.func.count().label("copies"), sa.func.sum(late.c.size_bytes).label("bytes")
    overdue = sa.select(number, size).select_from(late).lateral("overdue")
    rows = session.execute(
        LOCATION.rows.with_only_columns(
            LOCATION.label.label("archive"),
            _EVERY.label("every_days"),
            _OLDEST.label("oldest"),
            overdue.c.copies.label("overdue_copies"),
            sa.cast(sa.func.coalesce(overdue.c.bytes, 0), sa.BigInteger).label("overdue_bytes"),
        )
        .join(overdue, sa.true())
        .where(_IS_READ)
        .order_by(LOCATION.label)
    )
    return [ReadAgain(**row) for row in rows.mappings()]


def unreadable_archives(session: Session) -> Iterator[Condition]:
    """Archives at which nothing can be read, and could not for minutes."""
    told = (_Location.id, LOCATION.label, _Location.unreadable, _Location.unreadable_since)
    unreadable = LOCATION.rows.with_only_columns(*told).where(_Location.unreadable_since < _NOW - FRESH)
    for number, name, because, since in session.execute(unreadable.order_by(LOCATION.label)):
        yield Condition(
            kind=AlertKind.UNUSABLE_LOCATION,
            key=f"location {number} unread",
            sentence=f"nothing can be read at archive {name} since {since:%F %H:%M} UTC: {because} Until something can "
            "again, no copy of raw data is let go because it has one. If it is lost for good, `ccat location lost "
            f"{name}` has it replaced",
        )


def unread_by_some(session: Session, location_id: int) -> str | None:
    """Why some worker can read nothing at an archive, whether others can or not; None where all can."""
    here = sa.select(_Reader.unreadable).where(_Reader.data_location_id == location_id, LOOKED_LATELY)
    return session.scalar(here.where(_Reader.unreadable.is_not(None)).order_by(_Reader.worker).limit(1))


@dataclass(frozen=True, kw_only=True)
class Unread:
    """A worker that can read nothing at an archive, where others can."""

    location_id: int
    archive: str
    worker: str
    because: str
    since: datetime

    @property
    def host(self) -> str:
        """The worker without its number, which is another when it is started again."""
        return self.worker.rpartition(":")[0] or self.worker


def workers_that_cannot_read(session: Session, *, for_long: timedelta = timedelta()) -> Sequence[Unread]:
    """Workers that can read nothing at an archive, and could not for so long, where others can."""
    told = LOCATION.rows.with_only_columns(
        _Location.id.label("location_id"),
        LOCATION.label.label("archive"),
        _Reader.worker,
        _Reader.unreadable.label("because"),
        _Reader.unreadable_since.label("since"),
    ).join(_Reader, _Reader.data_location_id == _Location.id)
    alone = (LOOKED_LATELY, _Location.unreadable.is_(None), _Reader.unreadable_since <= _NOW - for_long)
    rows = session.execute(told.where(*alone).order_by(LOCATION.label, _Reader.worker))
    return [Unread(**row) for row in rows.mappings()]


def archives_unread_by_some(session: Session) -> Iterator[Condition]:
    """Archives that a worker could not read for minutes, while others can."""
    by_host = {(one.location_id, one.host): one for one in workers_that_cannot_read(session, for_long=FRESH)}
    for (number, host), one in by_host.items():
        yield Condition(
            kind=AlertKind.UNUSABLE_LOCATION,
            key=f"location {number} unread by {host}",
            sentence=f"{host} can read nothing at archive {one.archive} since {one.since:%F %H:%M} UTC, while others "
            f"can: {one.because} What it takes up there is tried again, by whoever takes it then. Mend that on its "
            "host, as the key or the mount there, or have it serve other locations (`--location`)",
        )


def archives_behind(session: Session) -> Iterator[Condition]:
    """Archives that are read again later than they should be, unless they are paused."""
    told = (
        LOCATION.label,
        _EVERY,
        _OLDEST.label("oldest"),
        _NEVER_READ.label("unread"),
        _Location.read_at,
        _NOW,
    )
    read = LOCATION.rows.with_only_columns(*told).where(_IS_READ, sa.not_(is_held()))
    for name, days, oldest, unread, read_at, now in session.execute(read.order_by(LOCATION.label)):
        every = timedelta(days=days)
        slack = max(every / _SLACK, _DAY)
        if oldest is not None and now - oldest > every + slack:
            yield _behind(
                name, f"is not read again every {days} days: some of it was read last at {oldest:%F %H:%M} UTC"
            )
        elif unread is not None and now - (since := max(unread, read_at or unread)) > slack:
            yield _behind(name, f"is not read: some of it never was, and nothing is since {since:%F %H:%M} UTC")


def archives_unserved(session: Session) -> Iterator[Condition]:
    """Archives of which something is to be read again by now, where no transfer-worker would; what is paused waits."""
    is_awaited = sa.and_(_IS_READ, is_unserved(SCRUBBING), sa.not_(is_held()))
    never, late = sa.and_(_Copy.verified_at.is_(None), _Copy.failure.is_(None)), _Copy.verified_at < _NOW - _AFTER
    is_due = sa.or_(*(sa.select(_Copy.id).where(_THERE, one).correlate(_Location).exists() for one in (never, late)))
    names = LOCATION.rows.with_only_columns(LOCATION.label).where(is_awaited, is_due)
    for name in session.scalars(names.order_by(LOCATION.label)):
        yield Condition(
            kind=AlertKind.BACKLOG,
            key=f"not read again {name}",
            sentence=f"some of what lies at {name} is to be read again, and no transfer-worker does that there: start "
            f"`ccat transfer-worker --location {name}` on a host that has it, also in place of one that runs already",
        )


def _behind(name: str, how: str) -> Condition:
    return Condition(
        kind=AlertKind.BACKLOG,
        key=f"reading again {name}",
        sentence=f"what lies at {name} {how}; `ccat transfer status` says how much is overdue. See that a "
        f"transfer-worker serves it and what its log says, or let it read faster: `ccat location set {name} "
        "--scrub-rate`",
    )
