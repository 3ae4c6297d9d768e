"""What a change would cause, found out by doing it and undoing it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, aliased

from ccat_ops_db import models
from ccat_ops_db.definitions.document import Definitions
from ccat_ops_db.errors import CcatError
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.gap.evaluation import evaluate
from ccat_ops_db.gap.planned import keep_plan
from ccat_ops_db.gap.steps import StepNow, current_revision
from ccat_ops_db.session import is_conflict
from ccat_ops_db.states import RunReason, RunStatus, TriggerType, Verdict, VersionPolicy
from ccat_ops_db.verbs.definitions import apply_definitions
from ccat_ops_db.verbs.releases import hold_validity
from ccat_ops_db.verbs.turns import take_turn

_Group, _Row, _Run = models.SubGroup, models.PlanRow, models.ExecutedReductionStep


@dataclass(frozen=True)
class Caused:
    """So many runs that there would not be otherwise."""

    pipeline: str
    step: str
    reason: RunReason | None
    """None where they follow from others of these."""
    runs: int


@dataclass(frozen=True)
class Foreseen:
    """What a change would cause, as far as that can be known."""

    runs: Sequence[Caused] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    """Pipeline → why it could not be evaluated even then."""


@dataclass(frozen=True)
class _Plans:
    """Of every pipeline that runs by itself the plan of all that it will do, or why there is none."""

    plans: dict[str, str | None] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


def foresee(session: Session, definitions: Definitions, *, folder: Path, now: datetime, by: str) -> Foreseen:
    """Which runs applying definitions would cause; nothing of it stays.

    Runs that rest at first count, and so do those that follow from others, though they will not be necessary where
    what they take turns out to be the same bytes. A pipeline that is disabled or MANUAL causes none by itself.
    Meanwhile nobody else evaluates the pipelines. One that cannot be evaluated runs nothing, and is mended by applying,
    so it stands in the way of nobody. Raises what apply_definitions raises.
    """
    take_turn(session)
    hold_validity(session, definitions.software)
    with undone(session):
        changes = apply_definitions(session, definitions, folder=folder, by=by)
    if all(one.action == "unchanged" for one in changes):
        return Foreseen()
    change = partial(apply_definitions, session, definitions, folder=folder, by=by)
    return foresee_change(session, change, now=now, by=by)


def foresee_change(session: Session, change: Callable[[], object], *, now: datetime, by: str) -> Foreseen:
    """Which runs there would be after a change that there would not be otherwise; nothing of it stays."""
    with undone(session):
        before = _plans(session, now=now, by=by)
        change()
        defined: datetime = session.scalars(sa.select(sa.func.clock_timestamp())).one()  # by the clock that noted it
        after = _plans(session, now=max(now, defined), by=by)
        runs = [
            one
            for name, plan in after.plans.items()
            for one in _caused(session, name, before=before.plans.get(name), after=plan)
        ]
        return Foreseen(runs, after.unknown)


@contextmanager
def undone(session: Session) -> Iterator[None]:
    """Roll back what the block does, with all locks that it took."""
    savepoint = session.begin_nested()
    try:
        yield
    finally:
        savepoint.rollback()


def _plans(session: Session, *, now: datetime, by: str) -> _Plans:
    hand_out(session)
    found = _Plans()
    for pipeline_id, name in session.execute(_automatic()).all():
        try:
            with session.begin_nested():
                found.plans[name] = _plan(session, pipeline_id, now=now, by=by)
        except Exception as error:  # whatever is wrong with one pipeline, the others are foreseen
            if isinstance(error, DBAPIError) and (error.connection_invalidated or is_conflict(error)):
                raise  # nothing is wrong with the pipeline
            found.unknown[name] = _first_line(error)
    return found


def _plan(session: Session, pipeline_id: int, *, now: datetime, by: str) -> str | None:
    """The plan of all that a pipeline will do; None where that is nothing."""
    current = evaluate(session, pipeline_id, now=now, by=by).pipeline
    plan = keep_plan(session, current, steps=current.steps, which=_to_come(current.steps), now=now, by=by)
    return plan.id if plan else None


def _first_line(error: Exception) -> str:
    told = next(iter(str(error).strip().splitlines()), "")
    return told if isinstance(error, CcatError) else f"{type(error).__name__}: {told}"


def _automatic() -> sa.Select[int, str]:
    revision = current_revision()
    return (
        sa.select(models.Pipeline.id, models.Pipeline.name)
        .join(revision, revision.c.pipeline_id == models.Pipeline.id)
        .where(models.Pipeline.enabled, revision.c.trigger_type != TriggerType.MANUAL)
        .order_by(models.Pipeline.id)
    )


def _to_come(steps: Sequence[StepNow]) -> sa.ColumnElement[bool]:
    """Condition on a sub-group: there will be a run; also after an active one that started with another recipe."""
    other_recipe = sa.or_(sa.false(), *(_is_outdated(step) for step in steps if step.recipe))
    outdated = sa.exists().where(_Run.id == _Group.active_run_id, _Run.status != RunStatus.PENDING, other_recipe)
    return sa.and_(
        _Group.verdict.in_([Verdict.WANTED, Verdict.COOLING]), sa.or_(_Group.active_run_id.is_(None), outdated)
    )


def _is_outdated(step: StepNow) -> sa.ColumnElement[bool]:
    """Condition on a run of a step: another recipe is wanted now."""
    assert step.recipe is not None  # noqa: S101 - the caller looked; narrows the type
    by_series = step.policy is VersionPolicy.COMPATIBLE
    differs = _Run.series_digest != step.recipe.series_digest if by_series else _Run.recipe_digest != step.recipe.digest
    return sa.and_(_Run.reduction_step_id == step.id, differs)


def _caused(session: Session, pipeline: str, *, before: str | None, after: str | None) -> Iterator[Caused]:
    """Runs of one plan for sub-groups that another does not name."""
    if after is None or before == after:
        return
    known, key = aliased(_Row), models.ReductionStep.key
    same_place = sa.and_(known.reduction_step_id == _Row.reduction_step_id, known.sub_group_key == _Row.sub_group_key)
    rows = session.execute(
        sa.select(key, _Row.reason, sa.func.count())
        .join(models.ReductionStep, models.ReductionStep.id == _Row.reduction_step_id)
        .where(_Row.plan_id == after, ~sa.exists().where(known.plan_id == before, same_place))
        .group_by(key, _Row.reason)
        .order_by(sa.func.min(_Row.number))
    )
    for step, reason, runs in rows:
        yield Caused(pipeline, step, reason, runs)
