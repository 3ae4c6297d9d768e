"""PENDING → STAGING_DATA: the moment in which a run's recipe and inputs are fixed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.evaluation import Candidate, Place
from ccat_ops_db.queries.gaps import gap
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import InputRole, RunStatus
from ccat_ops_db.verbs.staging import request_staging
from ccat_workflow_manager.execution.layout import run_layout
from ccat_workflow_manager.hpc.base import job_name
from ccat_workflow_manager.plan.starting import PendingRun, Start, start
from ccat_workflow_manager.verbs.triggering import wanted

_Run = models.ExecutedReductionStep


@dataclass(frozen=True)
class Started:
    """What became of PENDING runs, by run id."""

    started: tuple[int, ...]
    waiting: tuple[int, ...]
    not_needed: tuple[int, ...]


def start_runs(session: Session, run_ids: Iterable[int], *, now: datetime, by: str) -> Started:
    """Fix recipe and inputs of PENDING runs that are still needed, give each an attempt and ask for its data.

    A run that nothing needs any more is CANCELLED as not needed; one that is not ready stays PENDING with the reason.
    """
    runs = _lock_pending(session, run_ids)
    candidates = _candidates(session, {run.pipeline_id for run in runs}, now)
    installation = session.scalars(sa.select(models.Installation.installation_id)).one()
    done: dict[Start, list[int]] = {one: [] for one in Start}
    for run in runs:
        candidate = candidates.get((run.reduction_step_id, run.sub_group_key))
        action, because = start(_pending(run), candidate)
        done[action].append(run.id)
        if action is Start.FRESH and candidate is not None:
            _freeze(session, run, candidate, now=now)
        elif action is Start.AGAIN and candidate is not None:
            _take_anew(session, run, candidate)
        if action in {Start.FRESH, Start.AGAIN}:
            _begin_attempt(session, run, installation, because=because, by=by)
        elif action is Start.NOT_NEEDED:
            _drop(session, run, because=because, now=now, by=by)
        else:
            run.waiting_for = because
    return Started((*done[Start.FRESH], *done[Start.AGAIN]), (*done[Start.WAIT],), (*done[Start.NOT_NEEDED],))


def _lock_pending(session: Session, run_ids: Iterable[int]) -> Sequence[_Run]:
    return session.scalars(
        sa.select(_Run)
        .where(is_among(_Run.id, run_ids), _Run.status == RunStatus.PENDING)
        .options(joinedload(_Run.reduction_step), joinedload(_Run.pipeline))
        .order_by(_Run.id)
        .with_for_update(of=_Run)
    ).all()


def _candidates(session: Session, pipeline_ids: Iterable[int], now: datetime) -> Mapping[Place, Candidate]:
    return {
        (one.step.id, one.name.key): one for pipeline_id in pipeline_ids for one in gap(session, pipeline_id, now=now)
    }


def _pending(run: _Run) -> PendingRun:
    return PendingRun(
        run.recipe_digest,
        run.input_digest,
        is_frozen=run.inputs_frozen_at is not None,
        is_enabled=run.pipeline.enabled,
    )


def _take_anew(session: Session, run: _Run, candidate: Candidate) -> None:
    """Take the products of now, which are the same bytes, where those that were frozen had to be made again."""
    frozen = sa.select(models.RunInput.data_product_id).filter_by(run_id=run.id, role=InputRole.UPSTREAM)
    if set(session.scalars(frozen)) != set(candidate.product_ids):
        session.execute(sa.delete(models.RunInput).filter_by(run_id=run.id, role=InputRole.UPSTREAM))
        _take(session, run, candidate.product_ids, role=InputRole.UPSTREAM)


def _freeze(session: Session, run: _Run, candidate: Candidate, *, now: datetime) -> None:
    _take(session, run, candidate.raw_package_ids, role=InputRole.RAW)
    _take(session, run, candidate.product_ids, role=InputRole.UPSTREAM)
    why = {"reason": candidate.decision.reason, "because": candidate.decision.because}
    for column, value in {**wanted(candidate), **why, "inputs_frozen_at": now}.items():
        setattr(run, column, value)


def _take(session: Session, run: _Run, ids: Sequence[int], *, role: InputRole) -> None:
    column = "raw_data_package_id" if role is InputRole.RAW else "data_product_id"
    if ids:
        session.execute(sa.insert(models.RunInput), [{"run_id": run.id, "role": role, column: one} for one in ids])


def _begin_attempt(session: Session, run: _Run, installation: UUID, *, because: str, by: str) -> None:
    made = session.scalar(sa.select(sa.func.max(models.RunAttempt.number)).filter_by(run_id=run.id))
    number = (made or 0) + 1
    layout = run_layout(
        Path(),
        pipeline_id=run.pipeline_id,
        sub_group=run.sub_group_path,
        step_key=run.reduction_step.key,
        run_id=run.id,
    )
    session.add(
        models.RunAttempt(
            run_id=run.id,
            number=number,
            job_name=job_name(installation, run_id=run.id, attempt=number),
            directory=str(layout.attempt(number).directory),
        )
    )
    request_staging(session, _raw_packages(session, run), run.data_location_id)
    values = {"waiting_for": None, "claimed_by": None, "lease_until": None}
    advance(session, _Run, [run.id], to=RunStatus.STAGING_DATA, because=because, by=by, values=values)


def _raw_packages(session: Session, run: _Run) -> Sequence[int]:
    inputs = sa.select(models.RunInput.raw_data_package_id).filter_by(run_id=run.id, role=InputRole.RAW)
    return [number for number in session.scalars(inputs) if number is not None]


def _drop(session: Session, run: _Run, *, because: str, now: datetime, by: str) -> None:
    values = {"not_needed": True, "finished_at": now, "waiting_for": None}
    advance(session, _Run, [run.id], to=RunStatus.CANCELLED, because=because, by=by, values=values)
