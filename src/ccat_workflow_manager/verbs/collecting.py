"""COLLECTING_RESULTS → COMPLETED: what a job made becomes products, each registered once."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.digests import NOT_INPUTS, made_digest
from ccat_ops_db.session import DatabaseUnreachable
from ccat_ops_db.states import FailureClass, PhysicalCopyStatus, ProductState, RunStatus
from ccat_service.logging import StructuredLogger
from ccat_service.retries import first_line
from ccat_service.trouble import is_transient
from ccat_workflow_manager.execution.collection import Collection, collect
from ccat_workflow_manager.execution.durable import alone
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.execution.products import Collected
from ccat_workflow_manager.verbs.describing import run_directory
from ccat_workflow_manager.verbs.failing import Failure, fail_attempt
from ccat_workflow_manager.verbs.workplace import Workplace, current_attempt, note, still_current

_Run = models.ExecutedReductionStep
_log = StructuredLogger(__name__)


def collect_runs(workplace: Workplace, run_ids: Sequence[int]) -> list[int]:
    """Publish and register what COLLECTING_RESULTS runs made, and return those that are COMPLETED now.

    Trouble outside the software leaves a run where it is, to be collected again; the payload is never repeated for it.
    """
    return [run_id for run_id in run_ids if _collect_in_its_own_scope(workplace, run_id)]


def _collect_in_its_own_scope(workplace: Workplace, run_id: int) -> bool:
    with workplace.database.transaction() as session:
        attempt = current_attempt(session, run_id, RunStatus.COLLECTING_RESULTS)
    if attempt is None:
        return False
    layout = run_directory(attempt.run, workplace.base_of(attempt.run))
    try:
        layout.directory.stat()  # where its disk is not mounted it is not there: that is no failure of the software
        with alone(layout.lock) as is_alone:
            return is_alone and _collect(workplace, attempt)
    except DatabaseUnreachable as error:
        _log.warning("not collected, tried again when the lease is over", run=run_id, error=str(error))
    except CcatError as error:
        _refuse(workplace, attempt, error)
    except Exception as error:
        if is_transient(error) and not isinstance(error, OSError):
            raise
        _tell(workplace, run_id, error)
    return False


def _tell(workplace: Workplace, run_id: int, error: Exception) -> None:
    """Say why a run is not collected: trouble with its files or a defect of ours, which no payload is repeated for."""
    if isinstance(error, OSError):
        _log.warning("not collected, tried again when the lease is over", run=run_id, error=str(error))
        cause = str(error)
    else:
        _log.exception("a collection met a defect of ours, tried again when the lease is over", error, run=run_id)
        cause = f"unexpected {type(error).__name__}: {first_line(error)}; the log of {workplace.name} has the rest"
    with workplace.database.transaction() as session:
        why = f"its results cannot be collected ({cause}); tried again all the time"
        note(session, [run_id], why, where=_Run.status == RunStatus.COLLECTING_RESULTS)


def _collect(workplace: Workplace, attempt: models.RunAttempt) -> bool:
    layout = run_directory(attempt.run, workplace.base_of(attempt.run))
    step = attempt.run.step_revision
    collected = collect(
        Collection(
            run=layout,
            attempt=attempt.number,
            step_key=attempt.run.reduction_step.key,
            is_final=step.is_final,
            required_outputs=step.required_outputs,
        )
    )
    with workplace.database.transaction() as session:
        current = still_current(session, attempt, RunStatus.COLLECTING_RESULTS)
        if current is None:
            return False
        _register(session, current, collected, layout=layout, by=workplace.name)
    return True


def _refuse(workplace: Workplace, attempt: models.RunAttempt, error: CcatError) -> None:
    """What the job made is not what its step must make: a failure of the software."""
    failure, expected = Failure(FailureClass.PAYLOAD, str(error), attempt.log_tail), RunStatus.COLLECTING_RESULTS
    with workplace.database.transaction() as session:
        current = still_current(session, attempt, expected)
        if current is not None:
            fail_attempt(session, current, failure, expected=[expected], now=datetime.now(UTC), by=workplace.name)


def _register(
    session: Session, attempt: models.RunAttempt, collected: Collected, *, layout: RunLayout, by: str
) -> None:
    """Register all products and complete the run, whose row is locked, in the caller's transaction."""
    if not attempt.run.is_trial:
        _supersede(session, attempt.run, by=by)
    products = _insert_products(session, attempt, collected)
    _insert_copies(session, attempt.run, products, layout=layout, by=by)
    advance(
        session,
        _Run,
        [attempt.run_id],
        to=RunStatus.COMPLETED,
        because=f"products registered: {len(collected.products)}",
        by=by,
        values={
            "finished_at": datetime.now(UTC),
            "metrics": collected.metrics,
            "made_digest": _made(attempt.run, collected),
            "failure": None,
            "failure_class": None,
            "waiting_for": None,
            "claimed_by": None,
            "lease_until": None,
        },
    )


def _made(run: _Run, collected: Collected) -> str | None:
    """Digest of what steps further down can take."""
    products = ((one.path, one.checksum) for one in collected.products if one.type not in NOT_INPUTS)
    return made_digest(run.reduction_step_id, run.sub_group_key, products)


def _supersede(session: Session, run: _Run, *, by: str) -> None:
    older = session.scalars(
        sa.select(models.DataProduct.id)
        .join(models.DataProduct.run)
        .where(
            _Run.reduction_step_id == run.reduction_step_id,
            _Run.sub_group_key == run.sub_group_key,
            _Run.id < run.id,
            models.DataProduct.state.in_([ProductState.CURRENT, ProductState.ORPHANED]),
        )
    ).all()
    advance(session, models.DataProduct, older, to=ProductState.SUPERSEDED, because=f"by run {run.id}", by=by)


def _insert_products(
    session: Session, attempt: models.RunAttempt, collected: Collected
) -> Sequence[sa.Row[int, str, int, str]]:
    product = models.DataProduct
    state = ProductState.TRIAL if attempt.run.is_trial else ProductState.CURRENT
    rows = [
        {
            "run_id": attempt.run_id,
            "run_attempt_id": attempt.id,
            "type": one.type,
            "state": state,
            "relative_path": one.path,
            "size_bytes": one.size_bytes,
            "checksum": one.checksum,
            "media_type": one.media_type,
            "description": one.description,
            "metadata_": one.metadata,
            "metrics": one.metrics,
        }
        for one in collected.products
    ]
    made = sa.insert(product).returning(product.id, product.relative_path, product.size_bytes, product.checksum)
    return session.execute(made, rows).all()


def _insert_copies(
    session: Session, run: _Run, products: Sequence[sa.Row[int, str, int, str]], *, layout: RunLayout, by: str
) -> None:
    location = run.location
    root = Path(location.path) if isinstance(location, models.DiskDataLocation) else layout.directory
    below = layout.products.relative_to(root)
    rows = [
        {
            "type": "data_product",
            "data_product_id": number,
            "data_location_id": location.id,
            "path": str(below / path),
            "size_bytes": size,
            "checksum": checksum,
            "verified_at": datetime.now(UTC),
        }
        for number, path, size, checksum in products
    ]
    copies = session.scalars(sa.insert(models.PhysicalCopy).returning(models.PhysicalCopy.id), rows).all()
    advance(session, models.PhysicalCopy, copies, to=PhysicalCopyStatus.PRESENT, because="collected", by=by)
