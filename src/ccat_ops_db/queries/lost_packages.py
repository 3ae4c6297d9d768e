"""Raw packages that were archived, and of which no copy is left as far as is known: what must never happen."""

from collections.abc import Iterator, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.data import LOST, UNFINISHED
from ccat_ops_db.plan.alerts import Condition
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.states import AlertKind, LocationType, PackageState, PhysicalCopyStatus

_Copy, _Package, _Location = models.PhysicalCopy, models.RawDataPackage, models.DataLocation
_GONE: Final = (
    PhysicalCopyStatus.WRITING,
    PhysicalCopyStatus.CORRUPT,
    PhysicalCopyStatus.MISSING,
    PhysicalCopyStatus.DELETED,
)
_IS_ARCHIVED: Final = sa.and_(
    _Location.id == _Copy.data_location_id, _Location.location_type == LocationType.LONG_TERM_ARCHIVE
)
_MENDED: Final = "restore its tar there, or its raw files where they were recorded, then `ccat package retry"


def _is_lost() -> sa.ColumnElement[bool]:
    lost = sa.select(_Copy.raw_data_package_id).join(_Location, _IS_ARCHIVED)
    # Each by an index of its own; all others have a copy that nobody found bad.
    bad = sa.union(*(lost.where(sa.text(f"physical_copy.{one}")) for one in (LOST, UNFINISHED)))
    copy, at_source = aliased(_Copy, flat=True), aliased(_Copy, flat=True)
    has_another = sa.exists().where(copy.raw_data_package_id == _Package.id, copy.status.not_in(_GONE))
    file = aliased(models.RawDataFile)
    is_there = sa.exists().where(at_source.raw_data_file_id == file.id, at_source.status == PhysicalCopyStatus.PRESENT)
    lacks_files = sa.exists().where(file.raw_data_package_id == _Package.id, sa.not_(is_there))
    was_archived = _Package.state == PackageState.ARCHIVED
    return sa.and_(was_archived, _Package.id.in_(bad), sa.not_(has_another), lacks_files).self_group()


IS_LOST: Final = _is_lost()
"""Condition on a raw package: it was archived; by now no tar of it is known, nor all of its raw files."""
NO_COPY_LEFT: Final = "archived and no copy left"
"""How they are counted, apart from those that are archived; SQL of the night says the same."""
LOST_SENTENCE: Final = (
    f"It was archived, and NO copy of it is known anywhere any more: {_MENDED}` takes it up; where it is gone for "
    "good, `ccat package give-up`."
)
IS_GIVEN_UP: Final = sa.and_(_Package.given_up_at.is_not(None), sa.or_(_Package.state == PackageState.FAILED, IS_LOST))
"""Condition on a raw package that failed, or was lost: a person said that it is gone for good."""
CALLED_GONE: Final = "given up"
"""How they are counted; SQL of the night says the same."""


def lost_packages(session: Session) -> Sequence[int]:
    """Raw packages that were archived, and of which no copy is left, also those that were given up."""
    return session.scalars(sa.select(_Package.id).where(IS_LOST).order_by(_Package.id)).all()


def told_of_lost_packages(session: Session) -> Iterator[Condition]:
    """What people are told of them, until each is mended or given up."""
    lost = sa.select(_Package.id).where(IS_LOST, _Package.given_up_at.is_(None)).cte("lost")
    first, number = sa.func.min(lost.c.id), sa.func.count()
    told = sa.select(first.label("id"), number.label("number")).select_from(lost).cte("told")
    rows = session.execute(  # all at once: one may come back at any time
        sa.select(told.c.id, told.c.number, LOCATION.label, _Copy.path, _Location.lost_at)
        .select_from(told)
        .join(_Copy, _Copy.raw_data_package_id == told.c.id)
        .join(_Location, _IS_ARCHIVED)
        .join(_Location.site)
        .where(_Copy.status != PhysicalCopyStatus.DELETED)
        .order_by(_Location.lost_at.is_not(None), _Location.priority.desc(), _Location.id)
        .limit(1)
    )
    for package_id, number_lost, at, path, lost_at in rows:
        again = f" (which is lost; `ccat location set {at} --active` has it used again)" if lost_at else ""
        yield Condition(
            kind=AlertKind.LOST_COPY,
            key="no copy left",
            sentence=f"NO copy of {counted(number_lost, 'raw package', 'raw packages')} is known anywhere, "
            f"though archived before: such as package {package_id}, which {at}{again} had as {path}: "
            f"{_MENDED} {package_id}`; where it is gone for good, `ccat package give-up {package_id}`",
            number=number_lost,
        )
