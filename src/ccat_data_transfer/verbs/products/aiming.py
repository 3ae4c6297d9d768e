"""Which archive the products of runs go to, and what need not go there any more."""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.errors import NoArchiveForProducts
from ccat_data_transfer.verbs.products.plan import Archive, archive_for
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import once_more
from ccat_ops_db.states import (
    STORAGES,
    LocationType,
    Mover,
    PhysicalCopyStatus,
    ProductState,
    RouteType,
    Status,
    StorageType,
)
from ccat_ops_db.verbs.archiving import archived_steps

_Transfer, _Run, _Product, _Location, _Route = (
    models.ProductArchiveTransfer,
    models.ExecutedReductionStep,
    models.DataProduct,
    models.DataLocation,
    models.DataTransferRoute,
)
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
    """Cancel what is not wanted any more, and choose an archive for the rest; how many transfers that were.

    Where there is none, the transfers say what is missing, and wait for it.
    """
    cancelled = _cancel_unwanted(session, by=by)
    is_new = sa.and_(_Transfer.status == Status.PENDING, _Transfer.destination_id.is_(None))
    origins = session.scalars(sa.select(_Transfer.origin_id).where(is_new).distinct()).all()
    return cancelled + sum(_aim_from(session, is_new, origin_id) for origin_id in origins)


def _aim_from(session: Session, is_new: sa.ColumnElement[bool], origin_id: int) -> int:
    origin = session.get_one(_Location, origin_id)
    chosen = archive_for(origin.site_id, _archives(session), shares=_shares(session, origin.site_id))
    from_here = sa.update(_Transfer).where(is_new, _Transfer.origin_id == origin_id).returning(_Transfer.id)
    if chosen is not None:
        return len(session.scalars(from_here.values(destination_id=chosen, failure=None)).all())
    because = str(NoArchiveForProducts(f"{origin.site.short_name}/{origin.name}"))
    session.execute(from_here.where(_Transfer.failure.is_distinct_from(because)).values(failure=because))
    return 0


def _archives(session: Session) -> list[Archive]:
    kind = LocationType.LONG_TERM_ARCHIVE
    rows = session.execute(
        sa.select(_Location.id, _Location.site_id, _Location.storage_type, _Location.priority).where(
            _Location.location_type == kind, _Location.storage_type.in_(STORAGES[kind]), _Location.active
        )
    )
    return [Archive(*row) for row in rows]


def _shares(session: Session, site_id: int) -> set[int]:
    """Sites whose workers see the files of a site: what goes there is copied, as on one machine."""
    route = sa.and_(_Route.active, _Route.route_type == RouteType.DIRECT, _Route.method == Mover.COPY)
    return set(session.scalars(sa.select(_Route.destination_site_id).where(route, _Route.origin_site_id == site_id)))


def _cancel_unwanted(session: Session, *, by: str) -> int:
    """Cancel what is not begun of runs whose products do not count any more, or whose step does not say so any more."""
    oldest = (
        sa.select(_Transfer.id, _Transfer.run_id, _Transfer.destination_id)
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
        copy.data_location_id == oldest.c.destination_id,
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
