"""What waits after trouble goes on at once, where that is known to be over, or a person says so."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.states import Status

_Way, _Trip, _Keeping, _Job = (
    models.LongTermArchiveTransfer,
    models.DataTransfer,
    models.ProductArchiveTransfer,
    models.StagingJob,
)
_Copy, _File, _Location = models.PhysicalCopy, models.RawDataFile, models.DataLocation
_IS_LIVE: Final = sa.text("physical_copy.status <> 'deleted'")  # as indexes say it
_ENDS: Final[Mapping[Any, Sequence[Any]]] = {
    _Way: (_Way.origin_id, _Way.destination_id),
    _Trip: (_Trip.origin_id, _Trip.destination_id),
    _Keeping: (_Keeping.origin_id, _Keeping.destination_id, _Keeping.next_id),
    _Job: (_Job.data_location_id,),
}
"""Transfers, and the locations that each needs."""


def end_pauses_at(session: Session, location_id: int) -> int:
    """Have transfers go on that need a location and wait after trouble with it; how many these are.

    What waits for another reason waits on: their failure names the location where it is the reason.
    """
    name = session.scalars(LOCATION.rows.with_only_columns(LOCATION.label).where(_Location.id == location_id)).one()
    needs: dict[Any, sa.ColumnElement[bool]] = {
        noun: sa.or_(*(end == location_id for end in ends)) for noun, ends in _ENDS.items()
    }
    needs[_Way] = sa.or_(needs[_Way], _is_packed_from(location_id))
    needs[_Job] = sa.or_(needs[_Job], _is_staged_from(location_id))
    met = {noun: sa.and_(which, noun.failure.contains(name, autoescape=True)) for noun, which in needs.items()}
    return sum(_end_pauses(session, noun, which) for noun, which in met.items())


def end_pauses_of(session: Session, package_id: int) -> int:
    """Have what brings a raw package anywhere go on, where it waits after trouble; how many transfers these are."""
    trips = sa.select(_Way.data_transfer_id).where(_Way.raw_data_package_id == package_id)
    of_package = {
        _Way: _Way.raw_data_package_id == package_id,
        _Trip: _Trip.id.in_(trips),
        _Job: _Job.raw_data_package_id == package_id,
    }
    return sum(_end_pauses(session, noun, which) for noun, which in of_package.items())


def _end_pauses(session: Session, noun: Any, which: sa.ColumnElement[bool]) -> int:
    waits = sa.and_(noun.status == Status.PENDING, noun.not_before > sa.func.clock_timestamp(), which)
    # Whoever holds one is at it.
    found = session.scalars(sa.select(noun.id).where(waits).with_for_update(skip_locked=True)).all()
    if found:
        anew = sa.update(noun).where(noun.id.in_(found)).values(not_before=None)
        session.execute(anew, execution_options={"synchronize_session": False})
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{noun.__tablename__}:{Status.PENDING}")))
    return len(found)


def _is_packed_from(location_id: int) -> sa.ColumnElement[bool]:
    """Condition on an archive transfer: raw files of its package lie there."""
    of_package = (_File.raw_data_package_id == _Way.raw_data_package_id, _Copy.raw_data_file_id == _File.id)
    return sa.exists().where(*of_package, _Copy.data_location_id == location_id, _IS_LIVE).correlate(_Way)


def _is_staged_from(location_id: int) -> sa.ColumnElement[bool]:
    """Condition on a staging job: what it stages lies there."""
    same = (
        _Copy.raw_data_package_id == _Job.raw_data_package_id,
        _Copy.data_product_id == _Job.data_product_id,
    )
    return sa.or_(
        *(sa.exists().where(one, _Copy.data_location_id == location_id, _IS_LIVE).correlate(_Job) for one in same)
    )
