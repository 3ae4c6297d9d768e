"""Products as rows: registered with their copies, in place of those that older runs made."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among, rows
from ccat_ops_db.states import PhysicalCopyStatus, ProductState
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.execution.products import Collected

_Run = models.ExecutedReductionStep
_Product = models.DataProduct


@dataclass(frozen=True)
class Published:
    """What an attempt made, where its run lies."""

    attempt: models.RunAttempt
    layout: RunLayout
    collected: Collected


def supersede(session: Session, runs: Sequence[_Run], *, by: str) -> None:
    """Let the products of older runs of the same places be SUPERSEDED."""
    newer = aliased(_Run)
    is_older = sa.and_(
        newer.reduction_step_id == _Run.reduction_step_id,
        newer.sub_group_key == _Run.sub_group_key,
        newer.id > _Run.id,
        is_among(newer.id, [run.id for run in runs]),
    )
    found = session.execute(
        sa.select(_Product.id, sa.func.concat("by run ", newer.id))
        .join(_Product.run)
        .join(newer, is_older)
        .where(_Product.state.in_([ProductState.CURRENT, ProductState.ORPHANED]))
    ).all()
    if not found:
        return
    ids = [product_id for product_id, _ in found]
    told = rows("told", ids, because=(sa.Text(), [because for _, because in found]))
    advance(session, _Product, ids, to=ProductState.SUPERSEDED, because=told.c.because, by=by, listed=told)


def register(session: Session, published: Sequence[Published], *, by: str) -> None:
    """Insert the products of runs, each with its copy where the run is, which is PRESENT."""
    products = [row for one in published for row in _product_rows(one)]
    if not products:
        return
    made = sa.insert(_Product).returning(_Product.id, sort_by_parameter_order=True)
    ids = session.scalars(made, products).all()
    below = {one.attempt.id: (one.attempt.run.data_location_id, _below(one)) for one in published}
    copies = [_copy_row(number, row, below[row["run_attempt_id"]]) for number, row in zip(ids, products, strict=True)]
    present = session.scalars(sa.insert(models.PhysicalCopy).returning(models.PhysicalCopy.id), copies).all()
    advance(session, models.PhysicalCopy, present, to=PhysicalCopyStatus.PRESENT, because="collected", by=by)


def _product_rows(one: Published) -> Iterator[dict[str, Any]]:
    state = ProductState.TRIAL if one.attempt.run.is_trial else ProductState.CURRENT
    for product in one.collected.products:
        yield {
            "run_id": one.attempt.run_id,
            "run_attempt_id": one.attempt.id,
            "type": product.type,
            "state": state,
            "relative_path": product.path,
            "size_bytes": product.size_bytes,
            "checksum": product.checksum,
            "media_type": product.media_type,
            "description": product.description,
            "metadata_": product.metadata,
            "metrics": product.metrics,
        }


def _copy_row(product_id: int, product: Mapping[str, Any], place: tuple[int, PurePath]) -> dict[str, Any]:
    location_id, below = place
    return {
        "type": "data_product",
        "data_product_id": product_id,
        "data_location_id": location_id,
        "path": str(below / product["relative_path"]),
        "size_bytes": product["size_bytes"],
        "checksum": product["checksum"],
        "verified_at": datetime.now(UTC),
    }


def _below(one: Published) -> PurePath:
    """Where the products of a run lie below the root of its location."""
    location = one.attempt.run.location
    root = Path(location.path) if isinstance(location, models.DiskDataLocation) else one.layout.directory
    return one.layout.products.relative_to(root)
