"""Products as rows: registered with their copies, in place of those that older runs made."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import is_among, once_more, rows
from ccat_ops_db.states import PhysicalCopyStatus, ProductState
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.execution.products import Collected

_Run = models.ExecutedReductionStep
_Product = models.DataProduct
_Newer = once_more(_Run)


@dataclass(frozen=True)
class Published:
    """What an attempt made, where its run lies."""

    attempt: models.RunAttempt
    layout: RunLayout
    collected: Collected


def supersede(session: Session, runs: Sequence[_Run], *, by: str) -> None:
    """Let the products of older runs of the same places be SUPERSEDED."""
    is_older = sa.and_(
        _Newer.reduction_step_id == _Run.reduction_step_id,
        _Newer.sub_group_key == _Run.sub_group_key,
        _Newer.id > _Run.id,
        is_among(_Newer.id, [run.id for run in runs]),
    )
    found = session.execute(
        sa.select(_Product.id, sa.func.concat("by run ", _Newer.id))
        .join(_Product.run)
        .join(_Newer, is_older)
        .where(_Product.state.in_([ProductState.CURRENT, ProductState.ORPHANED]))
    ).all()
    if not found:
        return
    ids = [product_id for product_id, _ in found]
    told = rows("told", ids, because=(sa.Text(), [because for _, because in found]))
    advance(session, _Product, ids, to=ProductState.SUPERSEDED, because=told.c.because, by=by, listed=told)


def register(session: Session, published: Sequence[Published], *, by: str) -> None:
    """Insert the products of runs, each with its copy where the run is, which is PRESENT."""
    made, copy = _insert_products(published), models.PhysicalCopy
    places = rows(
        "place",
        [one.attempt.id for one in published],
        location_id=(sa.BigInteger(), [one.attempt.run.data_location_id for one in published]),
        below=(sa.Text(), [str(_below(one)) for one in published]),
    )
    values = {
        "type": sa.literal("data_product"),
        "data_product_id": made.c.id,
        "data_location_id": places.c.location_id,
        "path": places.c.below + "/" + made.c.relative_path,
        "size_bytes": made.c.size_bytes,
        "checksum": made.c.checksum,
        "verified_at": sa.func.clock_timestamp(),
    }
    of_place = sa.select(*values.values()).join(places, places.c.id == made.c.run_attempt_id)
    copies = session.scalars(sa.insert(copy).from_select(list(values), of_place).returning(copy.id)).all()
    advance(session, copy, copies, to=PhysicalCopyStatus.PRESENT, because="collected", by=by)


def _insert_products(published: Sequence[Published]) -> sa.CTE:
    """Statement that inserts the products of runs, of any number with the same text."""
    found = [(one.attempt, product) for one in published for product in one.collected.products]
    trial = {True: ProductState.TRIAL, False: ProductState.CURRENT}
    told = rows(
        "told",
        [attempt.run_id for attempt, _ in found],
        run_attempt_id=(sa.BigInteger(), [attempt.id for attempt, _ in found]),
        state=(sa.Text(), [trial[attempt.run.is_trial] for attempt, _ in found]),
        type=(sa.Text(), [one.type for _, one in found]),
        relative_path=(sa.Text(), [one.path for _, one in found]),
        size_bytes=(sa.BigInteger(), [one.size_bytes for _, one in found]),
        checksum=(sa.Text(), [one.checksum for _, one in found]),
        media_type=(sa.Text(), [one.media_type for _, one in found]),
        description=(sa.Text(), [one.description for _, one in found]),
        metadata=(sa.Text(), [json.dumps(one.metadata) for _, one in found]),
        metrics=(sa.Text(), [json.dumps(one.metrics) for _, one in found]),
    )
    columns: dict[str, sa.ColumnElement[Any]] = {column.name: column for column in told.c}
    columns["run_id"] = columns.pop("id")
    columns |= {name: sa.cast(columns[name], JSONB) for name in ("metadata", "metrics")}
    product = _Product.__table__
    assert isinstance(product, sa.Table)  # noqa: S101 - what a declarative class maps to; narrows the type
    made = sa.insert(product).from_select(list(columns), sa.select(*columns.values()))
    of_copy = (product.c.id, product.c.run_attempt_id, product.c.relative_path, product.c.size_bytes)
    return made.returning(*of_copy, product.c.checksum).cte("made")


def _below(one: Published) -> PurePath:
    """Where the products of a run lie below the root of its location."""
    location = one.attempt.run.location
    root = Path(location.path) if isinstance(location, models.DiskDataLocation) else one.layout.directory
    return one.layout.products.relative_to(root)
