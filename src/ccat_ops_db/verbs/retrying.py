"""Runs that people have tried again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.failures import is_followed
from ccat_ops_db.queries.runs import require_runs
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import RunStatus
from ccat_ops_db.verbs.requests import carry_on

_Run = models.ExecutedReductionStep
_ANEW: Final[Mapping[str, Any]] = {
    "retry_at": None,
    "finished_at": None,
    "retry_count": 0,
    "trouble_count": 0,
    "trouble_since": None,
    "waiting_for": None,
    "held_by_limit": False,
    "cancel_requested_at": None,
    "cancel_requested_by": None,
    "cancel_because": None,
    "cancel_answer": None,
    "claimed_by": None,
    "lease_until": None,
}


@dataclass(frozen=True)
class Retried:
    """What became of runs, or raw packages, that were to be tried again."""

    retried: Sequence[int]
    refused: Mapping[int, str]
    """Why others are not, and what to do instead; by number."""


def retry_runs(session: Session, run_ids: Sequence[int], *, because: str, by: str) -> Retried:
    """Have FAILED runs tried again, as if they had not been before; they go on with the inputs that they have.

    Only the newest run of a sub-group is, and not one whose results are refused. Raises UnknownRun.
    """
    require_runs(session, run_ids)
    _hold_creation(session, run_ids)
    refused = _refused(session, run_ids)
    wanted = [run_id for run_id in run_ids if run_id not in refused]
    told = f"wished by {by}: {because}"
    retried = advance(session, _Run, wanted, to=RunStatus.PENDING, because=told, by=by, values=_ANEW)
    carry_on(session, retried)
    return Retried(retried, refused)


def _hold_creation(session: Session, run_ids: Sequence[int]) -> None:
    """Let nobody create a run of these pipelines until the caller's transaction is over."""
    evaluation = models.PipelineEvaluation
    pipelines = sa.select(_Run.pipeline_id).where(is_among(_Run.id, run_ids))
    held = sa.select(evaluation.pipeline_id).where(evaluation.pipeline_id.in_(pipelines))
    session.execute(held.order_by(evaluation.pipeline_id).with_for_update())


def _refused(session: Session, run_ids: Sequence[int]) -> dict[int, str]:
    """Why runs, which are locked by it, are not tried again; by run."""
    wanted = is_among(_Run.id, run_ids)
    session.execute(sa.select(_Run.id).where(wanted).order_by(_Run.id).with_for_update())
    place = (models.Pipeline.name, models.ReductionStep.key, _Run.sub_group_path)
    rows = session.execute(
        sa.select(_Run.id, _Run.status, is_followed(), *place)
        .join(_Run.pipeline)
        .join(_Run.reduction_step)
        .where(wanted, sa.or_(_Run.status != RunStatus.FAILED, is_followed(), _Run.not_needed))
    )
    return {
        run_id: _refusal(run_id, status, f"ccat trigger {pipeline} --step {step} --sub-group {path}", followed=followed)
        for run_id, status, followed, pipeline, step, path in rows
    }


def _refusal(run_id: int, status: RunStatus, command: str, *, followed: bool) -> str:
    match status:
        case RunStatus.COMPLETED:
            return f"run {run_id} is completed; `{command} --force` makes a new one"
        case RunStatus.CANCELLED:
            return f"run {run_id} is cancelled, which is final; `{command}` makes a new one"
        case RunStatus.FAILED if followed:
            return f"a newer run of its sub-group came after run {run_id}; `{command}` makes one, if it is wanted"
        case RunStatus.FAILED:
            return f"run {run_id} is not needed any more: another run makes what is wanted, by itself or by `{command}`"
        case _:
            return f"run {run_id} is under way already: `ccat run why {run_id}` says how far"
