"""Products as rows: registered with their copies, in place of those that older runs made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningInsert

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.sets import Brought, is_given, once_more, table_of
from ccat_ops_db.states import PhysicalCopyStatus, ProductState
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.execution.products import Collected

_Run = models.ExecutedReductionStep
_Product = models.DataProduct
_Newer = once_more(_Run)
_OLDER: Final = (
    sa.select(_Product.id, sa.func.concat("by run ", _Newer.id))
    .join(_Product.run)
    .join(
        _Newer,
        sa.and_(
            _Newer.reduction_step_id == _Run.reduction_step_id,
            _Newer.sub_group_key == _Run.sub_group_key,
            _Newer.id > _Run.id,
            is_given(_Newer.id, "runs"),
        ),
    )
    .where(_Product.state.in_([ProductState.CURRENT, ProductState.ORPHANED]))
)
_SUPERSEDED: Final = Brought("told", because=sa.Text())
_MADE: Final = Brought(
    "told",
    run_attempt_id=sa.BigInteger(),
    state=sa.Text(),
    type=sa.Text(),
    relative_path=sa.Text(),
    size_bytes=sa.BigInteger(),
    checksum=sa.Text(),
    media_type=sa.Text(),
    description=sa.Text(),
    metadata=JSONB(),
    metrics=JSONB(),
)
_PLACES: Final = Brought("place", location_id=sa.BigInteger(), below=sa.Text())


def _registration() -> ReturningInsert[int]:
    """Statement that inserts products and their copies, and returns the copies."""
    product, copy = table_of(_Product), table_of(models.PhysicalCopy)
    columns = {("run_id" if name == "id" else name): column for name, column in _MADE.c.items()}
    made = sa.insert(product).from_select(list(columns), sa.select(*columns.values()))
    of_copy = (product.c.id, product.c.run_attempt_id, product.c.relative_path, product.c.size_bytes)
    new = made.returning(*of_copy, product.c.checksum).cte("made")
    values = {
        "type": sa.literal("data_product"),
        "data_product_id": new.c.id,
        "data_location_id": _PLACES.c.location_id,
        "path": _PLACES.c.below + "/" + new.c.relative_path,
        "size_bytes": new.c.size_bytes,
        "checksum": new.c.checksum,
        "verified_at": sa.func.clock_timestamp(),
    }
    of_place = sa.select(*values.values()).join(_PLACES.table, _PLACES.c.id == new.c.run_attempt_id)
    return sa.insert(copy).from_select(list(values), of_place).returning(copy.c.id)


_REGISTER: Final = _registration()


@dataclass(frozen=True)
class Published:
    """What an attempt made, where its run lies."""

    attempt: models.RunAttempt
    layout: RunLayout
    collected: Collected


def supersede(session: Session, runs: Sequence[_Run], *, by: str) -> None:
    """Let the products of older runs of the same places be SUPERSEDED."""
    found = session.execute(_OLDER, {"runs": [run.id for run in runs]}).all()
    if not found:
        return
    ids = [product_id for product_id, _ in found]
    told = _SUPERSEDED.rows(ids, because=[because for _, because in found])
    because = _SUPERSEDED.c.because
    advance(session, _Product, ids, to=ProductState.SUPERSEDED, because=because, by=by, listed=told)


def register(session: Session, published: Sequence[Published], *, by: str) -> None:
    """Insert the products of runs, each with its copy where the run is, which is PRESENT."""
    made = [(one.attempt, product) for one in published for product in one.collected.products]
    products = _MADE.rows(
        [attempt.run_id for attempt, _ in made],
        run_attempt_id=[attempt.id for attempt, _ in made],
        state=[ProductState.TRIAL if attempt.run.is_trial else ProductState.CURRENT for attempt, _ in made],
        type=[one.type for _, one in made],
        relative_path=[one.path for _, one in made],
        size_bytes=[one.size_bytes for _, one in made],
        checksum=[one.checksum for _, one in made],
        media_type=[one.media_type for _, one in made],
        description=[one.description for _, one in made],
        metadata=[one.metadata for _, one in made],
        metrics=[one.metrics for _, one in made],
    )
    places = _PLACES.rows(
        [one.attempt.id for one in published],
        location_id=[one.attempt.run.data_location_id for one in published],
        below=[str(_below(one)) for one in published],
    )
    copies = session.scalars(_REGISTER, {**products.parameters, **places.parameters}).all()
    advance(session, models.PhysicalCopy, copies, to=PhysicalCopyStatus.PRESENT, because="collected", by=by)


def _below(one: Published) -> PurePath:
    """Where the products of a run lie below the root of its location."""
    location = one.attempt.run.location
    root = Path(location.path) if isinstance(location, models.DiskDataLocation) else one.layout.directory
    return one.layout.products.relative_to(root)
