"""Runs that take products which were deleted wait for runs that make these again, which are created here."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from itertools import islice

from sqlalchemy.orm import Session

from ccat_ops_db.gap.recomputing import (
    find_gone,
    lacked_by_groups,
    lacked_by_runs,
    remade_steps,
    repeat,
    take_same,
)
from ccat_ops_db.gap.steps import PipelineNow
from ccat_ops_db.plan.recomputing import Gone, Remake, remake, waits
from ccat_ops_db.queries.gaps import SubGroupNow
from ccat_workflow_manager.verbs.triggering import left_of_minute, note_created


def await_products(
    session: Session,
    pipeline: PipelineNow,
    *,
    open_runs: Mapping[int, SubGroupNow],
    fixed_runs: Collection[int],
    now: datetime,
) -> Mapping[int, str | None]:
    """Of runs that could start those that may not yet: for what each waits; None where that is not to be had any more.

    What is not made yet is made from now on, as far as the pipeline's limit on runs of a minute allows. The runs are
    given with their sub-groups where they take what is there now. The caller has evaluated the pipeline.
    """
    if not remade_steps(pipeline):
        return {}
    take_same(session, pipeline, fixed_runs)
    lacking = _lacked(session, pipeline, open_runs)
    fixed = lacked_by_runs(session, pipeline, fixed_runs)
    lacking |= {run_id: groups for run_id, groups in fixed.upstream.items() if run_id not in fixed.hopeless}
    gone = _made_again(session, pipeline, lacking, now=now)
    told: dict[int, str | None] = {run_id: waits([gone[one] for one in groups]) for run_id, groups in lacking.items()}
    return told | dict.fromkeys(fixed.hopeless)


def _lacked(
    session: Session, pipeline: PipelineNow, open_runs: Mapping[int, SubGroupNow]
) -> dict[int, Collection[int]]:
    """The sub-groups that runs lack products of, which take what is there now."""
    of_step: defaultdict[int, dict[int, int]] = defaultdict(dict)
    for run_id, place in open_runs.items():
        of_step[place.step.id][place.id] = run_id
    found: dict[int, Collection[int]] = {}
    for step in pipeline.steps:
        runs = of_step[step.id]
        lacking = lacked_by_groups(session, pipeline, step, ids=runs)
        found |= {runs[group_id]: groups for group_id, groups in lacking.upstream.items()}
    return found


def _made_again(
    session: Session, pipeline: PipelineNow, lacking: Mapping[int, Collection[int]], *, now: datetime
) -> Mapping[int, Gone]:
    """What is known of sub-groups that runs lack products of, once runs are created that make these again."""
    takers = {group_id: run_id for run_id, groups in lacking.items() for group_id in groups}
    gone = find_gone(session, pipeline, ids=takers)
    new = {group_id: takers[group_id] for group_id, one in gone.items() if remake(one) is Remake.CREATE}
    created = repeat(session, pipeline, dict(islice(new.items(), left_of_minute(session, pipeline, now=now))), now=now)
    if not created:
        return gone
    note_created(session, pipeline, created, now=now)
    return find_gone(session, pipeline, ids=takers)
