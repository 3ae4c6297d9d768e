"""Products that were deleted and that runs take: whose they are, what is known of them, and runs that repeat others.

Deletion is no gap, so nothing of this is maintained: it is looked for by those who would take the products.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.gap.texts import text_of
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.plan.digests import NOT_INPUTS
from ccat_ops_db.plan.recomputing import Gone, Remake, Tried, remake
from ccat_ops_db.states import RunStatus

_IDS: Final = sa.ARRAY(sa.BigInteger)
_TYPES: Final[Mapping[str, sa.types.TypeEngine[Any]]] = {
    "ids": _IDS,
    "runs": _IDS,
    "step": sa.BigInteger(),
    "takers": _IDS,
    "upstream": _IDS,
    "below": _IDS,
    "remade": _IDS,
    "unlisted": sa.ARRAY(sa.Text),
    "location": sa.BigInteger(),
    "pipeline": sa.BigInteger(),
    "priority": sa.BigInteger(),
    "revision": sa.BigInteger(),
    "version": sa.BigInteger(),
    "config": sa.BigInteger(),
    "recipe": sa.Text(),
    "series": sa.Text(),
    "now": sa.TIMESTAMP(timezone=True),
}
_WAKE: Final = sa.select(sa.func.pg_notify(CHANNEL, f"executed_reduction_step:{RunStatus.PENDING}"))


@dataclass
class Lacking:
    """What runs, or sub-groups, lack: sub-groups whose products are gone, by who would take them."""

    upstream: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    hopeless: set[int] = field(default_factory=set)
    """Those of which something is gone that no run can be repeated for."""


def remade_steps(pipeline: PipelineNow) -> Sequence[StepNow]:
    """Steps whose products are made again where they were deleted."""
    return [step for step in pipeline.steps if step.recompute]


def lacked_by_groups(session: Session, pipeline: PipelineNow, step: StepNow, *, ids: Collection[int]) -> Lacking:
    """What runs of now of some sub-groups would lack of the steps whose products are made again."""
    found = Lacking()
    upstream = [one.id for one in remade_steps(pipeline) if one.id in step.upstream]
    if upstream and ids:
        unlisted = sorted(NOT_INPUTS.difference(step.listed))
        asked = {"ids": sorted(ids), "upstream": upstream, "unlisted": unlisted}
        for group_id, upstream_id in session.execute(_statement("gone_upstream"), asked):
            found.upstream[group_id].add(upstream_id)
    return found


def lacked_by_runs(session: Session, pipeline: PipelineNow, run_ids: Collection[int]) -> Lacking:
    """What runs whose inputs are fixed lack of these."""
    found = Lacking()
    remade = [step.id for step in remade_steps(pipeline)]
    asked = {"runs": sorted(run_ids), "remade": remade}
    for run_id, upstream_id in session.execute(_statement("gone_inputs"), asked) if run_ids else ():
        if upstream_id is None:
            found.hopeless.add(run_id)
        else:
            found.upstream[run_id].add(upstream_id)
    return found


def take_same(session: Session, pipeline: PipelineNow, run_ids: Collection[int]) -> None:
    """Let runs whose inputs are fixed take the same bytes from wherever these were made again."""
    if run_ids and remade_steps(pipeline):
        session.execute(_statement("take_same"), {"runs": sorted(run_ids), "location": pipeline.location_id})


def find_gone(session: Session, pipeline: PipelineNow, *, ids: Collection[int]) -> Mapping[int, Gone]:
    """What is known of sub-groups whose products are gone; by id."""
    found: dict[int, Gone] = {}
    if not ids:
        return found
    name = session.get_one(models.Pipeline, pipeline.id).name
    for step in remade_steps(pipeline):
        recipe = step.recipe.digest if step.recipe else None
        rows = session.execute(_statement("remade"), {"step": step.id, "ids": sorted(ids), "recipe": recipe}).all()
        lacked = lacked_by_runs(session, pipeline, [row.last_run_id for row in rows])
        found |= {row.id: _gone(row, step, name, is_repeatable=row.last_run_id not in lacked.hopeless) for row in rows}
    return found


def _gone(row: Any, step: StepNow, pipeline: str, *, is_repeatable: bool) -> Gone:
    return Gone(
        id=row.id,
        place=f"{step.key} {row.path}",
        command=f"ccat trigger {pipeline} --step {step.key} --sub-group {row.path} --force",
        last_run_id=row.last_run_id,
        active_run_id=row.active_run_id,
        tried=Tried(row.tried_id, row.failure) if row.tried_id is not None else None,
        is_released=row.is_released,
        is_repeatable=is_repeatable,
    )


def repeated_for(session: Session, pipeline: PipelineNow, planned: Mapping[int, Collection[int]]) -> list[int]:
    """The sub-groups whose newest runs would be repeated for runs of others, given by step; in topological order.

    The first would be repeated for those that take their products, or for others that are repeated for these.
    """
    found: dict[int, Gone] = {}
    named = {group_id for ids in planned.values() for group_id in ids}
    for step in reversed(pipeline.steps):
        if step.recompute:
            below = [(one, planned[one.id]) for one in pipeline.below(step.id)]
            lacked = [lacked_by_groups(session, pipeline, one, ids=ids) for one, ids in below]
            lacked.append(lacked_by_runs(session, pipeline, [gone.last_run_id for gone in found.values()]))
            ids = {group_id for one in lacked for groups in one.upstream.values() for group_id in groups}
            gone = find_gone(session, pipeline, ids=ids - found.keys() - named)
            new = {group_id: one for group_id, one in gone.items() if remake(one) is Remake.CREATE}
            found = {**dict(sorted(new.items())), **found}
    return list(found)


def repeat(session: Session, pipeline: PipelineNow, takers: Mapping[int, int], *, now: datetime) -> int:
    """Create a PENDING run for sub-groups that repeats the newest of each, with the same inputs; how many.

    `takers` says for each sub-group which run takes its products. The caller has evaluated the pipeline.
    """
    created = 0
    for step in remade_steps(pipeline) if takers else ():
        created += session.scalars(_statement("remaking"), _made_with(pipeline, step, takers, now=now)).one()
    if created:
        session.execute(_WAKE)
    return created


def _made_with(pipeline: PipelineNow, step: StepNow, takers: Mapping[int, int], *, now: datetime) -> dict[str, Any]:
    return {
        "step": step.id,
        "ids": list(takers),
        "takers": list(takers.values()),
        "pipeline": pipeline.id,
        "location": pipeline.location_id,
        "priority": pipeline.priority,
        "revision": step.revision_id,
        "version": step.version.id if step.version else None,
        "config": step.config_revision_id,
        "recipe": step.recipe.digest if step.recipe else None,
        "series": step.recipe.series_digest if step.recipe else None,
        "now": now,
    }


def still_needed(session: Session, pipeline: PipelineNow, run_ids: Iterable[int]) -> frozenset[int]:
    """Of PENDING runs that repeat others those for which somebody waits where the pipeline runs, and that may run."""
    edges = [(upstream_id, step.id) for step in pipeline.steps for upstream_id in step.upstream]
    asked = {
        "runs": sorted(run_ids),
        "location": pipeline.location_id,
        "upstream": [upstream_id for upstream_id, _ in edges],
        "below": [step_id for _, step_id in edges],
    }
    return frozenset(session.scalars(_statement("still_needed"), asked)) if asked["runs"] else frozenset()


@cache
def _statement(name: str) -> sa.TextClause:
    text = text_of(name)
    return sa.text(text).bindparams(*(sa.bindparam(key, type_=_TYPES[key]) for key in _TYPES if f":{key}" in text))
