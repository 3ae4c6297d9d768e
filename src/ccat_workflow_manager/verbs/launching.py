"""From a plan to PENDING runs: of what was planned, exactly what still holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.evaluation import come_by, evaluate_now
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.queries.pauses import pause_of
from ccat_ops_db.queries.plans import get_plan
from ccat_ops_db.states import TriggerType, Verdict
from ccat_workflow_manager.verbs.requesting import PipelinePaused, ask_for, require_enabled
from ccat_workflow_manager.verbs.triggering import create_runs

_Group, _Row = models.SubGroup, models.PlanRow
_LISTED: Final = 100


class Lapse(StrEnum):
    """Why a planned run is not created any more."""

    GONE = "gone"
    RUNNING = "running"
    RECIPE_CHANGED = "recipe_changed"
    INPUTS_CHANGED = "inputs_changed"
    DONE = "done"
    COOLING = "cooling"
    BLOCKED = "blocked"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def sentence(self) -> str:
        """The same for people."""
        return _SENTENCES[self]


_SENTENCES: Final[Mapping[Lapse, str]] = {
    Lapse.GONE: "its sub-group is gone",
    Lapse.RUNNING: "a run of it is under way",
    Lapse.RECIPE_CHANGED: "software, config or definition changed",
    Lapse.INPUTS_CHANGED: "its inputs changed",
    Lapse.DONE: "it was done meanwhile",
    Lapse.COOLING: "it rests until its cooldown ends",
    Lapse.BLOCKED: "it waits for what it takes",
    Lapse.FAILED: "a run of it failed meanwhile",
    Lapse.CANCELLED: "a run of it was cancelled meanwhile",
}


@dataclass(frozen=True)
class Lapsed:
    """A planned run that is not created any more."""

    step: str
    sub_group_key: str
    labels: Mapping[str, object] | None
    """What it is called; None where it is gone."""
    why: Lapse


@dataclass(frozen=True)
class Launched:
    """What became of a plan."""

    plan: str
    created: int
    lapsed: Mapping[Lapse, int]
    """How many planned runs are not created any more."""
    first_lapsed: Sequence[Lapsed]
    """The first of them, in the order of the plan."""
    later: int = 0
    """How many are created as soon as the limit on runs of a minute allows."""


def launch(session: Session, plan_id: str, *, now: datetime, by: str, strict: bool = False) -> Launched:
    """Create a PENDING run for each planned one that still holds: wanted, with the same recipe and inputs, and no run.

    `strict` creates none where one of them does not hold. What follows from planned runs is not created: it becomes
    wanted when they are done. Raises UnknownPlan, ExpiredPlan, PipelineDisabled, PipelinePaused.
    """
    plan = get_plan(session, plan_id, now=now)
    pipeline = session.get_one(models.Pipeline, plan.pipeline_id)
    require_enabled(pipeline)
    if pause := pause_of(session, pipeline.id):
        raise PipelinePaused(pipeline.name, pause=pause)
    current = evaluate_now(session, plan.pipeline_id, now=now, by=by)
    planned = _planned(plan_id, current)
    lapsed = {
        Lapse(why): number
        for why, number in session.execute(
            sa.select(planned.c.why, sa.func.count()).where(planned.c.why.is_not(None)).group_by(planned.c.why)
        )
    }
    first_lapsed = _first(session, planned) if lapsed else []
    created = later = 0
    if not (strict and lapsed):
        if current.trigger is not TriggerType.CONTINUOUS:  # what follows would wait for a trigger of its own
            chosen = sa.or_(*(_is_planned(plan_id, step) for step in current.steps))
            wanted = sa.and_(_Group.verdict == Verdict.WANTED, _Group.active_run_id.is_(None), chosen)
            ask_for(session, current, wanted, because=f"plan {plan_id}", now=now, by=by)
        created = create_runs(session, current, lambda step: _is_planned(plan_id, step), now=now)
        later = _left(session, planned, current)
    return Launched(plan_id, created, lapsed, first_lapsed, later)


def _is_planned(plan_id: str, step: StepNow) -> sa.ColumnElement[bool]:
    """Condition on a sub-group: the plan names it, with the recipe and inputs of now."""
    return sa.exists().where(
        _Row.plan_id == plan_id,
        _Row.reduction_step_id == step.id,
        _Group.reduction_step_id == step.id,
        _Row.sub_group_key == _Group.key,
        _Row.recipe_digest == (step.recipe.digest if step.recipe else None),
        _Row.input_digest == _Group.input_digest,
    )


def _planned(plan_id: str, pipeline: PipelineNow) -> sa.Subquery:
    """Every run of a plan, and why it is not created any more: NULL where it holds."""
    recipe = sa.case(
        *((_Row.reduction_step_id == step.id, step.recipe.digest) for step in pipeline.steps if step.recipe),
        else_=None,
    )
    why: list[tuple[sa.ColumnElement[bool], Any]] = [
        (_Group.id.is_(None), Lapse.GONE),
        (_Group.active_run_id.is_not(None), Lapse.RUNNING),
        (_Row.recipe_digest.is_distinct_from(recipe), Lapse.RECIPE_CHANGED),
        (_Row.input_digest != _Group.input_digest, Lapse.INPUTS_CHANGED),
        (_Group.verdict == Verdict.WANTED, None),
        (_Group.verdict == Verdict.UP_TO_DATE, Lapse.DONE),
    ]
    same_place = sa.and_(_Group.reduction_step_id == _Row.reduction_step_id, _Group.key == _Row.sub_group_key)
    return (
        sa.select(
            _Row.number,
            models.ReductionStep.key.label("step"),
            _Row.sub_group_key,
            _Group.labels,
            sa.case(*why, else_=sa.cast(_Group.verdict, sa.Text)).label("why"),
        )
        .join(models.ReductionStep, models.ReductionStep.id == _Row.reduction_step_id)
        .outerjoin(_Group, same_place)
        .where(_Row.plan_id == plan_id, _Row.input_digest.is_not(None))
        .subquery()
    )


def _left(session: Session, planned: sa.Subquery, pipeline: PipelineNow) -> int:
    """How many planned runs the limit on those of a minute left for later."""
    if pipeline.created_per_minute is None:
        return 0
    come_by(session, models.PipelineEvaluation.pipeline_id == pipeline.id)
    return session.scalars(sa.select(sa.func.count()).select_from(planned).where(planned.c.why.is_(None))).one()


def _first(session: Session, planned: sa.Subquery) -> Sequence[Lapsed]:
    rows = session.execute(
        sa.select(planned.c.step, planned.c.sub_group_key, planned.c.labels, planned.c.why)
        .where(planned.c.why.is_not(None))
        .order_by(planned.c.number)
        .limit(_LISTED)
    )
    return [Lapsed(step, key, called, Lapse(why)) for step, key, called, why in rows]
