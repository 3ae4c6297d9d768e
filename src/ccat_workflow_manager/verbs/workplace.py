from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.sets import is_among
from ccat_ops_db.states import RunStatus
from ccat_service.database import DatabaseConnection
from ccat_workflow_manager.hpc.base import Backend
from ccat_workflow_manager.verbs.describing import current_attempts

_Run = models.ExecutedReductionStep


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

    def base_of(self, run: _Run) -> Path:
        """Root of the run directories where a run is."""
        return self.bases[run.data_location_id]


def current_attempt(session: Session, run_id: int, status: RunStatus) -> models.RunAttempt | None:
    """The newest attempt of a run in this status; None where the run has moved on."""
    attempts = current_attempts(session, _Run.id == run_id, _Run.status == status)
    return attempts[0] if attempts else None


def still_current(session: Session, attempt: models.RunAttempt, status: RunStatus) -> models.RunAttempt | None:
    """The attempt as this session sees it, its run locked; None where the run has moved on, or has a newer attempt."""
    session.execute(sa.select(_Run.id).where(_Run.id == attempt.run_id).with_for_update())
    current = current_attempt(session, attempt.run_id, status)
    return current if current is not None and current.id == attempt.id else None


def note(session: Session, run_ids: Collection[int], waiting_for: str, *, where: sa.ColumnElement[bool]) -> None:
    """Write down why runs, as far as they are still so, do not go on; the next move of each takes it away."""
    runs = sa.update(_Run).where(is_among(_Run.id, run_ids), where, _Run.waiting_for.is_distinct_from(waiting_for))
    session.execute(runs.values(waiting_for=waiting_for))
