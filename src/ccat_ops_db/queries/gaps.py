"""What is to be done in a pipeline, as it was last evaluated."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.gap.telling import tell
from ccat_ops_db.lookup import UnknownName
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import RunReason, Verdict

_Group, _Member = models.SubGroup, models.SubGroupPackage
_IS_THERE: Final = sa.exists().where(_Member.sub_group_id == _Group.id, sa.not_(_Member.is_faded))
_THOSE_THERE: Final = sa.select(_Group).where(_IS_THERE).execution_options(populate_existing=True)
_WITH_KEYS: Final = _THOSE_THERE.where(
    _Group.reduction_step_id == sa.bindparam("step", type_=sa.BigInteger()),
    _Group.key == sa.any_(sa.bindparam("keys", type_=sa.ARRAY(sa.Text))),
)
_OFFERED: Final = 10_000
"""Names among which the nearest to a wrong one is looked for."""
Place = tuple[int, str]
"""Step id and sub-group key: where runs belong."""


@dataclass(frozen=True)
class SubGroupNow:
    """A sub-group, what is to be done about it, and why."""

    id: int
    step: StepNow
    key: str
    path: str
    labels: Mapping[str, str | None]
    verdict: Verdict
    reason: RunReason | None
    because: str
    cut_off: datetime | None
    input_digest: str
    active_run_id: int | None
    last_run_id: int | None
    """Its newest completed run."""
    due_at: datetime | None
    """When the verdict changes by itself."""


def sub_groups(
    session: Session, pipeline: PipelineNow, *, which: sa.ColumnElement[bool], limit: int | None = None
) -> Iterator[SubGroupNow]:
    """Sub-groups that have packages now, step by step in topological order."""
    for step in pipeline.steps:
        yield from _of_step(session, step, which=which, limit=limit)


@dataclass(frozen=True)
class Count:
    """So many sub-groups of a step of which the same is to be said."""

    step: str
    verdict: Verdict
    reason: RunReason | None
    sub_groups: int


def counts(session: Session, pipeline: PipelineNow, *, which: sa.ColumnElement[bool]) -> Sequence[Count]:
    """How many sub-groups there are, by step in topological order, verdict and reason."""
    of_group = (_Group.reduction_step_id, _Group.verdict, _Group.reason)
    steps = {step.id: step.key for step in pipeline.steps}
    rows = session.execute(
        sa.select(*of_group, sa.func.count())
        .where(is_among(_Group.reduction_step_id, steps), which, _IS_THERE)
        .group_by(*of_group)
        .order_by(_Group.verdict, _Group.reason)
    ).all()
    return [Count(key, *row[1:]) for step_id, key in steps.items() for row in rows if row[0] == step_id]


def named_sub_group(session: Session, step: StepNow, name: str) -> SubGroupNow:
    """The sub-group of a step that has this path or key; raises UnknownName."""
    found = _of_step(session, step, which=sa.or_(_Group.path == name, _Group.key == name), limit=1)
    if not found:
        paths = sa.select(_Group.path).where(_Group.reduction_step_id == step.id).limit(_OFFERED)
        raise UnknownName("sub-group", name, session.scalars(paths).all(), of=f"step {step.key}")
    return found[0]


def named_step(pipeline: PipelineNow, key: str, *, pipeline_name: str) -> StepNow:
    """The step of that key; raises UnknownName."""
    steps = {step.key: step for step in pipeline.steps}
    if key not in steps:
        raise UnknownName("step", key, list(steps), of=f"pipeline {pipeline_name}")
    return steps[key]


def at_places(session: Session, pipeline: PipelineNow, places: Collection[Place]) -> Mapping[Place, SubGroupNow]:
    """The sub-groups at these places; some may be gone."""
    found: dict[Place, SubGroupNow] = {}
    for step in pipeline.steps:
        if keys := [key for step_id, key in places if step_id == step.id]:
            rows = session.scalars(_WITH_KEYS, {"step": step.id, "keys": keys}).all()
            found |= {(step.id, one.key): one for one in _now(session, step, rows)}
    return found


def _of_step(
    session: Session, step: StepNow, *, which: sa.ColumnElement[bool], limit: int | None
) -> Sequence[SubGroupNow]:
    query = _THOSE_THERE.where(_Group.reduction_step_id == step.id, which).order_by(_Group.key)
    return _now(session, step, session.scalars(query.limit(limit)).all())


def _now(session: Session, step: StepNow, rows: Sequence[models.SubGroup]) -> Sequence[SubGroupNow]:
    because = tell(session, step, [row.id for row in rows]) if rows else {}
    return [
        SubGroupNow(
            id=row.id,
            step=step,
            key=row.key,
            path=row.path,
            labels=row.labels,
            verdict=row.verdict,
            reason=row.reason,
            because=because[row.id],
            cut_off=row.cut_off,
            input_digest=row.input_digest or "",
            active_run_id=row.active_run_id,
            last_run_id=row.last_run_id,
            due_at=row.due_at,
        )
        for row in rows
    ]
