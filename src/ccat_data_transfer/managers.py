from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer import archives, plan, retention
from ccat_data_transfer.queues import queue_of
from ccat_data_transfer.rounds import carefully
from ccat_data_transfer.tasks import task_name
from ccat_data_transfer.verbs.attempts import LEASE
from ccat_data_transfer.verbs.outcomes import NOUNS, recover_lost
from ccat_data_transfer.verbs.planning import next_quiet, plan_packages, unpacked_files
from ccat_data_transfer.verbs.products.aiming import aim
from ccat_data_transfer.verbs.products.repairing import repair
from ccat_data_transfer.verbs.readdressing import readdress
from ccat_data_transfer.verbs.retaining import next_deletion_moment
from ccat_data_transfer.verbs.scheduling import LANES, Lane, next_moment, schedule_next, waiting
from ccat_data_transfer.verbs.scrubbing import next_look_at_archives
from ccat_data_transfer.verbs.shipping import next_shipment, ship
from ccat_data_transfer.verbs.unplanned import forget_trouble, note_trouble
from ccat_data_transfer.verbs.unserved import tell_unserved
from ccat_ops_db import models
from ccat_ops_db.session import in_transaction
from ccat_ops_db.states import Status
from ccat_ops_db.verbs.staging import cancel_unwanted
from ccat_service.logging import StructuredLogger
from ccat_service.loop import Manager
from ccat_service.orphans import LOST
from ccat_service.retries import first_line
from ccat_service.tasks import CeleryTask, TaskApp
from ccat_service.trouble import is_transient

_MAY_GIVE_WORK: Final = (Status.PENDING, Status.COMPLETED, Status.FAILED, Status.CANCELLED)
WAKES_ON: Final = (
    "executed_obs_unit:ended",
    "executed_reduction_step:cancelled",
    "physical_copy:present",
    "physical_copy:corrupt",
    "physical_copy:missing",
    "raw_data_package:waiting",
    "raw_data_package:failed",
    *(f"{noun.__tablename__}:{status}" for noun in NOUNS for status in (*_MAY_GIVE_WORK, LOST)),
    *retention.WAKES_ON,
)
"""A transfer that ends, in any way, makes room for the next one."""

_BATCHES_PER_ROUND: Final = 4
"""Of scans and modules: others get on meanwhile."""

_log = StructuredLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TransferContext:
    """What the transfer-manager needs."""

    engine: sa.Engine
    app: TaskApp
    name: str
    """Shown in the history of whatever it moves; different for each manager."""
    quiet_period: timedelta = plan.QUIET_PERIOD
    package_limit_bytes: int = plan.PACKAGE_LIMIT_BYTES
    outstanding: int = 16
    """Transfers that may be under way at one location."""
    lease: timedelta = LEASE


def transfer_manager(context: TransferContext) -> Manager[TransferContext]:
    """The manager that packs what instruments registered, moves and archives it, stages it, and makes room."""
    return Manager(name="transfer-manager", context=context, tick=tick, wakes_on=WAKES_ON, due=due)


def tick(context: TransferContext) -> int:
    """Recover what was lost, plan packages, schedule what may go on, and delete what may go; how much that was."""
    by, here = context.name, context.engine
    done = _recover(context) + carefully(here, partial(cancel_unwanted, by=by)) + _plan(context)
    done += sum(carefully(here, partial(step, by=by)) for step in (readdress, ship, aim))
    done += carefully(here, repair)
    done += sum(_schedule(context, lane) for lane in LANES)
    carefully(here, _tell_unserved)
    done += archives.tend(context.engine, context.app, by=context.name)
    return done + retention.tend(context.engine, context.app, by=context.name, lease=context.lease)


def due(context: TransferContext) -> datetime | None:
    """When the next quiet period, pause or lease ends, a transfer package has waited, or a location is looked at."""

    def look(session: Session) -> datetime | None:
        now = session.scalars(sa.select(sa.func.clock_timestamp())).one()
        moments = (next_shipment(session), next_deletion_moment(session), next_look_at_archives(session))
        quiet = next_quiet(session, context.quiet_period)
        ends = [quiet, *(next_moment(session, noun) for noun in NOUNS), *moments]
        return min((end for end in ends if end is not None and end > now), default=None)

    return in_transaction(context.engine, look)


def _tell_unserved(session: Session) -> int:
    tell_unserved(session)
    return 0  # nothing is done by that


def _recover(context: TransferContext) -> int:
    return sum(carefully(context.engine, partial(recover_lost, noun=noun, by=context.name)) for noun in NOUNS)


def _plan(context: TransferContext) -> int:
    found = in_transaction(context.engine, unpacked_files)
    quiet = context.quiet_period
    ready = (files for files in found.groups if plan.is_time_to_pack(files, now=found.now, quiet_period=quiet))
    made = (number for batch in plan.batches(ready) if (number := _plan_batch(context, batch)))
    return sum(islice(made, _BATCHES_PER_ROUND))


def _plan_batch(context: TransferContext, groups: Sequence[plan.Group]) -> int:
    """Plan the packages of scans and modules; the trouble of one does not keep the others waiting."""

    def work(session: Session) -> int:
        made = plan_packages(session, groups, limit_bytes=context.package_limit_bytes)
        forget_trouble(session, groups)
        return len(made)

    try:
        return in_transaction(context.engine, work)
    except Exception as error:
        if is_transient(error):
            raise
        if half := len(groups) // 2:
            return _plan_batch(context, groups[:half]) + _plan_batch(context, groups[half:])
        [(scan_id, module_id)] = groups
        _log.error("cannot plan packages", scan=str(scan_id), module=module_id, error=first_line(error))
        in_transaction(context.engine, partial(note_trouble, group=groups[0], error=error))
        return 0


def _schedule(context: TransferContext, lane: Lane) -> int:
    places = in_transaction(context.engine, partial(waiting, lane=lane, outstanding=context.outstanding))
    return sum(
        _schedule_one(context, lane, location_id) for location_id, number in places.items() for _ in range(number)
    )


def _schedule_one(context: TransferContext, lane: Lane, location_id: int) -> bool:
    """Send a message for one transfer: copies are long, so that idle workers should share them."""
    task: CeleryTask[int] = CeleryTask(context.app, task_name(lane.operation))

    def work(session: Session) -> bool:
        transfer_id = schedule_next(session, lane, location_id, by=context.name, lease=context.lease)
        if transfer_id is None:
            return False
        queue = queue_of(session.get_one(models.DataLocation, location_id), lane.operation)
        task.send_after_commit(session, [transfer_id], queue=queue)
        return True

    return in_transaction(context.engine, work)
