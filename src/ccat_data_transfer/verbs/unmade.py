"""Archive copies that were lost, and that nobody is at making anew, are lost as before."""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import claims, models
from ccat_ops_db.models.data import UNFINISHED
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import LocationType, PhysicalCopyStatus, Status

_Copy, _Way, _Change = models.PhysicalCopy, models.LongTermArchiveTransfer, models.StatusChange
_Package, _Location = models.RawDataPackage, models.DataLocation
_LOST: Final = (PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)
_BECAUSE: Final = "it was lost before, and was not made anew"


def lost_as_before(session: Session, which: sa.ColumnElement[bool], *, by: str) -> list[int]:
    """Have archive copies of raw packages be MISSING that were begun in place of lost ones, and are not made now.

    So they are told of, and can be restored. Whoever goes on to make one begins anew.
    """
    was_begun = (sa.text(f"physical_copy.{UNFINISHED}"), _Copy.raw_data_package_id.is_not(None), claims.is_free(_Copy))
    archives = sa.select(_Location.id).where(_Location.location_type == LocationType.LONG_TERM_ARCHIVE)
    is_archived = _Copy.data_location_id.in_(archives)
    found = sa.select(_Copy.id).where(*was_begun, which, is_archived, _took_the_place_of_lost(), sa.not_(_is_made()))
    lost = advance(session, _Copy, session.scalars(found).all(), to=PhysicalCopyStatus.MISSING, because=_BECAUSE, by=by)
    # As it is to be, once it is restored.
    packed = {"size_bytes": _Package.size_bytes, "checksum": _Package.checksum}
    these = sa.and_(is_among(_Copy.id, lost), _Package.id == _Copy.raw_data_package_id)
    session.execute(sa.update(_Copy).where(these).values(packed), execution_options={"synchronize_session": False})
    return lost


def _took_the_place_of_lost() -> sa.ColumnElement[bool]:
    before = aliased(_Copy, flat=True)
    same = sa.and_(
        before.raw_data_package_id == _Copy.raw_data_package_id,
        before.data_location_id == _Copy.data_location_id,
        before.id < _Copy.id,
    )
    last = sa.select(sa.func.max(before.id)).where(same).correlate(_Copy).scalar_subquery()
    return sa.exists().where(
        _Change.noun == _Copy.__tablename__, _Change.object_id == last, _Change.from_status.in_(_LOST)
    )


def _is_made() -> sa.ColumnElement[bool]:
    return sa.exists().where(
        _Way.raw_data_package_id == _Copy.raw_data_package_id,
        _Way.destination_id == _Copy.data_location_id,
        _Way.status.in_([Status.SCHEDULED, Status.IN_PROGRESS]),
    )
