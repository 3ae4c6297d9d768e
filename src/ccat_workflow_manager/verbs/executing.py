"""STAGING_DATA → SUBMITTED: directories and manifest, then the job; what a worker does at its location."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.claims import release
from ccat_ops_db.distributions import code_digest, installed_distribution
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import CHANNEL, advance
from ccat_ops_db.session import DatabaseUnreachable
from ccat_ops_db.states import FailureClass, PhysicalCopyStatus, RunStatus
from ccat_service.database import DatabaseConnection
from ccat_service.logging import StructuredLogger
from ccat_workflow_manager.execution.prepare import AttemptHasStarted, InputChanged, prepare
from ccat_workflow_manager.hpc.base import Backend, BackendUnavailable
from ccat_workflow_manager.verbs.describing import Description, current_attempts, describe
from ccat_workflow_manager.verbs.failing import Failure, fail_attempt

_Run = models.ExecutedReductionStep
_log = StructuredLogger(__name__)

PREPARED: Final = "run_attempt:prepared"
"""Payload of the wake-up that follows a prepared attempt."""


@dataclass(frozen=True)
class Workplace:
    """What a worker needs to act at the processing locations that it serves."""

    database: DatabaseConnection
    backends: Mapping[int, Backend]
    """Backend of each location, by the location's id."""
    base: Path
    """Pipeline base directory."""
    name: str
    """Signs what this worker moves."""


class SoftwareChanged(CcatError):
    """The environment of a released version no longer holds what was released."""

    code = "software_changed"

    def __init__(self, software: str, environment: str) -> None:
        super().__init__(
            f"{environment} no longer holds {software} as it was released: its files differ. "
            "Restore the environment, or release what it holds as a new version."
        )


def prepare_attempts(workplace: Workplace, run_ids: Sequence[int]) -> list[int]:
    """Make the directories of the current attempts of STAGING_DATA runs, and return the runs where that is done."""
    return [run_id for run_id in run_ids if _in_its_own_scope(workplace, run_id, _prepare)]


def submit_attempts(workplace: Workplace, run_ids: Sequence[int]) -> list[int]:
    """Hand the prepared attempts of STAGING_DATA runs to their backend, and return the runs that are SUBMITTED now.

    The job's name was committed with the attempt: a job that an earlier, interrupted try handed in is adopted.
    """
    return [run_id for run_id in run_ids if _in_its_own_scope(workplace, run_id, _submit)]


def _in_its_own_scope(workplace: Workplace, run_id: int, act: Callable[[Workplace, int], bool]) -> bool:
    """Do it for one run; trouble fails its attempt and nothing else."""
    try:
        return act(workplace, run_id)
    except (BackendUnavailable, DatabaseUnreachable) as error:
        _log.warning("not now, tried again when the lease is over", run=run_id, error=str(error))
    except (CcatError, OSError) as error:
        passes = isinstance(error, OSError) or error.transient
        kind = FailureClass.INFRASTRUCTURE if passes else FailureClass.CONFIGURATION
        _fail(workplace, run_id, Failure(kind, str(error)))
    return False


def _fail(workplace: Workplace, run_id: int, failure: Failure) -> None:
    with workplace.database.transaction() as session:
        attempt = _current(session, run_id)
        if attempt is not None:
            fail_attempt(session, attempt, failure, now=datetime.now(UTC), by=workplace.name)
    _log.warning("attempt failed before its job ran", run=run_id, failure=failure.kind, cause=failure.cause)


def _current(session: Session, run_id: int) -> models.RunAttempt | None:
    """The attempt to work on; None where the run has moved on."""
    attempts = current_attempts(session, _Run.id == run_id, _Run.status == RunStatus.STAGING_DATA)
    return attempts[0] if attempts else None


def _read(workplace: Workplace, run_id: int) -> tuple[models.RunAttempt, Description] | None:
    with workplace.database.transaction() as session:
        attempt = _current(session, run_id)
        return (attempt, describe(session, attempt, base=workplace.base)) if attempt else None


def _prepare(workplace: Workplace, run_id: int) -> bool:
    found = _read(workplace, run_id)
    if found is None:
        return False
    attempt, description = found
    _require_released_code(attempt.run.software_version)
    try:
        prepare(description.execution, inputs=description.inputs, manifest=description.manifest)
    except AttemptHasStarted:
        _log.info("its job has started already and is adopted", run=run_id)
    except InputChanged as error:
        _distrust(workplace, description.copies[error.label], error)
        raise
    _record_prepared(workplace, attempt)
    return True


def _record_prepared(workplace: Workplace, attempt: models.RunAttempt) -> None:
    with workplace.database.transaction() as session:
        mark = sa.update(models.RunAttempt).where(models.RunAttempt.id == attempt.id)
        session.execute(mark.values(prepared_at=datetime.now(UTC)))
        release(session, _Run, [attempt.run_id])
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, PREPARED)))


def _require_released_code(version: models.ReductionSoftwareVersion) -> None:
    if version.environment_prefix is None or version.distribution is None:
        return
    installed = installed_distribution(Path(version.environment_prefix), version.distribution)
    if code_digest(installed) != version.content_digest:
        raise SoftwareChanged(f"{version.reduction_software.name} {version.version}", version.environment_prefix)


def _distrust(workplace: Workplace, copy_id: int, error: InputChanged) -> None:
    """Take a copy that is not what was recorded out of use, so that the next attempt gets a new one."""
    with workplace.database.transaction() as session:
        advance(
            session,
            models.PhysicalCopy,
            [copy_id],
            to=PhysicalCopyStatus.CORRUPT,
            because=str(error),
            by=workplace.name,
        )


def _submit(workplace: Workplace, run_id: int) -> bool:
    found = _read(workplace, run_id)
    if found is None:
        return False
    attempt, description = found
    backend = workplace.backends[attempt.run.data_location_id]
    job_id = backend.submit(description.job)
    if _record(workplace, attempt, description, job_id=job_id):
        return True
    backend.cancel([job_id])
    return False


def _record(workplace: Workplace, attempt: models.RunAttempt, description: Description, *, job_id: str) -> bool:
    with workplace.database.transaction() as session:
        moved = advance(
            session,
            _Run,
            [attempt.run_id],
            to=RunStatus.SUBMITTED,
            because=f"attempt {attempt.number} is job {job_id}",
            by=workplace.name,
            values={"claimed_by": None, "lease_until": None},
        )
        if moved:
            session.execute(
                sa.update(models.RunAttempt)
                .where(models.RunAttempt.id == attempt.id)
                .values(
                    job_id=job_id,
                    submitted_at=datetime.now(UTC),
                    command=list(description.job.command),
                    environment=dict(description.job.environment),
                )
            )
    return bool(moved)
