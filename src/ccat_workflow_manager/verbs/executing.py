"""STAGING_DATA → SUBMITTED: directories and manifest, then the job; what a worker does at its location."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.claims import release
from ccat_ops_db.distributions import code_digest, installed_distribution
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import CHANNEL, advance
from ccat_ops_db.plan.hiding import seal
from ccat_ops_db.session import DatabaseUnreachable
from ccat_ops_db.states import FailureClass, PhysicalCopyStatus, RunStatus
from ccat_service.logging import StructuredLogger
from ccat_service.retries import first_line
from ccat_service.trouble import is_transient
from ccat_workflow_manager.execution.durable import alone
from ccat_workflow_manager.execution.prepare import AttemptHasStarted, InputChanged, prepare
from ccat_workflow_manager.hpc.base import BackendUnavailable, JobSpec
from ccat_workflow_manager.verbs.describing import Description, describe, job_of, run_directory
from ccat_workflow_manager.verbs.failing import Failure, fail_attempt
from ccat_workflow_manager.verbs.workplace import Workplace, current_attempt, note, still_current

_Run = models.ExecutedReductionStep
_log = StructuredLogger(__name__)

_FOLLOWED: Final = (RunStatus.SUBMITTED, RunStatus.RUNNING, RunStatus.COLLECTING_RESULTS, RunStatus.COMPLETED)
PREPARED: Final = "run_attempt:prepared"
"""Payload of the wake-up that follows a prepared attempt."""


class SoftwareChanged(CcatError):
    """The environment of a released version no longer holds what was released."""

    code = "software_changed"
    transient = True

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
    """Do it for one run, unless another worker is at it; trouble fails its attempt and nothing else."""
    with workplace.database.transaction() as session:
        attempt = current_attempt(session, run_id, RunStatus.STAGING_DATA)
    if attempt is None or attempt.run.is_to_be_cancelled:
        return False
    try:
        with alone(run_directory(attempt.run, workplace.base_of(attempt.run)).lock) as is_alone:
            return is_alone and act(workplace, run_id)
    except BackendUnavailable as error:
        _wait(workplace, run_id, str(error))
    except DatabaseUnreachable as error:
        _log.warning("not now, tried again when the lease is over", run=run_id, error=str(error))
    except (CcatError, OSError) as error:
        passes = isinstance(error, OSError) or error.transient
        kind = FailureClass.INFRASTRUCTURE if passes else FailureClass.CONFIGURATION
        _fail_unless_handed_in(workplace, attempt, Failure(kind, str(error)))
    except Exception as error:
        if is_transient(error):
            raise
        # Told again for ever, it would fail for ever.
        _log.exception("an attempt met a defect of ours", error, run=run_id)
        cause = f"unexpected {type(error).__name__}: {first_line(error)}; the log of {workplace.name} has the rest"
        _fail_unless_handed_in(workplace, attempt, Failure(FailureClass.CONFIGURATION, cause))
    return False


def _fail_unless_handed_in(workplace: Workplace, attempt: models.RunAttempt, failure: Failure) -> None:
    """Fail an attempt, unless its backend has its job already, or cannot be asked: then it is followed by and by."""
    backend = workplace.backends[attempt.run.data_location_id]
    try:
        is_handed_in = bool(backend.find([attempt.job_name]))
    except (BackendUnavailable, OSError) as error:
        _wait(workplace, attempt.run_id, f"{failure.cause}; {error}")
        return
    if is_handed_in:
        _wait(workplace, attempt.run_id, f"its job is handed in, but cannot be recorded: {failure.cause}")
        return
    _fail(workplace, attempt, failure)


def _wait(workplace: Workplace, run_id: int, why: str) -> None:
    """Leave a run where it is, with the reason; it is told again when its lease is over."""
    _log.warning("not now, tried again when the lease is over", run=run_id, error=why)
    with workplace.database.transaction() as session:
        note(session, [run_id], why, where=_Run.status == RunStatus.STAGING_DATA)


def _fail(workplace: Workplace, attempt: models.RunAttempt, failure: Failure) -> None:
    expected = RunStatus.STAGING_DATA
    with workplace.database.transaction() as session:
        current = still_current(session, attempt, expected)
        if current is not None:
            fail_attempt(session, current, failure, expected=[expected], now=datetime.now(UTC), by=workplace.name)
    _log.warning("attempt failed before its job ran", run=attempt.run_id, failure=failure.kind, cause=failure.cause)


def _read(workplace: Workplace, run_id: int) -> tuple[models.RunAttempt, Description] | None:
    with workplace.database.transaction() as session:
        attempt = current_attempt(session, run_id, RunStatus.STAGING_DATA)
        return (attempt, describe(session, attempt, base=workplace.base_of(attempt.run))) if attempt else None


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
        session.execute(sa.update(_Run).where(_Run.id == attempt.run_id).values(waiting_for=None))
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
    with workplace.database.transaction() as session:
        attempt = current_attempt(session, run_id, RunStatus.STAGING_DATA)
    if attempt is None:
        return False
    backend = workplace.backends[attempt.run.data_location_id]
    job = job_of(attempt, base=workplace.base_of(attempt.run))
    if not backend.find([job.name]) and _read(workplace, run_id) is None:  # raises InputGone where an input is lost
        return False
    job_id = backend.submit(job)
    if _record(workplace, attempt, job, job_id=job_id):
        return True
    if _is_superfluous(workplace, attempt):
        backend.cancel([job_id])
    return False


def _record(workplace: Workplace, attempt: models.RunAttempt, job: JobSpec, *, job_id: str) -> bool:
    """Write down that the attempt is this job; False where the run does not wait for it any more."""
    with workplace.database.transaction() as session:
        current = still_current(session, attempt, RunStatus.STAGING_DATA)
        if current is None:
            return False
        current.job_id = job_id
        current.submitted_at = datetime.now(UTC)
        current.command = list(job.command)
        current.environment = seal(job.environment)
        advance(
            session,
            _Run,
            [attempt.run_id],
            to=RunStatus.SUBMITTED,
            because=f"attempt {attempt.number} is job {job_id}",
            by=workplace.name,
            values={"waiting_for": None, "claimed_by": None, "lease_until": None},
        )
    return True


def _is_superfluous(workplace: Workplace, attempt: models.RunAttempt) -> bool:
    """Whether nobody follows the attempt's job: another worker may have recorded it meanwhile."""
    with workplace.database.transaction() as session:
        return not any(still_current(session, attempt, status) for status in _FOLLOWED)
