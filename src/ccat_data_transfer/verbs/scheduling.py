"""Which transfers may go on now, where, and how many at a time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.outcomes import Transfer
from ccat_data_transfer.verbs.parcels import has_arrived
from ccat_data_transfer.verbs.products import aiming as products
from ccat_data_transfer.verbs.ways import is_packed, is_restorable, is_straight, writer_id
from ccat_ops_db import claims, models
from ccat_ops_db.moves import advance
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, LocationType, PackageState, PhysicalCopyStatus, Status

_IS_FURTHER: Final = sa.exists().where(
    models.RawDataPackage.id == models.LongTermArchiveTransfer.raw_data_package_id,
    models.RawDataPackage.state == PackageState.ARCHIVED,
)
_FIRST_PATIENCE: Final = timedelta(seconds=4)
"""With a new transfer, before its message counts as lost."""

_Archiving, _Moving, _Staging, _Keeping = (
    models.LongTermArchiveTransfer,
    models.DataTransfer,
    models.StagingJob,
    models.ProductArchiveTransfer,
)


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One operation, and the transfers that wait for it."""

    operation: Operation
    noun: type[Transfer]
    location_id: sa.ColumnElement[int] | InstrumentedAttribute[int] | InstrumentedAttribute[int | None]
    """Location whose workers do it, as SQL over the transfer."""
    belongs: sa.ColumnElement[bool]
    """Whether this operation is what the transfer needs next."""


def source_id() -> sa.ColumnElement[int]:
    """Location whose workers pack it: of several with its raw files, the first."""
    copy, file, location = aliased(models.PhysicalCopy), aliased(models.RawDataFile), aliased(models.DataLocation)
    return (
        sa.select(sa.func.min(copy.data_location_id))
        .join(file, file.id == copy.raw_data_file_id)
        .join(location, location.id == copy.data_location_id)
        .where(
            file.raw_data_package_id == _Archiving.raw_data_package_id,
            location.location_type == LocationType.SOURCE,
            copy.status != PhysicalCopyStatus.DELETED,
        )
        .correlate(_Archiving)
        .scalar_subquery()
    )


LANES: Final = (
    Lane(
        operation=Operation.PACKING,
        noun=_Archiving,
        location_id=source_id(),
        belongs=sa.and_(sa.not_(is_packed()), sa.not_(is_restorable())),
    ),
    Lane(
        operation=Operation.RESTORING,
        noun=_Archiving,
        location_id=_Archiving.origin_id,
        belongs=sa.and_(sa.not_(is_packed()), is_restorable()),
    ),
    Lane(
        operation=Operation.TRANSFERRING,
        noun=_Moving,
        location_id=_Moving.destination_id,
        belongs=sa.not_(has_arrived()),
    ),
    Lane(operation=Operation.UNPACKING, noun=_Moving, location_id=_Moving.destination_id, belongs=has_arrived()),
    Lane(
        operation=Operation.ARCHIVING,
        noun=_Archiving,
        location_id=writer_id(),
        belongs=sa.and_(is_packed(), is_straight()),
    ),
    Lane(operation=Operation.STAGING, noun=_Staging, location_id=_Staging.data_location_id, belongs=sa.true()),
    Lane(
        operation=Operation.ARCHIVING_PRODUCTS,
        noun=_Keeping,
        location_id=products.writer_id(),
        belongs=sa.and_(_Keeping.destination_id.is_not(None), _Keeping.next_id.is_(None)),
    ),
    Lane(
        operation=Operation.TRANSFERRING_PRODUCTS,
        noun=_Keeping,
        location_id=_Keeping.next_id,
        belongs=_Keeping.next_id.is_not(None),
    ),
)
"""A package is packed, and then copied, under one archive transfer, whose lease covers each of the two. One that is
archived already, and has no tar where its way to another archive starts, is restored there instead of packed.

Between the two it may be on its way to another site, under one data transfer after the other with many others: then its
archive transfer has no lane. What is brought is unpacked under the same data transfer, without being brought anew.

Products of a run are moved from buffer to buffer, and then archived, under one transfer.
"""


def waiting(session: Session, lane: Lane, *, outstanding: int) -> dict[int, int]:
    """How many transfers may go on now, by location: at most `outstanding` are under way at any."""
    due, underway = sa.func.count().filter(_is_due(lane.noun)), sa.func.count().filter(_is_underway(lane.noun))
    may_go_on = sa.func.least(due, outstanding - underway)
    rows = session.execute(
        sa.select(lane.location_id, may_go_on)
        .where(lane.noun.status.in_(LIVE_TRANSFER_STATUSES), lane.belongs)
        .group_by(lane.location_id)
        .having(may_go_on > 0)
    )
    return {location_id: number for location_id, number in rows if location_id is not None}


def schedule_next(session: Session, lane: Lane, location_id: int, *, by: str, lease: timedelta) -> int | None:
    """Schedule the transfer that waits at a location and comes first, and return its id; None where none does.

    What is in no archive yet comes before further copies, the oldest first.

    Where no worker takes it, it is scheduled again: soon at first, for a message may be lost, and then at most after
    `lease`, for the workers may be busy with others.
    """
    here = sa.and_(_is_due(lane.noun), lane.belongs, lane.location_id == location_id)
    age = sa.func.clock_timestamp() - lane.noun.created_at
    patience = sa.func.least(sa.func.greatest(age, _FIRST_PATIENCE), lease)
    order = [_IS_FURTHER] if lane.noun is _Archiving else []
    for transfer_id in claims.claim(session, lane.noun, where=here, by=by, lease=patience, limit=1, order_by=order):
        because = f"scheduled for {lane.operation}"
        advance(session, lane.noun, [transfer_id], to=Status.SCHEDULED, because=because, by=by)
        return transfer_id
    return None


def next_moment(session: Session, noun: type[Transfer]) -> datetime | None:
    """When the first pause or lease of a transfer ends."""
    now = sa.func.clock_timestamp()
    ends = sa.case((noun.status == Status.PENDING, noun.not_before), else_=noun.lease_until)
    underway = noun.status.in_(LIVE_TRANSFER_STATUSES)
    moment: datetime | None = session.scalars(sa.select(sa.func.min(ends)).where(underway, ends > now)).one()
    return moment


def _is_underway(noun: type[Transfer]) -> sa.ColumnElement[bool]:
    return noun.status != Status.PENDING


def _is_due(noun: type[Transfer]) -> sa.ColumnElement[bool]:
    pause_is_over = sa.or_(noun.not_before.is_(None), noun.not_before <= sa.func.clock_timestamp())
    return sa.and_(noun.status == Status.PENDING, pause_is_over)
