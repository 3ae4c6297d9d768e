"""COLLECTING_RESULTS → COMPLETED: what jobs made becomes products, each registered once."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.digests import NOT_INPUTS, made_digest
from ccat_ops_db.queries.validity import invalid_inputs
from ccat_ops_db.session import DatabaseUnreachable
from ccat_ops_db.sets import Brought
from ccat_ops_db.states import FailureClass, RunStatus
from ccat_ops_db.verbs.archiving import request_archiving_of
from ccat_service.logging import StructuredLogger
from ccat_workflow_manager.execution.collection import Collection, collect
from ccat_workflow_manager.execution.durable import alone
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.execution.products import Collected
from ccat_workflow_manager.verbs.describing import current_attempts, run_directory
from ccat_workflow_manager.verbs.failing import Failure, fail_attempt
from ccat_workflow_manager.verbs.invalidating import refuse_invalid
from ccat_workflow_manager.verbs.registering import Published, register, supersede
from ccat_workflow_manager.verbs.workplace import Workplace, lock_current, note, still_current, together_or_alone

_Run = models.ExecutedReductionStep
_PORTION: Final = timedelta(seconds=1)
"""After so long what is published is registered, and not kept back by what is not."""
_AT_ONCE: Final = 4
"""Runs whose products are published side by side."""
_TOLD: Final = Brought("told", because=sa.Text(), metrics=JSONB(), made_digest=sa.Text())
_COMPLETED: Final = {
    "metrics": _TOLD.c.metrics,
    "made_digest": _TOLD.c.made_digest,
    "failure": None,
    "failure_class": None,
    "waiting_for": None,
    "claimed_by": None,
    "lease_until": None,
}
_log = StructuredLogger(__name__)
Result = TypeVar("Result")


def collect_runs(workplace: Workplace, run_ids: Sequence[int]) -> list[int]:
    """Publish and register what COLLECTING_RESULTS runs made, and return those that are COMPLETED now.

    Trouble outside the software leaves a run where it is, to be collected again; the payload is never repeated for it.
    """
    return together_or_alone(run_ids, partial(_collect_all, workplace), give_up=partial(_give_up, workplace))


def _collect_all(workplace: Workplace, run_ids: Sequence[int]) -> list[int]:
    """Publish side by side, and register what is done from time to time: what is large does not keep it back."""
    with workplace.database.transaction() as session:
        attempts = current_attempts(session, run_ids, RunStatus.COLLECTING_RESULTS)
    completed: list[int] = []
    with ExitStack() as left, ThreadPoolExecutor(_AT_ONCE) as threads:  # the disk serves many as soon as one
        published: list[Future[tuple[Published, ExitStack] | None]] = []
        left.callback(_let_go, published)
        published.extend(threads.submit(_publish_alone, workplace, one) for one in attempts)
        pending = set(published)
        while pending:
            done, pending = wait(pending, timeout=_PORTION.total_seconds())
            completed += _register_portion(workplace, [found for one in done if (found := one.result()) is not None])
    return completed


def _let_go(published: Sequence[Future[tuple[Published, ExitStack] | None]]) -> None:
    """Let others be at what an error kept from being registered; of what was registered nothing is left to let go."""
    for one in published:
        found = None if one.exception() else one.result()
        if found is not None:
            found[1].close()


def _register_portion(workplace: Workplace, portion: Sequence[tuple[Published, ExitStack]]) -> list[int]:
    """Register what was published, and let others be at these runs again."""
    with ExitStack() as locks:
        for _, lock in portion:
            locks.push(lock)
        return _register(workplace, [published for published, _ in portion]) if portion else []


def _publish_alone(workplace: Workplace, attempt: models.RunAttempt) -> tuple[Published, ExitStack] | None:
    """Publish what an attempt made, unless another worker is at it; with the lock that keeps others from it."""
    with ExitStack() as lock:
        published = _scoped(workplace, attempt, lambda one: _publish(workplace, one, lock))
        return None if published is None else (published, lock.pop_all())


def _publish(workplace: Workplace, attempt: models.RunAttempt, lock: ExitStack) -> Published | None:
    layout = run_directory(attempt.run, workplace.base_of(attempt.run))
    layout.directory.stat()  # where its disk is not mounted it is not there: that is no failure of the software
    if not lock.enter_context(alone(layout.lock)):
        return None
    if layout.products.exists() and not _is_current(workplace, attempt):  # what is there may be of a later attempt
        return None
    return Published(attempt, layout, collect(_collection(attempt, layout)))


def _is_current(workplace: Workplace, attempt: models.RunAttempt) -> bool:
    with workplace.database.transaction() as session:
        return bool(lock_current(session, [attempt], RunStatus.COLLECTING_RESULTS))


def _scoped(
    workplace: Workplace, attempt: models.RunAttempt, act: Callable[[models.RunAttempt], Result]
) -> Result | None:
    try:
        return act(attempt)
    except DatabaseUnreachable:
        raise
    except CcatError as error:
        _refuse(workplace, attempt, error)
    except OSError as error:
        _log.warning("not collected, tried again when the lease is over", run=attempt.run_id, error=str(error))
        _tell(workplace, attempt.run_id, str(error))
    return None


def _give_up(workplace: Workplace, run_id: int, error: Exception) -> None:
    _tell(workplace, run_id, workplace.unexpected(error))


def _tell(workplace: Workplace, run_id: int, cause: str) -> None:
    """Say why a run is not collected: trouble with its files or a defect of ours, which no payload is repeated for."""
    with workplace.database.transaction() as session:
        why = f"its results cannot be collected ({cause}); tried again all the time"
        note(session, [run_id], why, where=_Run.status == RunStatus.COLLECTING_RESULTS)


def _collection(attempt: models.RunAttempt, layout: RunLayout) -> Collection:
    step = attempt.run.step_revision
    return Collection(
        run=layout,
        attempt=attempt.number,
        step_key=attempt.run.reduction_step.key,
        is_final=step.is_final,
        required_outputs=step.required_outputs,
    )


def _refuse(workplace: Workplace, attempt: models.RunAttempt, error: CcatError) -> None:
    """What the job made is not what its step must make: a failure of the software."""
    failure, expected = Failure(FailureClass.PAYLOAD, str(error), attempt.log_tail), RunStatus.COLLECTING_RESULTS
    with workplace.database.transaction() as session:
        current = still_current(session, attempt, expected)
        if current is not None:
            fail_attempt(session, current, failure, expected=[expected], now=datetime.now(UTC), by=workplace.name)


def _register(workplace: Workplace, published: Sequence[Published]) -> list[int]:
    """Register all products of runs and complete these, in one transaction; what is withdrawn meanwhile is refused."""
    with workplace.database.transaction() as session:
        invalid = invalid_inputs(session, [one.attempt.run_id for one in published])  # before any other lock
        current = lock_current(session, [one.attempt for one in published], RunStatus.COLLECTING_RESULTS)
        ours = [one for one in published if one.attempt.id in current]
        refuse_invalid(session, [one.attempt for one in ours], invalid, now=datetime.now(UTC), by=workplace.name)
        ours = [one for one in ours if one.attempt.run_id not in invalid]
        if not ours:
            return []
        supersede(session, [one.attempt.run for one in ours if not one.attempt.run.is_trial], by=workplace.name)
        register(session, ours, by=workplace.name)
        request_archiving_of(session, [one.attempt.run_id for one in ours])
        return _complete(session, ours, by=workplace.name)


def _complete(session: Session, published: Sequence[Published], *, by: str) -> list[int]:
    run_ids = [one.attempt.run_id for one in published]
    told = _TOLD.rows(
        run_ids,
        because=[f"products registered: {len(one.collected.products)}" for one in published],
        metrics=[one.collected.metrics for one in published],
        made_digest=[_made(one.attempt.run, one.collected) for one in published],
    )
    values = {**_COMPLETED, "finished_at": datetime.now(UTC)}
    because, to = _TOLD.c.because, RunStatus.COMPLETED
    return advance(session, _Run, run_ids, to=to, because=because, by=by, values=values, listed=told)


def _made(run: _Run, collected: Collected) -> str | None:
    """Digest of what steps further down can take."""
    products = ((one.path, one.checksum) for one in collected.products if one.type not in NOT_INPUTS)
    return made_digest(run.reduction_step_id, run.sub_group_key, products)
