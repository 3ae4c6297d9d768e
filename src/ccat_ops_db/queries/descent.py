"""What was made from something, and what something was made from: sets of runs, found and counted by the database."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.queries.roots import Kind, Root
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import ProductState, RunStatus

_Run, _Product, _Input = models.ExecutedReductionStep, models.DataProduct, models.RunInput
_COUNTS: Final = (ProductState.CURRENT, ProductState.SUPERSEDED)


@dataclass(frozen=True)
class Level:
    """Runs of one step, so many steps away from where the search began."""

    level: int
    pipeline: str
    step: str
    runs: int
    products: int
    valid: int
    """Products that count: those that are current or superseded."""


@dataclass(frozen=True)
class Use:
    """A run that took the object itself."""

    run: int
    pipeline: str
    step: str
    sub_group: dict[str, object]
    status: RunStatus
    products: int
    valid: int


def users(root: Root) -> sa.Select[int]:
    """Ids of the runs that took an object itself, as input, version or config; of a run or product those after it."""
    match root.kind:
        case Kind.PACKAGE:
            return sa.select(_Input.run_id.label("run_id")).where(is_among(_Input.raw_data_package_id, root.ids))
        case Kind.PRODUCT:
            return sa.select(_Input.run_id.label("run_id")).where(is_among(_Input.data_product_id, root.ids))
        case Kind.RUN:
            of_run = sa.select(_Input.run_id.label("run_id")).join(_Product, _Product.id == _Input.data_product_id)
            return of_run.where(is_among(_Product.run_id, root.ids))
        case Kind.VERSION:
            return sa.select(_Run.id.label("run_id")).where(is_among(_Run.software_version_id, root.ids))
        case Kind.CONFIG:
            return sa.select(_Run.id.label("run_id")).where(is_among(_Run.config_revision_id, root.ids))
        case never:
            assert_never(never)


def descendant_runs(root: Root) -> sa.CTE:
    """Every run that took the object, or something that was made from it: one column, `run_id`."""
    found = users(root).distinct().cte("descendant", recursive=True)
    return found.union(_takers(found))


def descendant_products(root: Root) -> sa.Select[int]:
    """Ids of all products that were made from an object, a run's or a product itself included."""
    found = descendant_runs(root)
    made = sa.select(_Product.id).join(found, found.c.run_id == _Product.run_id)
    match root.kind:
        case Kind.PRODUCT:
            return _either(made, is_among(_Product.id, root.ids))
        case Kind.RUN:
            return _either(made, is_among(_Product.run_id, root.ids))
        case _:
            return made


def _either(made: sa.Select[int], itself: sa.ColumnElement[bool]) -> sa.Select[int]:
    both = sa.union(made, sa.select(_Product.id).where(itself)).subquery()
    return sa.select(both.c.id)


def descendants(session: Session, root: Root) -> Sequence[Level]:
    """How many runs and products were made from an object, by distance, pipeline and step.

    A version or config may be used at every level: of these, what its own runs made is at level 1, all else at 2.
    """
    if root.kind in {Kind.VERSION, Kind.CONFIG}:
        return _all_levels(session, _own_and_further(root))
    found = users(root).distinct().subquery()
    start = sa.select(found.c.run_id, sa.literal(1).label("level")).cte("reached", recursive=True)
    return _levels(session, start.union(_takers(start).add_columns(start.c.level + 1)))


def _own_and_further(root: Root) -> sa.CTE:
    """Each run once: walked along all ways, there would be several times as many."""
    reached, own = descendant_runs(root), users(root).subquery()
    is_own = reached.c.run_id.in_(sa.select(own.c.run_id))
    return sa.select(reached.c.run_id, sa.case((is_own, 1), else_=2).label("level")).cte("reached")


def affected(session: Session, root: Root) -> Sequence[Level]:
    """The same, with the object itself where that is a product or a run, at level 0."""
    itself = [one for one in (_own(session, root),) if one is not None]
    return [*itself, *descendants(session, root)]


def _own(session: Session, root: Root) -> Level | None:
    """The products that a product or a run is itself."""
    which = {Kind.PRODUCT: _Product.id, Kind.RUN: _Product.run_id}.get(root.kind)
    if which is None:
        return None
    made = (
        sa.select(
            models.Pipeline.name,
            models.ReductionStep.key,
            sa.func.count(),
            sa.func.count().filter(_Product.state.in_(_COUNTS)),
        )
        .join(_Run, _Run.id == _Product.run_id)
        .join(models.ReductionStep, models.ReductionStep.id == _Run.reduction_step_id)
        .join(models.Pipeline, models.Pipeline.id == _Run.pipeline_id)
        .where(is_among(which, root.ids))
        .group_by(models.Pipeline.name, models.ReductionStep.key)
    )
    row = session.execute(made).one_or_none()
    return Level(0, row[0], row[1], runs=1, products=row[2], valid=row[3]) if row else None


def ancestors(session: Session, product_id: int) -> Sequence[Level]:
    """Of how many runs and products a product was made, by distance, pipeline and step; its own run is the first."""
    of_product = sa.select(_Product.run_id, sa.literal(1).label("level")).where(_Product.id == product_id)
    start = of_product.cte("reached", recursive=True)
    givers = (
        sa.select(_Product.run_id, start.c.level + 1)
        .join(_Input, _Input.data_product_id == _Product.id)
        .join(start, start.c.run_id == _Input.run_id)
        .where(_Input.data_product_id.is_not(None))
    )
    return _levels(session, start.union(givers))


def _takers(found: sa.CTE) -> sa.Select[int]:
    """Runs that took what runs made."""
    return (
        sa.select(_Input.run_id)
        .join(_Product, _Product.id == _Input.data_product_id)
        .join(found, found.c.run_id == _Product.run_id)
    )


def _levels(session: Session, reached: sa.CTE) -> Sequence[Level]:
    """Runs by their shortest distance, counted with what they made."""
    nearest = (
        sa.select(reached.c.run_id, sa.func.min(reached.c.level).label("level")).group_by(reached.c.run_id).subquery()
    )
    made = _made(nearest.c.run_id)
    return _counted(session, nearest, made, is_its=sa.true())


def _all_levels(session: Session, reached: sa.CTE) -> Sequence[Level]:
    """The same of runs that may be most of all: what they made is counted for all at once."""
    is_valid = _Product.state.in_(_COUNTS)
    counts = (sa.func.count().label("products"), sa.func.count().filter(is_valid).label("valid"))
    made = sa.select(_Product.run_id, *counts).group_by(_Product.run_id).subquery("made")
    return _counted(session, reached, made, is_its=made.c.run_id == reached.c.run_id)


def _counted(
    session: Session, nearest: sa.FromClause, made: sa.FromClause, *, is_its: sa.ColumnElement[bool]
) -> Sequence[Level]:
    step, pipeline = models.ReductionStep, models.Pipeline
    sums = [sa.func.coalesce(sa.func.sum(made.c[name]), 0).label(name) for name in ("products", "valid")]
    by_step = (
        sa.select(nearest.c.level, _Run.reduction_step_id, sa.func.count().label("runs"), *sums)
        .join(_Run, _Run.id == nearest.c.run_id)
        .outerjoin(made, is_its)
        .group_by(nearest.c.level, _Run.reduction_step_id)
        .subquery()
    )
    counts = by_step.c
    rows = session.execute(
        sa.select(counts.level, pipeline.name, step.key, counts.runs, counts.products, counts.valid)
        .join(step, step.id == counts.reduction_step_id)
        .join(pipeline, pipeline.id == step.pipeline_id)
        .order_by(counts.level, pipeline.name, step.key)
    )
    return [
        Level(level, name, key, runs, int(products), int(valid)) for level, name, key, runs, products, valid in rows
    ]


def _made(run_id: Any) -> sa.FromClause:
    """How many products a run made, and how many of these count."""
    return (
        sa.select(
            sa.func.count().label("products"),
            sa.func.count().filter(_Product.state.in_(_COUNTS)).label("valid"),
        )
        .where(_Product.run_id == run_id)
        .lateral("made")
    )


def uses(session: Session, root: Root, *, limit: int, before: int | None = None) -> Sequence[Use]:
    """The newest runs that took an object itself; `before` is the run where the last page ended."""
    run, step = aliased(_Run), models.ReductionStep
    taken = users(root).subquery()
    made = _made(run.id)
    query = (
        sa.select(
            run.id,
            models.Pipeline.name,
            step.key,
            run.sub_group_labels,
            run.status,
            made.c.products,
            made.c.valid,
        )
        .join(step, step.id == run.reduction_step_id)
        .join(models.Pipeline, models.Pipeline.id == step.pipeline_id)
        .join(made, sa.true())
        .where(run.id.in_(sa.select(taken.c.run_id)), *([run.id < before] if before else []))
        .order_by(run.id.desc())
        .limit(limit)
    )
    return [Use(*row) for row in session.execute(query)]
