"""What is to be done in a pipeline, as it was last evaluated."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.gap.telling import tell
from ccat_ops_db.states import RunReason, Verdict

_Group, _Member = models.SubGroup, models.SubGroupPackage
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


def sub_groups(
    session: Session, pipeline: PipelineNow, *, which: sa.ColumnElement[bool], limit: int | None = None
) -> Iterator[SubGroupNow]:
    """Sub-groups that have packages now, step by step in topological order."""
    for step in pipeline.steps:
        yield from _of_step(session, step, which=which, limit=limit)


def at_places(session: Session, pipeline: PipelineNow, places: Collection[Place]) -> Mapping[Place, SubGroupNow]:
    """The sub-groups at these places; some may be gone."""
    found: dict[Place, SubGroupNow] = {}
    for step in pipeline.steps:
        keys = sa.literal([key for step_id, key in places if step_id == step.id], sa.ARRAY(sa.Text))
        for one in _of_step(session, step, which=_Group.key == sa.any_(keys), limit=None):
            found[step.id, one.key] = one
    return found


def _of_step(
    session: Session, step: StepNow, *, which: sa.ColumnElement[bool], limit: int | None
) -> Sequence[SubGroupNow]:
    is_there = sa.exists().where(_Member.sub_group_id == _Group.id, sa.not_(_Member.is_faded))
    query = sa.select(_Group).where(_Group.reduction_step_id == step.id, which, is_there).order_by(_Group.key)
    rows = session.scalars(query.limit(limit).execution_options(populate_existing=True)).all()
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
        )
        for row in rows
    ]
