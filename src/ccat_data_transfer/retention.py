"""Retention's part of the transfer-manager's rounds."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.queues import Operation, queue_of
from ccat_data_transfer.rounds import carefully
from ccat_data_transfer.tasks import DISCARDING, task_name
from ccat_data_transfer.verbs.discarding import choose_damaged, choose_given_up, with_given_up
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
    """Recover what was lost, mark what is to go, and have it removed, and what was given up; how many that was."""
    recovered = carefully(engine, partial(recover_lost_deletions, by=by))
    looked_at = in_transaction(engine, locations_to_look_at)
    marked = sum(carefully(engine, partial(mark, location_id=one, by=by)) for one in looked_at)
    sent = partial(_send, app=app, by=by, lease=lease)
    scheduled = sum(carefully(engine, partial(sent, location_id=one)) for one in in_transaction(engine, with_deletions))
    removed = partial(_discard, app=app, choose=partial(choose_given_up, by=by, lease=lease))
    given_up = sum(
        carefully(engine, partial(removed, location_id=one)) for one in in_transaction(engine, with_given_up)
    )
    removed = partial(_discard, app=app, choose=partial(choose_damaged, by=by, lease=lease))
    damaged = sum(carefully(engine, partial(removed, location_id=one)) for one in looked_at)
    return recovered + marked + scheduled + given_up + damaged


def _send(session: Session, *, location_id: int, app: TaskApp, by: str, lease: timedelta) -> int:
    scheduled = schedule_deletions(session, location_id, by=by, lease=lease)
    return _tell(session, location_id, scheduled, task=CeleryTask(app, task_name(Operation.DELETION), batch=BATCH))


def _discard(session: Session, *, location_id: int, app: TaskApp, choose: Callable[[Session, int], list[int]]) -> int:
    task: CeleryTask[int] = CeleryTask(app, DISCARDING)
    if task.is_behind(queue_of(session.get_one(models.DataLocation, location_id), Operation.DELETION)):
        return 0  # perhaps nobody serves it
    return _tell(session, location_id, choose(session, location_id), task=task)


def _tell(session: Session, location_id: int, copy_ids: Sequence[int], *, task: CeleryTask[int]) -> int:
    """Have workers of a location do something about copies there, once the transaction is over; about how many."""
    if copy_ids:
        queue = queue_of(session.get_one(models.DataLocation, location_id), Operation.DELETION)
        task.send_after_commit(session, copy_ids, queue=queue)
    return len(copy_ids)
