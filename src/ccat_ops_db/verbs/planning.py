"""Plans: which runs would be created now, without creating any."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.evaluation import evaluate_now
from ccat_ops_db.gap.planned import keep_plan
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.lookup import PIPELINE, UnknownName, find
from ccat_ops_db.queries.pauses import stopped
from ccat_ops_db.queries.plans import Planned, counts, held

_Plan = models.Plan


def make_plan(session: Session, pipeline: str, *, step: str | None = None, now: datetime, by: str) -> Planned:
    """Evaluate a pipeline, whatever its trigger, and keep for 24 hours which runs it would get now.

    With a `step`, only runs of that one are planned, and what follows from them. The id of a plan says what it would
    launch: of the same runs with the same recipes and inputs, the same plan is made. Raises UnknownName.
    """
    current = evaluate_now(session, find(session, PIPELINE, pipeline).id, now=now, by=by)
    steps = _chosen(current, step, pipeline_name=pipeline)
    session.execute(sa.delete(_Plan).where(_Plan.id.in_(_expired(now))))
    plan = keep_plan(session, current, steps=steps, now=now, by=by)
    plan_id = plan.id if plan else None
    return Planned(
        pipeline,
        plan,
        counts(session, plan_id) if plan_id else [],
        list(held(session, current, steps=steps, plan_id=plan_id)),
        stopped(session).get(current.id),
    )


def _chosen(pipeline: PipelineNow, key: str | None, *, pipeline_name: str) -> Sequence[StepNow]:
    chosen = [step for step in pipeline.steps if key in {None, step.key}]
    if not chosen and key is not None:
        raise UnknownName("step", key, [step.key for step in pipeline.steps], of=f"pipeline {pipeline_name}")
    return chosen


def _expired(now: datetime) -> sa.Select[str]:
    return sa.select(_Plan.id).where(_Plan.expires_at <= now).with_for_update(skip_locked=True)
