"""What rules for auxiliary inputs see, read from the raw tables one by one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.plan.digests import NOT_INPUTS
from ccat_ops_db.states import SOUND_COPY_STATUSES, InputRole, OnMissing, PhysicalCopyStatus, ProductState, RunStatus
from tests.engine.oracle.auxiliary import Giver, Moment, Rule, Taken

_Run = models.ExecutedReductionStep
_Product = models.DataProduct
_SAME: Final[Mapping[str, Callable[[models.RawDataPackage], Any]]] = {
    "instrument_module": lambda package: package.instrument_module_id,
    "source": lambda package: package.executed_obs_unit.obs_unit.source_id,
    "observing_night": lambda package: package.executed_obs_unit.observing_night,
}
_BAD: Final = {PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING}


def load_rules(
    session: Session, revision: models.ReductionStepRevision, package_ids: Iterable[int]
) -> tuple[Rule, ...]:
    """The rules of a step."""
    return tuple(_rule(session, one, package_ids) for one in revision.auxiliary)


def _rule(session: Session, rule: models.AuxiliaryRule, package_ids: Iterable[int]) -> Rule:
    seconds = rule.max_age.total_seconds()
    unit, name = next(one for one in ((86400, "d"), (3600, "h"), (60, "m")) if seconds % one[0] == 0)
    return Rule(
        name=rule.name,
        place=_place(rule.from_step),
        max_age=rule.max_age,
        window=f"{seconds / unit:g} {name}",
        gives_up=rule.on_missing is OnMissing.FAIL,
        redoes=rule.redo_on_better,
        givers=_givers(session, rule),
        packages={number: _moment(session, number, rule.same) for number in package_ids},
    )


def _place(step: models.ReductionStep) -> str:
    return f"{step.pipeline.name}/{step.key}"


def _moment(session: Session, package_id: int, same: Sequence[str]) -> Moment:
    package = session.get_one(models.RawDataPackage, package_id, populate_existing=True)
    session.refresh(package.executed_obs_unit)
    session.refresh(package.executed_obs_unit.obs_unit)
    return Moment(package.executed_obs_unit.started_at, tuple(_SAME[one](package) for one in same))


def _givers(session: Session, rule: models.AuxiliaryRule) -> list[Giver]:
    found = sa.select(_Run).filter_by(reduction_step_id=rule.from_step_id, status=RunStatus.COMPLETED)
    runs = session.scalars(found.order_by(_Run.id).execution_options(populate_existing=True)).all()
    return [giver for run in runs if (giver := _giver(session, run, rule))]


def _giver(session: Session, run: _Run, rule: models.AuxiliaryRule) -> Giver | None:
    made = [one for one in _made(session, run) if one.type not in NOT_INPUTS]
    if not made or not all(one.state is ProductState.CURRENT and _is_sound(session, one) for one in made):
        return None
    covered = session.scalars(sa.select(models.RunCoverage.raw_data_package_id).filter_by(run_id=run.id)).all()
    return Giver(
        run_id=run.id,
        completed_at=run.finished_at or run.created_at,
        made=run.made_digest,
        products=tuple(_taken(session, rule.name, one) for one in made),
        seen=tuple(_moment(session, number, rule.same) for number in covered),
    )


def _made(session: Session, run: _Run) -> Sequence[_Product]:
    made = sa.select(_Product).filter_by(run_id=run.id).order_by(_Product.id)
    return session.scalars(made.execution_options(populate_existing=True)).all()


def _is_sound(session: Session, product: _Product) -> bool:
    copies = session.scalars(
        sa.select(models.PhysicalCopy.status).where(models.PhysicalCopy.data_product_id == product.id)
    ).all()
    return _BAD.isdisjoint(copies) or not set(SOUND_COPY_STATUSES).isdisjoint(copies)


def _taken(session: Session, name: str, product: _Product) -> Taken:
    counts = product.state in {ProductState.CURRENT, ProductState.SUPERSEDED} and _is_sound(session, product)
    return Taken(
        name=name,
        place=_place(product.run.reduction_step),
        sub_group_key=product.run.sub_group_key,
        sub_group=product.run.sub_group_path,
        product_id=product.id,
        relative_path=product.relative_path,
        checksum=product.checksum,
        made=product.run.made_digest,
        counts=counts,
    )


def load_taken(session: Session, run_ids: Mapping[tuple[int, str], int]) -> dict[tuple[int, str], list[Taken]]:
    """Auxiliary inputs of runs, by place."""
    return {place: _of_run(session, run_id) for place, run_id in run_ids.items()}


def _of_run(session: Session, run_id: int) -> list[Taken]:
    taken = session.execute(
        sa.select(models.RunInput.name, _Product)
        .join(_Product, _Product.id == models.RunInput.data_product_id)
        .where(models.RunInput.run_id == run_id, models.RunInput.role == InputRole.AUXILIARY)
        .execution_options(populate_existing=True)
    )
    return [_taken(session, name or "", product) for name, product in taken]
