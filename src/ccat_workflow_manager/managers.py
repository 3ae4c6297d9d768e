"""The three managers: each tick is one bounded round on the database; messages go to workers after the commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from ccat_ops_db import models
from ccat_ops_db.cancelling import WISHED
from ccat_ops_db.claims import claim_one, claiming, is_free, renew
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.queries.limits import IS_ANYTHING_LIMITED, limits_now
from ccat_ops_db.queries.pauses import IS_ANYTHING_STOPPED
from ccat_ops_db.queries.spaces import IS_SHORT
from ccat_ops_db.sets import is_among, is_given
from ccat_ops_db.states import RunStatus
from ccat_ops_db.verbs.definitions import DEFINITIONS_APPLIED
from ccat_ops_db.verbs.limiting import LIMITS_CHANGED
from ccat_service.database import DatabaseConnection
from ccat_service.logging import StructuredLogger
from ccat_service.loop import Manager
from ccat_service.queues import workflow_queue
from ccat_service.tasks import CeleryTask
from ccat_service.trouble import is_transient
from ccat_workflow_manager.tasks import OBSERVATION, RESULTS, STAGING, SUBMISSION, Tasks
from ccat_workflow_manager.verbs.cancelling import locations_to_follow
from ccat_workflow_manager.verbs.claiming import claim_pending, note_stopped
from ccat_workflow_manager.verbs.failing import NEXT_RETRY, give_up_uncollected, retry_due_runs
from ccat_workflow_manager.verbs.limiting import note_held
from ccat_workflow_manager.verbs.queueing import IS_PENDING, has_status
from ccat_workflow_manager.verbs.spaces import has_space, note_short
from ccat_workflow_manager.verbs.staged import is_prepared, unstaged
from ccat_workflow_manager.verbs.starting import start_runs
from ccat_workflow_manager.verbs.triggering import (
    create_wanted_runs,
    look_at_everything,
    next_evaluation,
    pipelines_to_evaluate,
)
from ccat_workflow_manager.verbs.waiting_for_data import fail_unstaged_runs, note_staging

_Run, _Location = models.ExecutedReductionStep, models.DataLocation
_BATCH: Final = 200
_OUTSTANDING: Final = 400
"""Most runs that workers are told of at a time, for each thing that they do."""
_LEASE: Final = timedelta(seconds=5)
"""How long a worker may be silent about what it was told before it is told again; telling twice does no harm."""
_REST: Final = timedelta(seconds=2)
"""Pause before a run that could not start is looked at again, so that others get their turn."""
_log = StructuredLogger(__name__)

_HERE: Final = is_given(_Run.data_location_id, "places")
_IS_STAGING: Final = has_status(RunStatus.STAGING_DATA)
_IS_COLLECTING: Final = has_status(RunStatus.COLLECTING_RESULTS)
_LEASE_END: Final = sa.select(sa.func.min(_Run.lease_until)).where(_HERE, sa.not_(is_free(_Run)))
"""When the first run that a worker was told of, or that could not start, is looked at again."""
_TO_ADVANCE: Final = sa.select(
    sa.exists().where(IS_PENDING, _HERE),
    sa.exists().where(_IS_STAGING, _HERE),
    sa.exists().where(_IS_STAGING, _HERE, is_prepared()),
)
"""Whether runs are PENDING here, STAGING_DATA, and prepared: of many rounds most end with this question."""
_LEFT: Final = sa.select(
    sa.exists().where(_IS_STAGING, _HERE, unstaged()),
    sa.exists().where(is_given(_Location.id, "places"), IS_SHORT),
    sa.or_(IS_ANYTHING_LIMITED, IS_ANYTHING_STOPPED),
    _LEASE_END.where(has_status(RunStatus.PENDING, RunStatus.STAGING_DATA)).scalar_subquery(),
)
"""What may keep runs from going on: data, a disk, or somebody; and the end of the first lease."""
_TO_FOLLOW: Final = sa.select(sa.exists().where(_IS_COLLECTING, _HERE), NEXT_RETRY.scalar_subquery())
_COLLECTED_BY: Final = _LEASE_END.where(_IS_COLLECTING)


def _telling(which: sa.ColumnElement[bool]) -> ReturningUpdate[int, int]:
    """Statement that leases runs that workers can go on with, so that no more than `most` are told of at a time."""
    where = sa.and_(which, is_given(_Run.data_location_id, "places"))
    told = sa.select(sa.func.count()).select_from(_Run).where(where, sa.not_(is_free(_Run))).scalar_subquery()
    limit = sa.func.greatest(0, sa.bindparam("most", type_=sa.BigInteger()) - told)
    order = (_Run.queue_rank.asc(), _Run.is_redo.asc())
    return claiming(_Run, where=where, limit=limit, order_by=order, told=["data_location_id"])


_GOES_ON: Final = sa.and_(_IS_STAGING, sa.not_(_Run.is_to_be_cancelled), has_space())
_PREPARE: Final = _telling(sa.and_(_GOES_ON, sa.not_(unstaged()), sa.not_(is_prepared())))
_SUBMIT: Final = _telling(sa.and_(_GOES_ON, is_prepared()))
_COLLECT: Final = _telling(_IS_COLLECTING)


@dataclass
class Context:
    """What a manager works with, and what one tick leaves for the next."""

    database: DatabaseConnection
    tasks: Tasks
    locations: Mapping[int, str]
    """The processing locations that this instance serves: id → `{site}_{location}`."""
    polls: Mapping[int, timedelta]
    """Pause between two questions to the backend of each."""
    name: str
    """Claims work and signs moves."""
    due: datetime | None = None
    has_begun: bool = False
    """Whether a trigger-manager has asked for everything to be looked at, as each does when it starts."""
    observed: dict[int, datetime] = field(default_factory=dict)
    """When each location was last asked about its jobs."""


def trigger_manager(context: Context) -> Manager[Context]:
    """Creates the runs that are missing or out of date."""
    return Manager(
        name="trigger-manager",
        context=context,
        tick=create_runs,
        due=lambda context: context.due,
        wakes_on=("pending_change:*", "pipeline_evaluation:*"),
    )


def workflow_manager(context: Context) -> Manager[Context]:
    """Starts runs: fixes their inputs, has their data staged and their jobs submitted."""
    return Manager(
        name="workflow-manager",
        context=context,
        tick=advance_runs,
        due=lambda context: context.due,
        wakes_on=(
            "executed_reduction_step:pending",
            "executed_reduction_step:staging_data",
            "executed_reduction_step:submitted",
            "executed_reduction_step:completed",  # what ended leaves room within limits
            "executed_reduction_step:failed",
            "executed_reduction_step:cancelled",
            DEFINITIONS_APPLIED,
            LIMITS_CHANGED,
            "staging_job:*",
            "physical_copy:staged",
        ),
    )


def result_manager(context: Context) -> Manager[Context]:
    """Has jobs observed and results collected, and tries again what failed in passing."""
    return Manager(
        name="result-manager",
        context=context,
        tick=follow_runs,
        due=lambda context: context.due,
        wakes_on=(
            "executed_reduction_step:submitted",
            "executed_reduction_step:collecting_results",
            "executed_reduction_step:completed",
            "executed_reduction_step:failed",
            WISHED,
        ),
    )


def create_runs(context: Context) -> int:
    """Evaluate what changed, each pipeline in a transaction of its own, so that one does not hold up the others."""
    now = datetime.now(UTC)
    with context.database.transaction() as session:
        hand_out(session)
    if not context.has_begun:
        with context.database.transaction() as session:
            look_at_everything(session, list(context.locations))
        context.has_begun = True
    with context.database.transaction() as session:
        pipeline_ids = pipelines_to_evaluate(session, list(context.locations), now=now)
    done = sum(_evaluate(context, pipeline_id) for pipeline_id in pipeline_ids)
    with context.database.transaction() as session:
        context.due = next_evaluation(session)
    return done


def _evaluate(context: Context, pipeline_id: int) -> int:
    try:
        with context.database.transaction() as session:
            done = create_wanted_runs(session, pipeline_id, now=datetime.now(UTC), by=context.name)
    except Exception as error:
        if is_transient(error):
            raise
        _log.exception("pipeline cannot be evaluated", error, pipeline=pipeline_id)
        return 0
    if done.drift:
        _log.warning("the maintained tables had drifted and were mended", pipeline=pipeline_id, rows=done.drift)
    return done.created + done.given_up


def advance_runs(context: Context) -> int:
    """Start PENDING runs, tell workers which attempts to hand in, then see to those that do not go on."""
    with context.database.transaction() as session:
        are_pending, are_staging, are_prepared = session.execute(_TO_ADVANCE, {"places": list(context.locations)}).one()
    started = _start_pending(context) if are_pending else 0
    done = started
    if started or are_staging:
        done += _tell(context, context.tasks.hand_in, STAGING, runs=_PREPARE)
    if are_prepared:  # what a worker prepares from now on is leased to it
        done += _tell(context, context.tasks.hand_in, SUBMISSION, runs=_SUBMIT)
    rest, context.due = _see_to_the_rest(context, are_pending=are_pending) if are_pending or are_staging else (0, None)
    return done + rest


def follow_runs(context: Context) -> int:
    """Have ended jobs collected, ask each backend about all its jobs once a round, and retry what is due."""
    now, here = datetime.now(UTC), {"places": list(context.locations)}
    with context.database.transaction() as session:
        are_collecting, retry = session.execute(_TO_FOLLOW, here).one()
        busy = locations_to_follow(session, context.locations, now=now)
    done = _tell(context, context.tasks.collect, RESULTS, runs=_COLLECT) if are_collecting else 0
    for location_id in busy:
        if now >= _next_question(context, location_id, now):
            _ask(context, location_id, now)
    lease_end, is_due = None, retry is not None and retry <= now
    if are_collecting or is_due:
        with context.database.transaction() as session:
            done += give_up_uncollected(session, context.locations, now=now, by=context.name)
            lease_end = session.scalar(_COLLECTED_BY, here)
            done += len(retry_due_runs(session, now=now, by=context.name)) if is_due else 0
            retry = session.scalar(NEXT_RETRY) if is_due else retry
    moments = (retry, *(_next_question(context, location_id, now) for location_id in busy), lease_end)
    context.due = min((moment for moment in moments if moment), default=None)
    return done


def _next_question(context: Context, location_id: int, now: datetime) -> datetime:
    """When the backend of a location is asked next; at once where it never was."""
    asked_at = context.observed.get(location_id)
    return now if asked_at is None else asked_at + context.polls[location_id]


@lru_cache(maxsize=8)
def _ours(location_ids: frozenset[int]) -> sa.ColumnElement[bool]:
    """Condition on a run: it is at one of these. One object each time, as statements are kept that are made with it."""
    return is_among(_Run.data_location_id, location_ids)


def _start_pending(context: Context) -> int:
    ours, now = _ours(frozenset(context.locations)), datetime.now(UTC)
    with context.database.transaction() as session:
        claimed = claim_pending(session, ours, by=context.name, lease=_LEASE, most=_BATCH, now=now)
    try:
        return _start(context, claimed) if claimed else 0
    except Exception as error:
        if is_transient(error):
            raise
        _log.warning("a batch of runs did not start, trying them one by one", error=str(error))
    return sum(_start_alone(context, run_id) for run_id in claimed)


def _start(context: Context, run_ids: Sequence[int]) -> int:
    with context.database.transaction() as session:
        started = start_runs(session, run_ids, now=datetime.now(UTC), by=context.name)
        renew(session, _Run, started.waiting, by=context.name, lease=_REST)
    return len(started.started) + len(started.not_needed) + len(started.newly_waiting)


def _see_to_the_rest(context: Context, *, are_pending: bool) -> tuple[int, datetime | None]:
    """Say of runs what keeps them from going on, and fail those that never will; how many, and when to look again."""
    failed, noted, opens_at = 0, 0, None
    with context.database.transaction() as session:
        found = session.execute(_LEFT, {"places": list(context.locations)}).one()
        are_unstaged, is_short, is_held, lease_end = found
        if are_unstaged:
            failed = fail_unstaged_runs(session, context.locations, now=datetime.now(UTC), by=context.name)
            note_staging(session, context.locations)
        if is_short:
            note_short(session, context.locations)
        if are_pending and is_held:
            noted, opens_at = _note_held(session, _ours(frozenset(context.locations)))
    return failed + noted, min((moment for moment in (opens_at, lease_end) if moment), default=None)


def _note_held(session: Session, ours: sa.ColumnElement[bool]) -> tuple[int, datetime | None]:
    """Write down which runs pauses and limits hold; on how many, and when the first window opens for some."""
    limits = limits_now(session, now=datetime.now(UTC))
    return note_stopped(session, ours) + note_held(session, limits, ours), limits.opens_at


def _start_alone(context: Context, run_id: int) -> int:
    try:
        return _start(context, [run_id])
    except Exception as error:
        if is_transient(error):
            raise
        _log.exception("run did not start", error, run=run_id)
        return 0


def _tell(context: Context, task: CeleryTask[int], operation: str, *, runs: ReturningUpdate[int, int]) -> int:
    """Lease runs and tell the workers of their locations; what a worker does not finish in time is told again.

    Workers that are behind are told when they have done what they know of.
    """
    queues = {number: workflow_queue(name, operation) for number, name in context.locations.items()}
    idle = [number for number, queue in queues.items() if not task.is_behind(queue)]
    if not idle:
        return 0
    given = {"places": idle, "most": _OUTSTANDING, "by": context.name, "lease": _LEASE}
    with context.database.transaction() as session:
        told = sorted(session.execute(runs, given).all())
        for run_id, location_id in told:
            task.send_after_commit(session, [run_id], queue=queues[location_id])
    return len(told)


def _ask(context: Context, location_id: int, now: datetime) -> None:
    """Have a location's jobs observed, unless the last question is still unanswered."""
    with context.database.transaction() as session:
        if claim_one(session, _Location, location_id, by=context.name, lease=_LEASE):
            queue = workflow_queue(context.locations[location_id], OBSERVATION)
            context.tasks.observe.send_after_commit(session, [location_id], queue=queue)
            context.observed[location_id] = now
