from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.sets import is_among, is_given
from ccat_ops_db.states import RunStatus
from ccat_service.database import DatabaseConnection
from ccat_service.logging import StructuredLogger
from ccat_service.retries import first_line
from ccat_service.trouble import is_transient
from ccat_workflow_manager.hpc.base import Backend
from ccat_workflow_manager.hpc.images.containers import Containers
from ccat_workflow_manager.verbs.describing import Place, current_attempts

_Run = models.ExecutedReductionStep
_Attempt = models.RunAttempt
_LOCKED: Final = (
    sa.select(_Run.id)
    .where(is_given(_Run.id, "runs"), _Run.status == sa.bindparam("status", type_=_Run.status.type))
    .order_by(_Run.id)
    .with_for_update()
)
_NEWEST: Final = (
    sa.select(_Attempt.id, _Attempt.prepared_at)
    .where(is_given(_Attempt.run_id, "runs"))
    .ext(distinct_on(_Attempt.run_id))
    .order_by(_Attempt.run_id, _Attempt.number.desc())
)
_log = StructuredLogger(__name__)


@dataclass(frozen=True)
class Workplace:
    """What a worker needs to act at the processing locations that it serves."""

    database: DatabaseConnection
    backends: Mapping[int, Backend]
    """Backend of each location, by the location's id."""
    bases: Mapping[int, Path]
    """Root of the run directories of each location, by the location's id."""
    name: str
    """Signs what this worker moves."""
    containers: Mapping[int, Containers] = field(default_factory=dict)
    """How locations run images, by the location's id; the others run none."""

    def base_of(self, run: _Run) -> Path:
        """Root of the run directories where a run is."""
        return self.bases[run.data_location_id]

    def place_of(self, run: _Run) -> Place:
        """What the location of a run has for it."""
        return Place(self.base_of(run), self.containers.get(run.data_location_id))

    def backend_of(self, run: _Run) -> Backend:
        """Where the jobs of a run are."""
        return self.backends[run.data_location_id]

    def unexpected(self, error: Exception) -> str:
        """What people are told of a defect of ours."""
        return f"unexpected {type(error).__name__}: {first_line(error)}; the log of {self.name} has the rest"


def current_attempt(session: Session, run_id: int, status: RunStatus) -> models.RunAttempt | None:
    """The newest attempt of a run in this status; None where the run has moved on."""
    attempts = current_attempts(session, [run_id], status)
    return attempts[0] if attempts else None


def still_current(session: Session, attempt: models.RunAttempt, status: RunStatus) -> models.RunAttempt | None:
    """The attempt as this session sees it, its run locked; None where the run has moved on, or has a newer attempt."""
    return current_attempt(session, attempt.run_id, status) if lock_current(session, [attempt], status) else None


def lock_current(
    session: Session, attempts: Collection[models.RunAttempt], status: RunStatus
) -> Mapping[int, datetime | None]:
    """Lock the runs of attempts; those attempts whose runs have this status and no newer one, by id.

    With each goes when it was prepared: others may have been at it before.
    """
    wanted = {"runs": [one.run_id for one in attempts], "status": status}
    locked = session.scalars(_LOCKED, wanted).all()
    ours = {one.id for one in attempts}  # asked once more, as others had the locks until now
    newest = session.execute(_NEWEST, {"runs": locked})
    return {attempt_id: prepared_at for attempt_id, prepared_at in newest if attempt_id in ours}


def note(session: Session, run_ids: Collection[int], waiting_for: str, *, where: sa.ColumnElement[bool]) -> None:
    """Write down why runs, as far as they are still so, do not go on; the next move of each takes it away."""
    differs = _Run.waiting_for.is_distinct_from(waiting_for)
    locked = sa.select(_Run.id).where(is_among(_Run.id, run_ids), where, differs).order_by(_Run.id).with_for_update()
    session.execute(sa.update(_Run).where(_Run.id.in_(locked)).values(waiting_for=waiting_for))


def together_or_alone(
    run_ids: Sequence[int],
    act: Callable[[Sequence[int]], list[int]],
    *,
    give_up: Callable[[int, Exception], object],
) -> list[int]:
    """What `act` does for all runs at once; where one spoils that by a defect of ours, for one after the other."""
    try:
        return act(run_ids)
    except Exception as error:
        if is_transient(error):
            raise
        if len(run_ids) == 1:
            _log.exception("a run met a defect of ours", error, run=run_ids[0])
            give_up(run_ids[0], error)
            return []
        _log.warning("a batch of runs met a defect of ours, trying them one by one", error=first_line(error))
    return [done for run_id in run_ids for done in together_or_alone([run_id], act, give_up=give_up)]
