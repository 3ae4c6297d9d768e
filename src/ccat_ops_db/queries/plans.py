"""What a plan says: how many runs of which step, why, which follow, and what is held back."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.gap.statements import find_makers
from ccat_ops_db.gap.steps import PipelineNow, StepNow, pipeline_now
from ccat_ops_db.gap.telling import tell
from ccat_ops_db.naming import nearest
from ccat_ops_db.queries.gaps import sub_groups
from ccat_ops_db.queries.pauses import stopped
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import RunReason, Verdict

_Group, _Row = models.SubGroup, models.PlanRow
_AGAIN: Final = "its products were deleted, and others of these runs take them"
_HELD: Final = (Verdict.BLOCKED, Verdict.COOLING, Verdict.FAILED, Verdict.CANCELLED)


class UnknownPlan(CcatError):
    """A plan was named that does not exist, or does not exist any more."""

    code = "unknown_plan"

    def __init__(self, plan_id: str, known: Collection[str]) -> None:
        super().__init__(
            f"There is no plan `{plan_id}`.{nearest(plan_id, known)} A plan is kept for 24 hours; "
            "`ccat plan PIPELINE` makes one."
        )


class ExpiredPlan(CcatError):
    """A plan was named that is too old."""

    code = "expired_plan"

    def __init__(self, plan_id: str, *, pipeline: str, expired_at: datetime) -> None:
        super().__init__(
            f"Plan {plan_id} of pipeline {pipeline} expired at {expired_at:%F %T %Z}; "
            f"`ccat plan {pipeline}` makes a new one."
        )


@dataclass(frozen=True)
class Count:
    """So many runs of a step for one reason; without a reason they follow from others of the plan."""

    step: str
    reason: RunReason | None
    runs: int


@dataclass(frozen=True)
class Held:
    """So many sub-groups of a step for which no run is created now, and why that is with one of them."""

    step: str
    verdict: Verdict
    reason: RunReason | None
    """Why a run would be necessary; None where only what it takes is awaited."""
    sub_groups: int
    example: Mapping[str, str | None]
    """Labels of the one."""
    because: str


@dataclass(frozen=True)
class PlannedRun:
    """A run that a plan names."""

    number: int
    """Its place in the plan: the key to the next page."""
    step: str
    sub_group_key: str
    sub_group: Mapping[str, str | None]
    reason: RunReason | None
    """None where it follows from others of the plan."""
    because: str
    """As things are now."""


@dataclass(frozen=True)
class Planned:
    """What would happen to a pipeline now."""

    pipeline: str
    plan: models.Plan | None
    """What can be launched, and read in pages; None where no run would be created."""
    counts: Sequence[Count]
    """Runs by step and reason, in the order of the plan; those without a reason follow from others."""
    held: Sequence[Held]
    stopped: str | None
    """Why nothing of the pipeline is created now, where that is so."""

    @property
    def at_once(self) -> int:
        """How many runs would be created now."""
        return sum(one.runs for one in self.counts if one.reason) - self.again

    @property
    def again(self) -> int:
        """How many runs these, or those that follow, would create to have again what was deleted."""
        return sum(one.runs for one in self.counts if one.reason is RunReason.RECOMPUTE)

    @property
    def later(self) -> int:
        """How many runs follow from those."""
        return sum(one.runs for one in self.counts if not one.reason)

    @property
    def runs(self) -> int:
        """How many runs there would be in all."""
        return self.at_once + self.again + self.later


def get_plan(session: Session, plan_id: str, *, now: datetime) -> models.Plan:
    """A plan that is still kept; raises UnknownPlan, ExpiredPlan."""
    plan = session.get(models.Plan, plan_id)
    if plan is None:
        kept = sa.select(models.Plan.id).where(models.Plan.expires_at > now)
        raise UnknownPlan(plan_id, session.scalars(kept).all())
    if plan.expires_at <= now:
        pipeline = session.get_one(models.Pipeline, plan.pipeline_id)
        raise ExpiredPlan(plan_id, pipeline=pipeline.name, expired_at=plan.expires_at)
    return plan


def read_plan(session: Session, plan_id: str, *, now: datetime) -> Planned:
    """A plan that was made before; what is held back is as it was last evaluated. Raises UnknownPlan, ExpiredPlan."""
    plan = get_plan(session, plan_id, now=now)
    name = session.get_one(models.Pipeline, plan.pipeline_id).name
    pipeline = pipeline_now(session, plan.pipeline_id)
    held_back = list(held(session, pipeline, steps=pipeline.steps, plan_id=plan_id))
    return Planned(name, plan, counts(session, plan_id), held_back, stopped(session).get(plan.pipeline_id))


def counts(session: Session, plan_id: str) -> Sequence[Count]:
    """How many runs a plan names, by step and reason in its order."""
    key = models.ReductionStep.key
    rows = session.execute(
        sa.select(key, _Row.reason, sa.func.count())
        .join(models.ReductionStep, models.ReductionStep.id == _Row.reduction_step_id)
        .where(_Row.plan_id == plan_id)
        .group_by(key, _Row.reason)
        .order_by(sa.func.min(_Row.number))
    )
    return [Count(*row) for row in rows]


def held(session: Session, pipeline: PipelineNow, *, steps: Sequence[StepNow], plan_id: str | None) -> Iterator[Held]:
    """What is not going to run by itself, or not yet, of some steps, as they were last evaluated."""
    follows = sa.exists().where(
        _Row.plan_id == plan_id, _Row.reduction_step_id == _Group.reduction_step_id, _Row.sub_group_key == _Group.key
    )
    rows = session.execute(
        sa.select(sa.func.min(_Group.id), sa.func.count())
        .where(is_among(_Group.reduction_step_id, [step.id for step in steps]), _Group.verdict.in_(_HELD))
        .where(_Group.active_run_id.is_(None), sa.not_(follows))
        .group_by(_Group.reduction_step_id, _Group.verdict, _Group.reason)
    )
    numbers: dict[int, int] = dict(rows.all())
    for one in sub_groups(session, pipeline, which=is_among(_Group.id, numbers)):
        yield Held(one.step.key, one.verdict, one.reason, numbers[one.id], one.labels, one.because)


def planned_runs(session: Session, plan: models.Plan, *, limit: int, after: int = 0) -> Sequence[PlannedRun]:
    """A page of the runs that a plan names; `after` is the number where the last page ended."""
    rows = session.execute(
        sa.select(_Row, _Group.id.label("sub_group_id"), _Group.labels, models.ReductionStep.key.label("step"))
        .join(models.ReductionStep, models.ReductionStep.id == _Row.reduction_step_id)
        .outerjoin(
            _Group, sa.and_(_Group.reduction_step_id == _Row.reduction_step_id, _Group.key == _Row.sub_group_key)
        )
        .where(_Row.plan_id == plan.id, _Row.number > after)
        .order_by(_Row.number)
        .limit(limit)
    ).all()
    because: dict[int, str] = {}
    for step in pipeline_now(session, plan.pipeline_id).steps:
        because |= _because(session, step, [row for row in rows if row.PlanRow.reduction_step_id == step.id])
    return [
        PlannedRun(
            number=row.PlanRow.number,
            step=row.step,
            sub_group_key=row.PlanRow.sub_group_key,
            sub_group=row.labels or {},
            reason=row.PlanRow.reason,
            because=because.get(row.PlanRow.number, "its sub-group is gone"),
        )
        for row in rows
    ]


def _because(session: Session, step: StepNow, rows: Sequence[Any]) -> Mapping[int, str]:
    """Why there would be some runs of a step, each in a sentence; by number."""
    again = {row.PlanRow.number: _AGAIN for row in rows if row.PlanRow.reason is RunReason.RECOMPUTE}
    wanted = [row for row in rows if row.PlanRow.reason and row.sub_group_id and row.PlanRow.number not in again]
    at_once = {row.sub_group_id: row.PlanRow.number for row in wanted}
    later = {row.PlanRow.sub_group_key: row.PlanRow.number for row in rows if not row.PlanRow.reason}
    told = {at_once[number]: text for number, text in tell(session, step, at_once).items()} if at_once else {}
    makers = find_makers(session, step, rows[0].PlanRow.plan_id, keys=later) if later else {}
    return again | told | {later[key]: f"follows from {names}" for key, names in makers.items()}
