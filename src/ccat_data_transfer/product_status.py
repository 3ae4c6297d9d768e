"""Which products are on their way: into an archive, or to where they are taken."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.states import LIVE_TRANSFER_STATUSES, PhysicalCopyStatus, ProductState, Status

_Keeping, _Job, _Product, _Copy = (
    models.ProductArchiveTransfer,
    models.StagingJob,
    models.DataProduct,
    models.PhysicalCopy,
)
_NOT_OVER: Final = (*LIVE_TRANSFER_STATUSES, Status.FAILED)


@dataclass(frozen=True, kw_only=True)
class ToArchive:
    """Runs whose products are on their way into an archive, alike in how that goes."""

    origin: str
    """Where they are."""
    next: str | None
    """Buffer that they are brought to first, where they are."""
    destination: str | None
    """None where there is no archive for them."""
    status: Status
    failure: str | None
    runs: int
    products: int
    size_bytes: int
    oldest_run: int
    """Number of the run that was asked for first."""

    @property
    def way(self) -> Sequence[str]:
        """The locations that they come by, where they are first."""
        return [one for one in (self.origin, self.next, self.destination) if one is not None]


@dataclass(frozen=True, kw_only=True)
class ToFetch:
    """Products that are brought to a processing location, alike in how that goes."""

    destination: str
    status: Status
    failure: str | None
    products: int
    size_bytes: int


def to_archive(session: Session) -> list[ToArchive]:
    """Products on their way into archives; of those whose archiving failed only what counts still."""
    names = LOCATION.rows.with_only_columns(models.DataLocation.id, LOCATION.label.label("name")).subquery()
    origin, buffer, archive = (names.alias() for _ in range(3))
    told = (
        origin.c.name.label("origin"),
        buffer.c.name.label("next"),
        archive.c.name.label("destination"),
        _Keeping.status,
        _Keeping.failure,
    )
    counts = sa.and_(_Product.run_id == _Keeping.run_id, _Product.state == ProductState.CURRENT)
    rows = session.execute(
        sa.select(
            *told,
            sa.func.count(sa.distinct(_Keeping.id)).label("runs"),
            sa.func.count(_Product.id).label("products"),
            sa.cast(sa.func.coalesce(sa.func.sum(_Product.size_bytes), 0), sa.BigInteger).label("size_bytes"),
            sa.func.min(_Keeping.run_id).label("oldest_run"),
        )
        .join(_Product, counts)
        .join(origin, origin.c.id == _Keeping.origin_id)
        .outerjoin(buffer, buffer.c.id == _Keeping.next_id)
        .outerjoin(archive, archive.c.id == _Keeping.destination_id)
        .where(_Keeping.status.in_(_NOT_OVER))
        .group_by(*told)
        .order_by(*told)
    )
    return [ToArchive(**row) for row in rows.mappings()]


def to_fetch(session: Session) -> list[ToFetch]:
    """Products on their way to processing locations; of those that failed only what is not there still."""
    names = LOCATION.rows.with_only_columns(models.DataLocation.id, LOCATION.label.label("name")).subquery()
    told = (names.c.name.label("destination"), _Job.status, _Job.failure)
    is_there = sa.exists().where(
        _Copy.data_product_id == _Job.data_product_id,
        _Copy.data_location_id == _Job.data_location_id,
        _Copy.status == PhysicalCopyStatus.PRESENT,
    )
    rows = session.execute(
        sa.select(
            *told,
            sa.func.count(sa.distinct(_Product.id)).label("products"),
            sa.cast(sa.func.sum(_Product.size_bytes), sa.BigInteger).label("size_bytes"),
        )
        .join(_Product, _Product.id == _Job.data_product_id)
        .join(names, names.c.id == _Job.data_location_id)
        .where(_Job.status.in_(_NOT_OVER), sa.not_(is_there), _Product.state.in_([ProductState.CURRENT]))
        .group_by(*told)
        .order_by(*told)
    )
    return [ToFetch(**row) for row in rows.mappings()]
