"""Where the files of a location lie changes while nobody uses them, and none counts before it was read there.

Whoever works there looks up the place in a transaction that renews its lease; so where its row is held, and its lease
is over, it goes no further once it wakes up.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.naming import listed
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.copies import WHY_IN_DOUBT
from ccat_ops_db.verbs.reading import begin_to_read, forget_looks

_Copy, _Location, _Run = models.PhysicalCopy, models.DataLocation, models.ExecutedReductionStep
_Archiving, _Trip, _Products, _Staging = (
    models.LongTermArchiveTransfer,
    models.DataTransfer,
    models.ProductArchiveTransfer,
    models.StagingJob,
)
_Transfer: TypeAlias = (
    models.LongTermArchiveTransfer | models.DataTransfer | models.ProductArchiveTransfer | models.StagingJob
)
_NOW: Final = sa.func.clock_timestamp()
_MOST_TOLD: Final = 5
_ARE_USED: Final = (PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.STAGED, PhysicalCopyStatus.DELETION_IN_PROGRESS)
"""What copies are while a worker that has a lease on them reads or removes them; on others managers have leases too."""
_ARE_READ: Final = (PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.STAGED, PhysicalCopyStatus.DELETION_POSSIBLE)
_UNREAD: Final = {"verified_at": None, "not_before": None, "failure": WHY_IN_DOUBT, "trouble_count": 0}


class LocationInUse(CcatError):
    """A location is to lie elsewhere, and somebody reads or writes there."""

    code = "location_in_use"

    def __init__(self, name: str, users: list[str]) -> None:
        told = listed(users[:_MOST_TOLD])
        others = f" and {len(users) - _MOST_TOLD} more" if len(users) > _MOST_TOLD else ""
        super().__init__(
            f"Location {name} is in use: {told}{others} read or write there, and would go on where its files were. "
            "Stop them (who was killed counts for a minute), and say it again. Nothing was changed."
        )


class _Work(NamedTuple):
    noun: type[_Transfer | models.PhysicalCopy | models.ExecutedReductionStep]
    there: sa.ColumnElement[bool]
    """What may read or write at the location."""
    is_done: sa.ColumnElement[bool]
    """What somebody does who has a lease on it."""


def vacate(session: Session, location: models.DataLocation, name: str) -> int:
    """Let copies at a location count for nothing until they were read again, and nobody else go on there.

    How many copies that are. Raises LocationInUse.
    """
    _require_left(session, location.id, name)
    session.execute(sa.select(_Location.id).where(_Location.id == location.id).with_for_update(of=_Location.__table__))
    unread = _distrust(session, location.id)
    for noun, there, _ in _works(location.id):
        session.execute(sa.select(noun.id).where(there).order_by(noun.id).with_for_update())
    _require_left(session, location.id, name)
    for noun, there, _ in _works(location.id):
        is_held = sa.and_(there, noun.claimed_by.is_not(None))
        session.execute(sa.update(noun).where(is_held).values(claimed_by=None, lease_until=None))
    location.archive_look_at = location.probed_at = None
    forget_looks(session, location)
    location.marked_at = None  # its mark need not have come along
    begin_to_read(session, location.id)
    return unread


def cut_off(session: Session, location_id: int) -> None:
    """Let nobody go on who reads or writes at a location: whoever is at it finds its lease gone."""
    for noun, there, _ in _works(location_id):
        is_held = sa.and_(there, noun.claimed_by.is_not(None))
        held = session.scalars(sa.select(noun.id).where(is_held).order_by(noun.id).with_for_update()).all()
        session.execute(sa.update(noun).where(noun.id.in_(held)).values(claimed_by=None, lease_until=None))


def _distrust(session: Session, location_id: int) -> int:
    """Those that were verified; all are held, as one may be about to be."""
    there = (_Copy.data_location_id == location_id, _Copy.status != PhysicalCopyStatus.DELETED)
    ours = sa.and_(*there, _Copy.raw_data_file_id.is_(None))
    count = sa.select(sa.func.count()).where(ours, _Copy.verified_at.is_not(None))
    verified = session.scalars(count).one()
    unsynchronized = {"synchronize_session": False}
    begun_anew = sa.update(_Copy).where(ours, _Copy.status.in_(_ARE_READ)).values(_UNREAD)
    session.execute(begun_anew, execution_options=unsynchronized)
    session.execute(sa.update(_Copy).where(ours).values(verified_at=None), execution_options=unsynchronized)
    return verified


def _require_left(session: Session, location_id: int, name: str) -> None:
    users: set[str] = set()
    for noun, there, is_done in _works(location_id):
        held = sa.select(noun.claimed_by).where(there, is_done, noun.lease_until >= _NOW)
        users.update(by for by in session.scalars(held.distinct()) if by is not None)
    if users:
        raise LocationInUse(name, sorted(users))


def _works(location_id: int) -> Iterator[_Work]:
    """All that may be done at a location."""
    places: Mapping[type[_Transfer], tuple[Any, ...]] = {
        _Archiving: (_Archiving.origin_id, _Archiving.destination_id),
        _Trip: (_Trip.origin_id, _Trip.destination_id),
        _Products: (_Products.origin_id, _Products.destination_id, _Products.next_id),
        _Staging: (_Staging.data_location_id,),
    }
    for noun, columns in places.items():
        is_there = sa.or_(*(column == location_id for column in columns), _takes_from(noun, location_id))
        there = sa.and_(noun.status.in_(LIVE_TRANSFER_STATUSES), is_there)
        yield _Work(noun, there, noun.status == Status.IN_PROGRESS)
    yield _Work(_Copy, _Copy.data_location_id == location_id, _Copy.status.in_(_ARE_USED))
    yield _Work(_Run, sa.and_(_Run.data_location_id == location_id, _Run.claimed_by.is_not(None)), sa.true())


def _takes_from(noun: type[_Transfer], location_id: int) -> sa.ColumnElement[bool]:
    """Whether something may be made of a copy there: of raw files, of what an archive has, or of a product."""
    here, file = sa.and_(_Copy.data_location_id == location_id, _Copy.status != "deleted"), models.RawDataFile
    if noun is _Staging:
        same = sa.or_(
            _Copy.raw_data_package_id == _Staging.raw_data_package_id,
            _Copy.data_product_id == _Staging.data_product_id,
        )
        return sa.exists().where(here, same)
    if noun is _Archiving:
        packed = sa.exists().where(here, _Copy.raw_data_package_id == _Archiving.raw_data_package_id)
        of_files = sa.exists().where(
            here, _Copy.raw_data_file_id == file.id, file.raw_data_package_id == _Archiving.raw_data_package_id
        )
        return sa.or_(packed, of_files)
    return sa.false()
