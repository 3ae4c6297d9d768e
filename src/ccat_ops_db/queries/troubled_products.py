"""What keeps products from an archive, or from where they were made; of those only that count."""

from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.models.transfers import LIVE
from ccat_ops_db.plan.alerts import Condition
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.repairs import failed_repairs
from ccat_ops_db.queries.troubled_transfers import IN_VAIN
from ccat_ops_db.states import AlertKind, ProductState

_Keeping, _Job = models.ProductArchiveTransfer, models.StagingJob
_Product = models.DataProduct
_COUNTS: Final = sa.exists().where(_Product.run_id == _Keeping.run_id, _Product.state == ProductState.CURRENT)
_IS_LIVE: Final = sa.text(f"product_archive_transfer.{LIVE}")


def troubled_products(session: Session) -> Iterator[Condition]:
    """What people are told of products on their way."""
    yield from _given_up(session)
    yield from _aimless(session)
    yield from _tried_in_vain(session)
    yield from _unmended(session)


def _given_up(session: Session) -> Iterator[Condition]:
    """Runs whose products could not be archived."""
    rows = session.execute(
        sa.select(LOCATION.label, sa.func.count(), sa.func.min(_Keeping.failure))
        .select_from(_Keeping)
        .join(models.DataLocation, models.DataLocation.id == _Keeping.destination_id)
        .join(models.DataLocation.site)
        .where(sa.text("product_archive_transfer.status = 'failed'"), _COUNTS)
        .group_by(LOCATION.label)
    )
    for archive, number, cause in rows:
        yield Condition(
            kind=AlertKind.FAILED_FOR_GOOD,
            key=f"products for {archive}",
            sentence=f"products of {counted(number, 'run', 'runs')} cannot be archived at {archive}, such as: {cause} "
            "`ccat run archive --failed` takes up all of them",
            number=number,
        )


def _aimless(session: Session) -> Iterator[Condition]:
    """Runs whose products no archive is there for, as they say themselves."""
    found = sa.select(_Keeping.failure, sa.func.count()).where(_IS_LIVE, _Keeping.destination_id.is_(None), _COUNTS)
    told = found.where(_Keeping.failure.is_not(None)).group_by(_Keeping.failure).order_by(_Keeping.failure)
    for because, number in session.execute(told):
        yield Condition(
            kind=AlertKind.BACKLOG,
            key=f"products: {because}",
            sentence=f"products of {counted(number, 'run', 'runs')} are to be archived, and cannot be: {because}",
            number=number,
        )


def _tried_in_vain(session: Session) -> Iterator[Condition]:
    """Runs whose products go on being tried again."""
    troubled = sa.select(sa.func.count(), sa.func.min(_Keeping.failure)).where(_IS_LIVE, _COUNTS)
    number, cause = session.execute(troubled.where(_Keeping.trouble_count >= IN_VAIN)).one()
    if number:
        yield Condition(
            kind=AlertKind.BACKLOG,
            key="products tried in vain",
            sentence=f"products of {counted(number, 'run', 'runs')} met trouble {IN_VAIN} times or more on the way "
            f"into an archive{f', such as: {cause}' if cause else ';'} `ccat transfer status` says what is in the way",
            number=number,
        )


def _unmended(session: Session) -> Iterator[Condition]:
    """Products that were damaged or lost where they were made, and could not be brought back."""
    told = failed_repairs().with_only_columns(LOCATION.label, sa.func.count(), sa.func.min(_Job.failure))
    rows = (
        told.join(models.DataLocation, models.DataLocation.id == _Job.data_location_id)
        .join(models.DataLocation.site)
        .group_by(LOCATION.label)
    )
    for name, number, failure in session.execute(rows):
        made = counted(number, "product, made", "products, made")
        yield Condition(
            kind=AlertKind.FAILED_FOR_GOOD,
            key=f"repairs {name}",
            sentence=f"{made} at {name} and damaged or lost there, cannot be brought back, such as: {failure} "
            "It is tried again each day, and at once when a run takes it",
            number=number,
        )
