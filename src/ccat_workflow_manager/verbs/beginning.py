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
from ccat_ops_db.sets import Brought, is_given
from ccat_ops_db.states import RunStatus
from ccat_ops_db.verbs.copies import hold_inputs
from ccat_ops_db.verbs.staging import request_products, request_staging
from ccat_workflow_manager.verbs.asking import next_attempts
from ccat_workflow_manager.verbs.describing import run_directory
from ccat_workflow_manager.verbs.staged import is_missing
from ccat_workflow_manager.verbs.triggering import made_with

_Run = models.ExecutedReductionStep
_Input = models.RunInput
_BEGUN: Final = {"waiting_for": None, "held_by_limit": False, "claimed_by": None, "lease_until": None}
_MADE_OF: Final = Brought(
    "made_of",
    reason=sa.Text(),
    because=sa.Text(),
    input_digest=sa.Text(),
    packages_until=sa.TIMESTAMP(timezone=True),
)
_OWN: Final = {name: column for name, column in _MADE_OF.c.items() if name != "id"}
_NEXT: Final = Brought(
    "following",
    number=sa.BigInteger(),
    job_name=sa.Text(),
    directory=sa.Text(),
    memory_gb=sa.Double(),
    time_hours=sa.Double(),
)
_WRITE_DOWN: Final = (
    sa.insert(models.RunAttempt)
    .from_select(["run_id", "number", "job_name", "directory", "memory_gb", "time_hours"], sa.select(_NEXT.table))
    .execution_options(dml_strategy="raw")  # its parameters are no columns
)
_FORGET_PRODUCTS: Final = sa.delete(_Input).where(is_given(_Input.run_id, "runs"), _Input.data_product_id.is_not(None))
_MISSING: Final = (
    sa.select(_Run.data_location_id, _Input.raw_data_package_id, _Input.data_product_id)
    .join(_Input, _Input.run_id == _Run.id)
    .where(is_given(_Run.id, "runs"), is_missing())
    .distinct()
)


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
        groups = _groups(of_step)
        session.execute(_FORGET_PRODUCTS, {"runs": list(groups)}, execution_options={"synchronize_session": False})
        step = of_step[0].place.step
        take_products(session, step, groups)
        for one in of_step:
            one.run.step_revision_id = step.revision_id  # the recipe is the same, but resources may not be
    begin_attempts(session, [one.run for one in beginnings], because=because, by=by)


def begin_attempts(session: Session, runs: Sequence[_Run], *, because: str, by: str) -> None:
    """Begin an attempt of each PENDING run, whose inputs are fixed."""
    if runs:
        _prepare_attempts(session, runs, by=by)
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
    _prepare_attempts(session, [one.run for one in of_step], by=by)
    run_ids, places = [one.run.id for one in of_step], [one.place for one in of_step]
    advance(
        session,
        _Run,
        run_ids,
        to=RunStatus.STAGING_DATA,
        because=_MADE_OF.c.because,
        by=by,
        values={**_BEGUN, **values, **_OWN, "inputs_frozen_at": now},
        listed=_MADE_OF.rows(
            run_ids,
            reason=[one.reason for one in places],
            because=[one.because for one in places],
            input_digest=[one.input_digest for one in places],
            packages_until=[one.cut_off for one in places],
        ),
    )


def _prepare_attempts(session: Session, runs: Sequence[_Run], *, by: str) -> None:
    """Write down the next attempt of each run, with the name of its job, hold what is there, and ask for the rest."""
    session.flush()
    run_ids = [run.id for run in runs]
    found = next_attempts(session, run_ids)
    following = [found[run_id] for run_id in run_ids]
    told = _NEXT.rows(
        run_ids,
        number=[one.number for one in following],
        job_name=[one.job_name for one in following],
        directory=[
            str(run_directory(run, Path()).attempt(one.number).directory)
            for run, one in zip(runs, following, strict=True)
        ],
        memory_gb=[one.asked.memory_gb for one in following],
        time_hours=[one.asked.time_hours for one in following],
    )
    session.execute(_WRITE_DOWN, told.parameters)
    hold_inputs(session, run_ids, by=by)
    _request_data(session, run_ids)


def _request_data(session: Session, run_ids: Sequence[int]) -> None:
    packages, products = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
    for location_id, package_id, product_id in session.execute(_MISSING, {"runs": run_ids}):
        if package_id is not None:
            packages[location_id].append(package_id)
        elif product_id is not None:  # narrows the type
            products[location_id].append(product_id)
    for location_id, package_ids in sorted(packages.items()):
        request_staging(session, package_ids, location_id)
    for location_id, product_ids in sorted(products.items()):
        request_products(session, product_ids, location_id)


def _by_step(beginnings: Sequence[Beginning]) -> list[list[Beginning]]:
    found: defaultdict[int, list[Beginning]] = defaultdict(list)
    for one in beginnings:
        found[one.place.step.id].append(one)
    return list(found.values())


def _groups(of_step: Sequence[Beginning]) -> dict[int, int]:
    """Run → its sub-group."""
    return {one.run.id: one.place.id for one in of_step}
