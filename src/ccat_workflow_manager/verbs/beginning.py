"""What the start of runs writes: what they are made of and with, their attempts, and the wish for their data."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.statements import take_inputs, take_products
from ccat_ops_db.gap.steps import PipelineNow
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.gaps import SubGroupNow
from ccat_ops_db.sets import is_among, rows
from ccat_ops_db.states import InputRole, RunStatus
from ccat_ops_db.verbs.staging import request_staging
from ccat_workflow_manager.hpc.base import job_name
from ccat_workflow_manager.verbs.asking import next_attempts
from ccat_workflow_manager.verbs.describing import run_directory
from ccat_workflow_manager.verbs.triggering import made_with

_Run = models.ExecutedReductionStep
_BEGUN: Final = {"waiting_for": None, "held_by_limit": False, "claimed_by": None, "lease_until": None}


@dataclass(frozen=True)
class Beginning:
    """A run that begins, and what its sub-group would be made of now."""

    run: _Run
    place: SubGroupNow
    pipeline: PipelineNow


def begin_fresh(session: Session, beginnings: Sequence[Beginning], *, now: datetime, by: str) -> None:
    """Fix recipe and inputs of PENDING runs as they are now, and begin an attempt of each."""
    for of_step in _by_step(beginnings):
        step, pipeline = of_step[0].place.step, of_step[0].pipeline
        take_inputs(session, step, _groups(of_step))
        for one in of_step:
            one.run.data_location_id, one.run.step_revision_id = pipeline.location_id, step.revision_id
        _begin(session, of_step, now=now, by=by, values=made_with(pipeline, step))


def begin_again(session: Session, beginnings: Sequence[Beginning], *, because: str, by: str) -> None:
    """Begin another attempt of each run with the inputs that it had.

    Products of now are taken, which are the same bytes, where those that were fixed had to be made again.
    """
    for of_step in _by_step(beginnings):
        groups, product = _groups(of_step), models.RunInput.data_product_id
        session.execute(
            sa.delete(models.RunInput).where(is_among(models.RunInput.run_id, groups), product.is_not(None))
        )
        step = of_step[0].place.step
        take_products(session, step, groups)
        for one in of_step:
            one.run.step_revision_id = step.revision_id  # the recipe is the same, but resources may not be
    begin_attempts(session, [one.run for one in beginnings], because=because, by=by)


def begin_attempts(session: Session, runs: Sequence[_Run], *, because: str, by: str) -> None:
    """Begin an attempt of each PENDING run, whose inputs are fixed."""
    if runs:
        _prepare_attempts(session, runs)
        advance(
            session,
            _Run,
            [run.id for run in runs],
            to=RunStatus.STAGING_DATA,
            because=because,
            by=by,
            values=_BEGUN,
        )


def _begin(
    session: Session, of_step: Sequence[Beginning], *, now: datetime, by: str, values: Mapping[str, Any]
) -> None:
    _prepare_attempts(session, [one.run for one in of_step])
    told = rows(
        "told",
        [one.run.id for one in of_step],
        reason=(sa.Text(), [one.place.reason for one in of_step]),
        because=(sa.Text(), [one.place.because for one in of_step]),
        input_digest=(sa.Text(), [one.place.input_digest for one in of_step]),
        packages_until=(sa.TIMESTAMP(timezone=True), [one.place.cut_off for one in of_step]),
    )
    own = {name: told.c[name] for name in ("reason", "because", "input_digest", "packages_until")}
    advance(
        session,
        _Run,
        [one.run.id for one in of_step],
        to=RunStatus.STAGING_DATA,
        because=told.c.because,
        by=by,
        values={**_BEGUN, **values, **own, "inputs_frozen_at": now},
        listed=told,
    )


def _prepare_attempts(session: Session, runs: Sequence[_Run]) -> None:
    """Write down the next attempt of each run, with the name of its job, and ask for its data."""
    session.flush()
    installation = session.scalars(sa.select(models.Installation.installation_id)).one()
    following = next_attempts(session, [run.id for run in runs])
    attempts = [
        {
            "run_id": run.id,
            "number": following[run.id].number,
            "job_name": job_name(installation, run_id=run.id, attempt=following[run.id].number),
            "directory": str(run_directory(run, Path()).attempt(following[run.id].number).directory),
            "memory_gb": following[run.id].asked.memory_gb,
            "time_hours": following[run.id].asked.time_hours,
        }
        for run in runs
    ]
    session.execute(sa.insert(models.RunAttempt), attempts)
    _request_data(session, runs)


def _request_data(session: Session, runs: Sequence[_Run]) -> None:
    taken = models.RunInput
    by_location: defaultdict[int, list[int]] = defaultdict(list)
    for run in runs:
        by_location[run.data_location_id].append(run.id)
    for location_id, run_ids in sorted(by_location.items()):
        raw = sa.select(taken.raw_data_package_id).where(is_among(taken.run_id, run_ids), taken.role == InputRole.RAW)
        packages = [number for number in session.scalars(raw.distinct()) if number is not None]
        request_staging(session, packages, location_id)


def _by_step(beginnings: Sequence[Beginning]) -> list[list[Beginning]]:
    found: defaultdict[int, list[Beginning]] = defaultdict(list)
    for one in beginnings:
        found[one.place.step.id].append(one)
    return list(found.values())


def _groups(of_step: Sequence[Beginning]) -> dict[int, int]:
    """Run → its sub-group."""
    return {one.run.id: one.place.id for one in of_step}
