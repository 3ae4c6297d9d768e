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

_Copy, _File, _Package, _Location = (
    models.PhysicalCopy,
    models.RawDataFile,
    models.RawDataPackage,
    models.DataLocation,
)
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
    is_there = sa.exists().where(at_source.raw_data_file_id == _File.id, at_source.status == PhysicalCopyStatus.PRESENT)
    lacks_files = sa.exists().where(_File.raw_data_package_id == _Package.id, sa.not_(is_there))
    was_archived = _Package.state == PackageState.ARCHIVED
    return sa.and_(was_archived, _Package.id.in_(bad), sa.not_(has_another), lacks_files).self_group()


IS_LOST: Final = _is_lost()
"""Condition on a raw package: it was archived; by now no tar of it is known, nor all of its raw files."""
NO_COPY_LEFT: Final = "archived and no copy left"
"""How they are counted, apart from those that are archived; SQL of the night says the same."""
LOST_SENTENCE: Final = f"It was archived, and NO copy of it is known anywhere any more: {_MENDED}` takes it up."


def lost_packages(session: Session) -> Sequence[int]:
    """Raw packages that were archived, and of which no copy is left."""
    return session.scalars(sa.select(_Package.id).where(IS_LOST).order_by(_Package.id)).all()


def told_of_lost_packages(session: Session) -> Iterator[Condition]:
    """What people are told of them, until each is mended."""
    lost = lost_packages(session)
    if lost:
        at, path = session.execute(
            sa.select(LOCATION.label, _Copy.path)
            .select_from(_Copy)
            .join(_Location, _IS_ARCHIVED)
            .join(_Location.site)
            .where(_Copy.raw_data_package_id == lost[0], _Copy.status != PhysicalCopyStatus.DELETED)
            .order_by(_Location.priority.desc(), _Location.id)
            .limit(1)
        ).one()
        yield Condition(
            kind=AlertKind.LOST_COPY,
            key="no copy left",
            sentence=f"NO copy of {counted(len(lost), 'raw package', 'raw packages')} is known anywhere, "
            f"though archived before: such as package {lost[0]}, which {at} had as {path}: {_MENDED} {lost[0]}`",
            number=len(lost),
        )
