"""Retention's part of the transfer-manager's rounds."""

from datetime import timedelta
from functools import partial
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.queues import Operation, queue_of
from ccat_data_transfer.rounds import carefully
from ccat_data_transfer.tasks import task_name
from ccat_data_transfer.verbs.retaining import (
    BATCH,
    locations_to_look_at,
    mark,
    recover_lost_deletions,
    schedule_deletions,
    with_deletions,
)
from ccat_ops_db import models
from ccat_ops_db.session import in_transaction
from ccat_service.tasks import CeleryTask, TaskApp

WAKES_ON: Final = (
    "physical_copy:deleted",
    "physical_copy:deletion_failed",
    "physical_copy:lost",
    "data_location:retention",
)


def tend(engine: sa.Engine, app: TaskApp, *, by: str, lease: timedelta) -> int:
    """Recover what was lost, mark what is to go, and have it removed; how many copies that concerned."""
    recovered = carefully(engine, partial(recover_lost_deletions, by=by))
    marked = sum(
        carefully(engine, partial(mark, location_id=one, by=by)) for one in in_transaction(engine, locations_to_look_at)
    )
    sent = partial(_send, app=app, by=by, lease=lease)
    scheduled = sum(carefully(engine, partial(sent, location_id=one)) for one in in_transaction(engine, with_deletions))
    return recovered + marked + scheduled


def _send(session: Session, *, location_id: int, app: TaskApp, by: str, lease: timedelta) -> int:
    task: CeleryTask[int] = CeleryTask(app, task_name(Operation.DELETION), batch=BATCH)
    scheduled = schedule_deletions(session, location_id, by=by, lease=lease)
    if scheduled:
        queue = queue_of(session.get_one(models.DataLocation, location_id), Operation.DELETION)
        task.send_after_commit(session, scheduled, queue=queue)
    return len(scheduled)
