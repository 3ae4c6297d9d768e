"""Which archive the products of runs go to and by which way, and what need not go there any more."""

from collections.abc import Mapping
from dataclasses import astuple
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.errors import NoArchiveForProducts
from ccat_data_transfer.verbs.products.network import the_network
from ccat_data_transfer.verbs.products.plan import NOWHERE, Aim, Archive, aim_from
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import once_more
from ccat_ops_db.states import (
    STORAGES,
    LocationType,
    PhysicalCopyStatus,
    ProductState,
    Status,
    StorageType,
)
from ccat_ops_db.verbs.archiving import archived_steps

_Transfer, _Run, _Product, _Location = (
    models.ProductArchiveTransfer,
    models.ExecutedReductionStep,
    models.DataProduct,
    models.DataLocation,
)
_AIM: Final = (_Transfer.destination_id, _Transfer.next_id, _Transfer.data_transfer_route_id)
_Origin, _Destination = once_more(_Location, name="origin"), once_more(_Location, name="destination")
_LOOKED_AT: Final = 1_000
"""Transfers, the oldest, of which one round asks whether they are still wanted."""


def writer_id() -> sa.ColumnElement[int]:
    """Location whose workers do it: the archive, or where the products are for an object store of another site."""
    is_far_store = sa.exists().where(
        _Origin.id == _Transfer.origin_id,
        _Destination.id == _Transfer.destination_id,
        _Origin.site_id != _Destination.site_id,
        _Destination.storage_type == StorageType.S3,
    )
    return sa.case((is_far_store.correlate(_Transfer), _Transfer.origin_id), else_=_Transfer.destination_id)


def aim(session: Session, *, by: str) -> int:
    """Cancel what is not wanted any more, and choose archives and ways for the rest; how many transfers that were.

    Where there is none, the transfers say what is missing, and wait for it.
    """
    done = _cancel_unwanted(session, by=by)
    waiting = sa.select(_Transfer.origin_id, *_AIM).where(_Transfer.status == Status.PENDING).distinct()
    found = session.execute(waiting).all()
    if found:
        here, archives = the_network(session), _archives(session)
        for origin_id, *aimed in found:
            wanted = aim_from(here.places[origin_id], archives, here, kept=aimed[0])
            done += _note(session, origin_id, Aim(*aimed), wanted=wanted)
    return done


def aim_on(session: Session, transfer: models.ProductArchiveTransfer, origin_id: int) -> None:
    """Have the products of a transfer go on from another location."""
    here = the_network(session)
    wanted = aim_from(here.places[origin_id], _archives(session), here, kept=transfer.destination_id)
    transfer.origin_id = origin_id
    if wanted != NOWHERE:  # else it is told by whoever aims next
        transfer.destination_id = wanted.archive_id
    transfer.next_id, transfer.data_transfer_route_id = wanted.next_id, wanted.route_id


def _note(session: Session, origin_id: int, aimed: Aim, *, wanted: Aim) -> int:
    """Write down where transfers go from a location that were aimed otherwise; how many that were."""
    same = (column.is_not_distinct_from(value) for column, value in zip(_AIM, astuple(aimed), strict=True))
    alike = sa.and_(_Transfer.status == Status.PENDING, _Transfer.origin_id == origin_id, *same)
    values = dict(zip((column.key for column in _AIM), astuple(wanted), strict=True))
    change = sa.update(_Transfer).where(alike).returning(_Transfer.id)
    if wanted == NOWHERE:
        origin = session.get_one(_Location, origin_id)
        values["failure"] = str(NoArchiveForProducts(f"{origin.site.short_name}/{origin.name}"))
        session.execute(change.where(_Transfer.failure.is_distinct_from(values["failure"])).values(values))
        return 0
    return len(session.scalars(change.values(values | {"failure": None})).all()) if wanted != aimed else 0


def _archives(session: Session) -> list[Archive]:
    kind = LocationType.LONG_TERM_ARCHIVE
    rows = session.execute(
        sa.select(_Location.id, _Location.site_id, _Location.storage_type, _Location.priority, _Location.active).where(
            _Location.location_type == kind,
            _Location.storage_type.in_(STORAGES[kind]),
            _Location.lost_at.is_(None),
        )
    )
    return [Archive(*row) for row in rows]


def _cancel_unwanted(session: Session, *, by: str) -> int:
    """Cancel what is not begun of runs whose products do not count any more, or whose step does not say so any more."""
    oldest = (
        sa.select(_Transfer.id, _Transfer.run_id, _Transfer.destination_id, _Transfer.next_id)
        .where(_Transfer.status == Status.PENDING)
        .order_by(_Transfer.id)
        .limit(_LOOKED_AT)
        .subquery()
    )
    counts = sa.exists().where(_Product.run_id == oldest.c.run_id, _Product.state == ProductState.CURRENT)
    copy = models.PhysicalCopy
    is_begun = sa.exists().where(
        _Product.run_id == oldest.c.run_id,
        copy.data_product_id == _Product.id,
        copy.data_location_id.in_([oldest.c.destination_id, oldest.c.next_id]),
        copy.status == PhysicalCopyStatus.WRITING,
    )
    asked = sa.select(oldest.c.id, counts).join(_Run, _Run.id == oldest.c.run_id)
    says_so = _Run.reduction_step_id.in_(archived_steps())
    found = session.execute(asked.where(sa.not_(sa.and_(counts, says_so)), sa.not_(is_begun))).all()
    because: Mapping[bool, str] = {
        False: "its products do not count any more",
        True: "its step does not have its products archived any more",
    }
    pending = [Status.PENDING]
    return sum(
        len(advance(session, _Transfer, ids, to=Status.CANCELLED, expected=pending, because=told, by=by))
        for does_count, told in because.items()
        if (ids := [one for one, counted in found if counted is does_count])
    )
