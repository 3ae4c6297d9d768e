from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload, selectinload

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import DataProductType, ProductState, RunStatus

_Run = models.ExecutedReductionStep


class UnknownRun(CcatError):
    """A run was named that does not exist."""

    code = "unknown_run"

    def __init__(self, run_id: int) -> None:
        super().__init__(f"There is no run {run_id}; `ccat runs` lists them.")


@dataclass(frozen=True)
class Filter:
    """Which runs or products; what is None does not restrict."""

    pipeline: str | None = None
    step: str | None = None
    status: RunStatus | None = None
    type: DataProductType | None = None
    state: ProductState | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """SQL conditions over runs joined with pipeline and step; those on products need the product joined too."""
        wanted = [
            (models.Pipeline.name, self.pipeline),
            (models.ReductionStep.key, self.step),
            (_Run.status, self.status),
            (models.DataProduct.type, self.type),
            (models.DataProduct.state, self.state),
        ]
        return [column == value for column, value in wanted if value is not None]


def list_runs(session: Session, which: Filter, *, limit: int, before: int | None = None) -> Sequence[_Run]:
    """The newest runs, with all that a list shows; `before` is the id where the last page ended."""
    query = (
        sa.select(_Run)
        .join(_Run.pipeline)
        .join(_Run.reduction_step)
        .where(*which.conditions())
        .options(
            joinedload(_Run.pipeline),
            joinedload(_Run.reduction_step),
            joinedload(_Run.software_version),
            selectinload(_Run.attempts),
        )
        .order_by(_Run.id.desc())
        .limit(limit)
    )
    return session.scalars(query if before is None else query.where(_Run.id < before)).all()


def get_run(session: Session, run_id: int) -> _Run:
    """One run with its attempts and products; raises UnknownRun."""
    query = sa.select(_Run).where(_Run.id == run_id)
    run = session.scalars(
        query.options(
            joinedload(_Run.pipeline),
            joinedload(_Run.reduction_step),
            joinedload(_Run.software_version),
            selectinload(_Run.attempts),
            selectinload(_Run.products),
        )
    ).one_or_none()
    if run is None:
        raise UnknownRun(run_id)
    return run


def require_runs(session: Session, run_ids: Sequence[int]) -> None:
    """Raise UnknownRun for the first of some runs that does not exist."""
    known = set(session.scalars(sa.select(_Run.id).where(is_among(_Run.id, run_ids))))
    for run_id in run_ids:
        if run_id not in known:
            raise UnknownRun(run_id)


@dataclass(frozen=True)
class Coverage:
    """How many raw packages went into a run, directly or through the runs whose products it took."""

    packages: int
    excess: int
    """How many of them its sub-group did not have."""


def coverage(session: Session, run_id: int) -> Coverage:
    """What went into a run; nothing before its inputs are fixed."""
    covered = models.RunCoverage
    counted = sa.select(sa.func.count(), sa.func.count().filter(covered.is_excess)).where(covered.run_id == run_id)
    return Coverage(*session.execute(counted).one())


def history(session: Session, noun: type[models.Base], object_id: int) -> Sequence[models.StatusChange]:
    """Every move of one object, the oldest first."""
    return session.scalars(
        sa.select(models.StatusChange)
        .filter_by(noun=noun.__tablename__, object_id=object_id)
        .order_by(models.StatusChange.id)
    ).all()


def in_status_since(session: Session, run: _Run) -> datetime:
    """When a run came to the status that it has."""
    change = models.StatusChange
    is_that = (change.noun == _Run.__tablename__, change.object_id == run.id, change.to_status == run.status)
    return session.scalar(sa.select(sa.func.max(change.at)).where(*is_that)) or run.created_at


def list_products(
    session: Session, which: Filter, *, limit: int, before: int | None = None
) -> Sequence[models.DataProduct]:
    """The newest products, with their runs; `before` is the id where the last page ended."""
    query = (
        sa.select(models.DataProduct)
        .join(models.DataProduct.run)
        .join(_Run.pipeline)
        .join(_Run.reduction_step)
        .where(*which.conditions())
        .options(joinedload(models.DataProduct.run).options(joinedload(_Run.pipeline), joinedload(_Run.reduction_step)))
        .order_by(models.DataProduct.id.desc())
        .limit(limit)
    )
    return session.scalars(query if before is None else query.where(models.DataProduct.id < before)).all()
