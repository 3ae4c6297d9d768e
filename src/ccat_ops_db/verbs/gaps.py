from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.evaluation import evaluate_now
from ccat_ops_db.gap.steps import PipelineNow
from ccat_ops_db.lookup import PIPELINE, find
from ccat_ops_db.plan.schedule import next_tick
from ccat_ops_db.queries.gaps import Count, SubGroupNow, counts, named_step, named_sub_group, sub_groups
from ccat_ops_db.queries.pauses import pause_of
from ccat_ops_db.states import TriggerType, Verdict

_Group = models.SubGroup


@dataclass(frozen=True)
class Asked:
    """Of which sub-groups to tell: of a pipeline, of one of its steps, or one of these by path or key."""

    pipeline: str
    step: str | None = None
    sub_group: str | None = None
    verdicts: Collection[Verdict] = ()
    """Only sub-groups of which this is to be said; left out: all that are not up to date, and the one in any case."""


@dataclass(frozen=True)
class Gap:
    """What is to be done in a pipeline."""

    counts: Sequence[Count]
    sub_groups: Sequence[SubGroupNow]
    """The first of them."""
    held: str | None
    """Why no run is created for what is wanted; None where one is."""


def look_up_gap(session: Session, asked: Asked, *, limit: int, now: datetime, by: str) -> Gap:
    """Evaluate a pipeline and say what is to be done about its sub-groups, and why; raises UnknownName."""
    current = evaluate_now(session, find(session, PIPELINE, asked.pipeline).id, now=now, by=by)
    held = _held(session, current, now=now)
    step = named_step(current, asked.step, pipeline_name=asked.pipeline) if asked.step is not None else None
    which = _Group.verdict.in_(asked.verdicts) if asked.verdicts else _Group.verdict != Verdict.UP_TO_DATE
    if step is not None:
        which = sa.and_(_Group.reduction_step_id == step.id, which)
    if step is not None and asked.sub_group is not None:
        one = named_sub_group(session, step, asked.sub_group)
        return Gap([Count(step.key, one.verdict, one.reason, 1)], [one], held)
    found = islice(sub_groups(session, current, which=which, limit=limit), limit)
    return Gap(counts(session, current, which=which), list(found), held)


def _held(session: Session, pipeline: PipelineNow, *, now: datetime) -> str | None:
    if not session.get_one(models.Pipeline, pipeline.id).enabled:
        return "the pipeline is disabled"
    if pause := pause_of(session, pipeline.id):
        return pause
    if pipeline.schedule is not None:
        return f"they are created at the next tick, {next_tick(pipeline.schedule, now):%F %H:%M} UTC"
    by_hand = pipeline.trigger is TriggerType.MANUAL
    return "they are created when somebody asks for them, by `ccat trigger`" if by_hand else None
