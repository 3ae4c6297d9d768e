"""Which archive copies were found damaged or gone, also where that was mended at once: a disk may be failing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.system import FOUND_BAD
from ccat_ops_db.plan.alerts import Condition
from ccat_ops_db.plan.losses import DECLARED
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.states import AlertKind, LocationType, PhysicalCopyStatus, Status

_Copy, _Change, _Location, _Way = (
    models.PhysicalCopy,
    models.StatusChange,
    models.DataLocation,
    models.LongTermArchiveTransfer,
)
TOLD_FOR: Final = timedelta(days=1)
"""So long people are told of what was mended by itself."""
COUNTED_FOR: Final = timedelta(days=30)
_NOW: Final = sa.select(sa.func.clock_timestamp()).scalar_subquery()
"""Asked once: compared with a clock that goes on, moves are looked at one by one, and not found by an index."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """An archive copy that was found damaged or gone."""

    found_at: datetime
    archive: str
    path: str
    was: PhysicalCopyStatus
    because: str
    """What was found."""
    by: str
    """Who found it."""
    is_mended: bool
    """Whether there is another in its place."""
    mended: str | None
    """How."""
    made_from: str | None
    """Location that the other was made of, of a raw package."""


@dataclass(frozen=True, kw_only=True)
class DamageAt:
    """Copies of an archive that were found bad of late, each as often as it was."""

    archive: str
    damaged: int
    gone: int
    last_at: datetime
    unmended: int
    """Those of them that are bad still."""


def damage(session: Session, *, days: int, limit: int) -> Sequence[Damage]:
    """What was found bad in so many days, the last first."""
    after, present = aliased(_Copy, flat=True), aliased(_Change)
    same = sa.and_(
        after.data_location_id == _Copy.data_location_id,
        sa.or_(  # each by its index
            after.raw_data_package_id == _Copy.raw_data_package_id, after.data_product_id == _Copy.data_product_id
        ),
        after.id > _Copy.id,
    )
    successor = sa.select(sa.func.min(after.id)).where(same).correlate(_Copy).scalar_subquery()
    came = sa.and_(present.noun == _Copy.__tablename__, present.to_status == PhysicalCopyStatus.PRESENT)
    mended = sa.select(present.because).where(came, present.object_id == successor).order_by(present.id).limit(1)
    told = mended.correlate(_Copy).scalar_subquery()
    rows = session.execute(
        _found(timedelta(days=days))
        .add_columns(
            _Change.at.label("found_at"),
            LOCATION.label.label("archive"),
            _Copy.path,
            _Change.to_status.label("was"),
            _Change.because,
            _Change.by,
            told.is_not(None).label("is_mended"),
            told.label("mended"),
            _origin().label("made_from"),
        )
        .order_by(_Change.id.desc())
        .limit(limit)
    )
    return [Damage(**{**row, "was": PhysicalCopyStatus(row["was"])}) for row in rows.mappings()]


def damage_by_archive(session: Session) -> Sequence[DamageAt]:
    """How often copies of each archive were found bad in a month."""
    of_kind = {
        name: sa.func.count().filter(_Change.to_status == to).label(name)
        for name, to in (("damaged", PhysicalCopyStatus.CORRUPT), ("gone", PhysicalCopyStatus.MISSING))
    }
    rows = session.execute(
        _found(COUNTED_FOR)
        .add_columns(
            LOCATION.label.label("archive"),
            *of_kind.values(),
            sa.func.max(_Change.at).label("last_at"),
            sa.func.count().filter(_Copy.status != PhysicalCopyStatus.DELETED).label("unmended"),
        )
        .group_by(LOCATION.label)
        .order_by(LOCATION.label)
    )
    return [DamageAt(**row) for row in rows.mappings()]


def told_of_damage(session: Session) -> Iterator[Condition]:
    """What people are told, once for each archive and day, of copies that are made anew or back; of others they are."""
    day = sa.cast(sa.func.timezone("UTC", _Change.at), sa.Date)
    rows: Sequence[tuple[str, date, int, str, str]] = session.execute(
        _found(TOLD_FOR)
        .where(_Copy.status == PhysicalCopyStatus.DELETED)
        .add_columns(LOCATION.label, day, sa.func.count(), sa.func.min(_Copy.path), sa.func.min(_Change.because))
        .group_by(LOCATION.label, day)
        .order_by(LOCATION.label, day)
    ).all()
    for name, on, number, path, because in rows:
        copies = counted(number, "archive copy was", "archive copies were")
        yield Condition(
            kind=AlertKind.LOST_COPY,
            key=f"found bad {name} {on}",
            sentence=f"{copies} found damaged or gone at {name} on {on:%F}, and replaced since then, such as {path}: "
            f"{because} Look after its disk; `ccat transfer damage` lists what was found, and how it was mended",
            number=number,
        )


def _found(within: timedelta) -> sa.Select[*tuple[object, ...]]:
    """Archive copies, each time that one was found bad; what a person said to be lost with its archive was not."""
    return (
        sa.select()
        .select_from(_Change)
        .join(_Copy, _Copy.id == _Change.object_id)
        .join(_Location, _Location.id == _Copy.data_location_id)
        .join(_Location.site)
        .where(sa.text(FOUND_BAD), _Change.at > _NOW - within)
        .where(_Location.location_type == LocationType.LONG_TERM_ARCHIVE)
        .where(sa.not_(_Change.because.startswith(DECLARED)))
    )


def _origin() -> sa.ScalarSelect[str]:
    """Where the next tar of a package came from that was archived there."""
    start, site = aliased(_Location, flat=True), aliased(models.Site)
    return (
        sa.select(site.short_name + "/" + start.name)
        .select_from(_Way)
        .join(start, start.id == _Way.origin_id)
        .join(site, site.id == start.site_id)
        .where(
            _Way.raw_data_package_id == _Copy.raw_data_package_id,
            _Way.destination_id == _Copy.data_location_id,
            _Way.status == Status.COMPLETED,
            _Way.created_at >= _Change.at,
        )
        .order_by(_Way.id)
        .limit(1)
        .correlate(_Copy, _Change)
        .scalar_subquery()
    )
