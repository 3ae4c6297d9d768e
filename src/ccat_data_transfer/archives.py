"""What the transfer-manager does about archives: enough copies of everything, each read again in time."""

from functools import partial

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.queues import Operation, queue_of
from ccat_data_transfer.rounds import carefully
from ccat_data_transfer.tasks import task_name
from ccat_data_transfer.verbs.closing import replace_lost
from ccat_data_transfer.verbs.products.repairing import archive_lost
from ccat_data_transfer.verbs.scrubbing import archives_to_look_at, due_for_scrubbing, look_again_soon
from ccat_data_transfer.verbs.surveying import look_through
from ccat_ops_db import models
from ccat_ops_db.session import in_transaction
from ccat_service.tasks import CeleryTask, TaskApp


def tend(engine: sa.Engine, app: TaskApp, *, by: str) -> int:
    """Look at the packages and the archives whose turn it is; how many copies are made or read for it."""
    asked = carefully(engine, partial(replace_lost, by=by)) + carefully(engine, partial(look_through, by=by))
    look = partial(_look, app=app)
    looks = (partial(look, location_id=one) for one in in_transaction(engine, archives_to_look_at))
    return asked + sum(carefully(engine, one) for one in looks)


def _look(session: Session, *, location_id: int, app: TaskApp) -> int:
    asked = len(archive_lost(session))
    task: CeleryTask[int] = CeleryTask(app, task_name(Operation.SCRUBBING))
    queue = queue_of(session.get_one(models.DataLocation, location_id), Operation.SCRUBBING)
    if task.is_behind(queue):  # what is told there is not read yet, and would only be told again
        look_again_soon(session, location_id)
        return asked
    chosen = due_for_scrubbing(session, location_id)
    task.send_after_commit(session, chosen, queue=queue)
    return asked + len(chosen)
