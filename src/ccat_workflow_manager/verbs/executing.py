"""STAGING_DATA → SUBMITTED: directories and manifest, then the job; what a worker does at its location.

Of many runs at once only what is outside is done for each by itself: the rows of all are read and written together.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.hiding import seal
from ccat_ops_db.session import DatabaseUnreachable
from ccat_ops_db.sets import Brought, is_among
from ccat_ops_db.states import FailureClass, PhysicalCopyStatus, RunStatus
from ccat_service.logging import StructuredLogger
from ccat_service.spaces import require_mounted, told, try_to_write
from ccat_workflow_manager.execution.durable import alone
from ccat_workflow_manager.execution.prepare import AttemptHasStarted, InputChanged, prepare
from ccat_workflow_manager.hpc.base import BackendUnavailable, Bundling, JobRefused, JobSpec
from ccat_workflow_manager.hpc.images.errors import ImageAwaited
from ccat_workflow_manager.plan.bundles import in_bundles
from ccat_workflow_manager.verbs.bundling import open_bundle, record_bundle
from ccat_workflow_manager.verbs.describing import (
    current_attempts,
    describe,
    execution_of,
    image_of,
    job_of,
    root_of,
    run_directory,
)
from ccat_workflow_manager.verbs.failing import Failure, fail_attempt
from ccat_workflow_manager.verbs.inputs import RunInputs, inputs_of
from ccat_workflow_manager.verbs.released import ReleasedCode
from ccat_workflow_manager.verbs.workplace import (
    Workplace,
    current_attempt,
    lock_current,
    note,
    still_current,
    together_or_alone,
)

_Run = models.ExecutedReductionStep
_Attempt = models.RunAttempt
_log = StructuredLogger(__name__)

_FOLLOWED: Final = (RunStatus.SUBMITTED, RunStatus.RUNNING, RunStatus.COLLECTING_RESULTS, RunStatus.COMPLETED)
_WRITES: Final = {"synchronize_session": False}
_AT: Final = sa.bindparam("at", type_=sa.TIMESTAMP(timezone=True))
_JOBS: Final = Brought("jobs", command=JSONB(), environment=JSONB())
_PREPARE: Final = (
    sa.update(_Attempt)
    .where(_Attempt.id == _JOBS.c.id)
    .values(prepared_at=_AT, command=_JOBS.c.command, environment=_JOBS.c.environment)
)
_IDS: Final = Brought("jobs", job_id=sa.Text())
_SUBMIT: Final = sa.update(_Attempt).where(_Attempt.id == _IDS.c.id).values(job_id=_IDS.c.job_id, submitted_at=_AT)
_TOLD: Final = Brought("told", because=sa.Text())
Result = TypeVar("Result")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Prepared:
    """An attempt whose job may be handed in."""

    attempt: models.RunAttempt
    job: JobSpec


@dataclass(frozen=True)
class _HandedIn:
    """An attempt whose job the backend has."""

    attempt: models.RunAttempt
    job_id: str


def hand_in_attempts(workplace: Workplace, run_ids: Sequence[int]) -> list[int]:
    """Prepare the current attempts of STAGING_DATA runs and submit them at once; the runs that are SUBMITTED now.

    The job's name was committed with the attempt: a job that an earlier, interrupted try handed in is adopted.
    """
    return together_or_alone(run_ids, partial(_hand_in_all, workplace), give_up=partial(_give_up, workplace))


def _hand_in_all(workplace: Workplace, run_ids: Sequence[int]) -> list[int]:
    with ExitStack() as locks:
        taken = take(workplace, run_ids, locks)
        known, anew = _look_for(workplace, taken.before)
        return _submit_all(workplace, known, prepare_all(workplace, [*taken.fresh, *anew]))


@dataclass(frozen=True)
class Taken:
    """Attempts that are to be handed in and that no other worker is at."""

    fresh: Sequence[models.RunAttempt]
    before: Sequence[models.RunAttempt]
    """Those that were prepared before: their jobs may exist."""


def take(workplace: Workplace, run_ids: Sequence[int], locks: ExitStack) -> Taken:
    """Find what is to be handed in; nobody else will be at it until the locks go."""
    with workplace.database.transaction() as session:
        found = current_attempts(session, run_ids, RunStatus.STAGING_DATA)
    wanted = [one for one in found if not one.run.is_to_be_cancelled]
    ours = [one for one in wanted if _scoped(workplace, one, partial(_lock, workplace, locks))]
    with workplace.database.transaction() as session:  # others may have been at them just before
        current = lock_current(session, ours, RunStatus.STAGING_DATA)
    left = [one for one in ours if one.id in current]
    before = [one for one in left if current[one.id] is not None]
    return Taken([one for one in left if current[one.id] is None], before)


def _lock(workplace: Workplace, locks: ExitStack, attempt: models.RunAttempt) -> bool:
    require_mounted(root_of(attempt.run, base := workplace.base_of(attempt.run)))
    return locks.enter_context(alone(run_directory(attempt.run, base).lock))


def _look_for(
    workplace: Workplace, attempts: Sequence[models.RunAttempt]
) -> tuple[list[Prepared], list[models.RunAttempt]]:
    """Attempts whose jobs the backends have, and those that have none: who prepared these may have crashed."""
    known, anew = list[Prepared](), list[models.RunAttempt]()
    for here in _by_location(attempts, lambda one: one.run).values():
        try:
            names = workplace.backend_of(here[0].run).find([one.job_name for one in here])
        except (BackendUnavailable, OSError) as error:
            _wait(workplace, [one.run_id for one in here], str(error))
            continue
        known += [_prepared(workplace, one) for one in here if one.job_name in names]
        anew += [one for one in here if one.job_name not in names]
    return known, anew


def _by_location(found: Iterable[Item], run_of: Callable[[Item], _Run]) -> Mapping[int, Sequence[Item]]:
    by_location = defaultdict[int, list[Item]](list)
    for one in found:
        by_location[run_of(one).data_location_id].append(one)
    return by_location


def _prepared(workplace: Workplace, attempt: models.RunAttempt) -> Prepared:
    return Prepared(attempt, job_of(attempt, execution_of(attempt, place=workplace.place_of(attempt.run))))


def prepare_all(workplace: Workplace, attempts: Sequence[models.RunAttempt]) -> list[Prepared]:
    """Make the directories of attempts that were taken, and return those that are to be submitted now."""
    if not attempts:
        return []
    code = ReleasedCode()
    with workplace.database.transaction() as session:  # one of its own: of many inputs this takes a while
        inputs = inputs_of(session, [one.run_id for one in attempts])
    found = [
        _scoped(workplace, one, lambda it: _prepare(workplace, code, it, inputs=inputs[it.run_id])) for one in attempts
    ]
    prepared = [one for one in found if one is not None]
    return _mark_prepared(workplace, prepared) if prepared else []


def _submit_all(workplace: Workplace, known: Sequence[Prepared], prepared: Sequence[Prepared]) -> list[int]:
    """Hand in what the backends do not have yet, adopt what they have, and record all of it."""
    handed_in = list[_HandedIn]()
    for here in _by_location(prepared, lambda one: one.attempt.run).values():
        handed_in += _submit_to(workplace, here)
    for here in _by_location(known, lambda one: one.attempt.run).values():
        handed_in += _submit_each(workplace, here)
    return _record(workplace, handed_in) if handed_in else []


def _scoped(
    workplace: Workplace, attempt: models.RunAttempt, act: Callable[[models.RunAttempt], Result]
) -> Result | None:
    """Do something outside for one attempt; trouble fails it and nothing else, and that of its location not even it."""
    try:
        return act(attempt)
    except (BackendUnavailable, DatabaseUnreachable):
        raise
    except OSError as error:
        _wait_or_fail(workplace, attempt, error)
    except ImageAwaited as error:
        _wait(workplace, [attempt.run_id], str(error))
    except CcatError as error:
        kind = FailureClass.INFRASTRUCTURE if error.transient else FailureClass.CONFIGURATION
        _fail_unless_handed_in(workplace, attempt, Failure(kind, str(error)))
    return None


def _wait_or_fail(workplace: Workplace, attempt: models.RunAttempt, met: OSError) -> None:
    """Leave a run where it is while nothing can be written at its location; what only it meets fails its attempt."""
    base = workplace.base_of(attempt.run)
    try:
        try_to_write(root_of(attempt.run, base), base)
    except OSError as error:
        _wait(workplace, [attempt.run_id], f"its location {told(error)}")
    else:
        _fail_unless_handed_in(workplace, attempt, Failure(FailureClass.INFRASTRUCTURE, str(met)))


def _prepare(workplace: Workplace, code: ReleasedCode, attempt: models.RunAttempt, *, inputs: RunInputs) -> Prepared:
    code.require(attempt.run.software_version)
    place, image = workplace.place_of(attempt.run), image_of(attempt.run)
    found = describe(attempt, inputs, place=place)
    if image and place.containers:
        place.containers.cache.require(image)
    try:
        prepare(found.execution, inputs=found.inputs, manifest=found.manifest)
    except AttemptHasStarted:
        _log.info("its job has started already and is adopted", run=attempt.run_id)
    except InputChanged as error:
        _distrust(workplace, found.copies[error.label], error)
        raise
    return Prepared(attempt, job_of(attempt, found.execution))


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


def _mark_prepared(workplace: Workplace, prepared: Sequence[Prepared]) -> list[Prepared]:
    """Write down that their jobs may exist from now on, and what these are; those that are still to be handed in."""
    with workplace.database.transaction() as session:
        current = lock_current(session, [one.attempt for one in prepared], RunStatus.STAGING_DATA)
        wanted = [one for one in prepared if one.attempt.id in current]
        told = _JOBS.rows(
            [one.attempt.id for one in wanted],
            command=[one.job.command for one in wanted],
            environment=[seal(one.job.environment) for one in wanted],
        )
        session.execute(_PREPARE, {**told.parameters, "at": datetime.now(UTC)}, execution_options=_WRITES)
        run_ids = [one.attempt.run_id for one in wanted if one.attempt.run.waiting_for is not None]
        if run_ids:
            session.execute(sa.update(_Run).where(is_among(_Run.id, run_ids)).values(waiting_for=None))
    return wanted


def _submit_to(workplace: Workplace, prepared: Sequence[Prepared]) -> list[_HandedIn]:
    """Hand in attempts at one location, together where its backend takes them so."""
    backend = workplace.backend_of(prepared[0].attempt.run)
    if not isinstance(backend, Bundling):
        return _submit_each(workplace, prepared)
    by_name = {one.job.name: one for one in prepared}
    jobs = [(one.attempt.run.step_revision_id, one.job) for one in prepared]
    handed_in = list[_HandedIn]()
    for names in in_bundles(jobs, most=backend.bundle_size, longest=backend.longest_bundled):
        handed_in += _submit_bundle(workplace, backend, [by_name.pop(name) for name in names])
    return [*handed_in, *_submit_each(workplace, list(by_name.values()))]


def _submit_bundle(workplace: Workplace, backend: Bundling, prepared: Sequence[Prepared]) -> list[_HandedIn]:
    """Hand in attempts as one; where that is refused, each is by itself, as one of them may be the reason."""
    with workplace.database.transaction() as session:
        bundle_id, name = open_bundle(session, [one.attempt for one in prepared])
    try:
        ids = backend.submit_bundle(name, [one.job for one in prepared])
    except (JobRefused, OSError) as error:
        _log.warning("jobs cannot be handed in together, trying them one by one", error=str(error), bundle=name)
        return _submit_each(workplace, prepared)
    except BackendUnavailable as error:
        _wait(workplace, [one.attempt.run_id for one in prepared], str(error))
        return []
    with workplace.database.transaction() as session:
        record_bundle(session, bundle_id)
    return [_HandedIn(one.attempt, ids[one.job.name]) for one in prepared]


def _submit_each(workplace: Workplace, prepared: Sequence[Prepared]) -> list[_HandedIn]:
    """Hand in attempts at one location one by one; where its backend does not answer, they wait."""
    handed_in = list[_HandedIn]()
    try:
        for one in prepared:
            done = _scoped(workplace, one.attempt, partial(_hand_in, workplace, one.job))
            handed_in += [done] if done else []
    except BackendUnavailable as error:
        done_with = {one.attempt.id for one in handed_in}
        _wait(workplace, [one.attempt.run_id for one in prepared if one.attempt.id not in done_with], str(error))
    return handed_in


def _hand_in(workplace: Workplace, job: JobSpec, attempt: models.RunAttempt) -> _HandedIn:
    return _HandedIn(attempt, workplace.backend_of(attempt.run).submit(job))


def _record(workplace: Workplace, handed_in: Sequence[_HandedIn]) -> list[int]:
    """Write down which jobs attempts are; jobs that nobody follows are cancelled. The runs that are SUBMITTED now."""
    with workplace.database.transaction() as session:
        current = lock_current(session, [one.attempt for one in handed_in], RunStatus.STAGING_DATA)
        recorded = [one for one in handed_in if one.attempt.id in current]
        jobs = _IDS.rows([one.attempt.id for one in recorded], job_id=[one.job_id for one in recorded])
        session.execute(_SUBMIT, {**jobs.parameters, "at": datetime.now(UTC)}, execution_options=_WRITES)
        run_ids = [one.attempt.run_id for one in recorded]
        told = _TOLD.rows(run_ids, because=[f"attempt {one.attempt.number} is job {one.job_id}" for one in recorded])
        submitted = advance(
            session,
            _Run,
            run_ids,
            to=RunStatus.SUBMITTED,
            because=_TOLD.c.because,
            by=workplace.name,
            values={"waiting_for": None, "claimed_by": None, "lease_until": None},
            listed=told,
        )
    _cancel_superfluous(workplace, [one for one in handed_in if one.attempt.id not in current])
    return submitted


def _cancel_superfluous(workplace: Workplace, handed_in: Sequence[_HandedIn]) -> None:
    """Cancel jobs that nobody follows; another worker may have recorded some meanwhile."""
    for one in handed_in:
        with workplace.database.transaction() as session:
            is_followed = any(still_current(session, one.attempt, status) for status in _FOLLOWED)
        if not is_followed:
            workplace.backend_of(one.attempt.run).cancel([one.job_id])


def _give_up(workplace: Workplace, run_id: int, error: Exception) -> None:
    """Fail an attempt that met a defect of ours: told again for ever, it would fail for ever."""
    with workplace.database.transaction() as session:
        attempt = current_attempt(session, run_id, RunStatus.STAGING_DATA)
    if attempt is not None:
        _fail_unless_handed_in(workplace, attempt, Failure(FailureClass.CONFIGURATION, workplace.unexpected(error)))


def _fail_unless_handed_in(workplace: Workplace, attempt: models.RunAttempt, failure: Failure) -> None:
    """Fail an attempt, unless its backend has its job already, or cannot be asked: then it is followed by and by."""
    try:
        is_handed_in = bool(workplace.backend_of(attempt.run).find([attempt.job_name]))
    except (BackendUnavailable, OSError) as error:
        _wait(workplace, [attempt.run_id], f"{failure.cause}; {error}")
        return
    if is_handed_in:
        _wait(workplace, [attempt.run_id], f"its job is handed in, but cannot be recorded: {failure.cause}")
        return
    _fail(workplace, attempt, failure)


def _wait(workplace: Workplace, run_ids: Collection[int], why: str) -> None:
    """Leave runs where they are, with the reason; they are told again when their lease is over."""
    _log.warning("not now, tried again when the lease is over", runs=sorted(run_ids), error=why)
    with workplace.database.transaction() as session:
        note(session, run_ids, why, where=_Run.status == RunStatus.STAGING_DATA)


def _fail(workplace: Workplace, attempt: models.RunAttempt, failure: Failure) -> None:
    expected = RunStatus.STAGING_DATA
    with workplace.database.transaction() as session:
        current = still_current(session, attempt, expected)
        if current is not None:
            fail_attempt(session, current, failure, expected=[expected], now=datetime.now(UTC), by=workplace.name)
    _log.warning("attempt failed before its job ran", run=attempt.run_id, failure=failure.kind, cause=failure.cause)
