"""The three managers: each tick is one bounded round on the database; messages go to workers after the commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.cancelling import WISHED
from ccat_ops_db.claims import claim, is_free, renew
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.queries.limits import limits_now
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
from ccat_workflow_manager.verbs.failing import give_up_uncollected, next_retry, retry_due_runs
from ccat_workflow_manager.verbs.limiting import note_held
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

_Run = models.ExecutedReductionStep
_BATCH: Final = 200
_OUTSTANDING: Final = 400
"""Most runs that workers are told of at a time, for each thing that they do."""
_LEASE: Final = timedelta(seconds=5)
"""How long a worker may be silent about what it was told before it is told again; telling twice does no harm."""
_REST: Final = timedelta(seconds=2)
"""Pause before a run that could not start is looked at again, so that others get their turn."""
_ROUND: Final = timedelta(milliseconds=100)
"""Pause between two questions to a backend."""
_log = StructuredLogger(__name__)


@dataclass
class Context:
    """What a manager works with, and what one tick leaves for the next."""

    database: DatabaseConnection
    tasks: Tasks
    locations: Mapping[int, str]
    """The processing locations that this instance serves: id → `{site}_{location}`."""
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
    there = _statuses(context, RunStatus.PENDING, RunStatus.STAGING_DATA)
    started = _start_pending(context) if RunStatus.PENDING in there else 0
    done = started
    if started or RunStatus.STAGING_DATA in there:
        staging = sa.and_(_Run.status == RunStatus.STAGING_DATA, sa.not_(_Run.is_to_be_cancelled), has_space())
        prepared = is_prepared()
        done += _tell(
            context, context.tasks.hand_in, STAGING, which=sa.and_(staging, sa.not_(unstaged()), sa.not_(prepared))
        )
        done += _tell(context, context.tasks.hand_in, SUBMISSION, which=sa.and_(staging, prepared))
        with context.database.transaction() as session:
            done += fail_unstaged_runs(session, context.locations, now=datetime.now(UTC), by=context.name)
            note_staging(session, context.locations)
            note_short(session, context.locations)
    noted, opens_at = _note_held(context) if RunStatus.PENDING in there else (0, None)
    lease_end = _next_lease_end(context, RunStatus.PENDING, RunStatus.STAGING_DATA) if there else None
    context.due = min((moment for moment in (opens_at, lease_end) if moment), default=None)
    return done + noted


def follow_runs(context: Context) -> int:
    """Have ended jobs collected, ask each backend about all its jobs once a round, and retry what is due."""
    now, collecting = datetime.now(UTC), RunStatus.COLLECTING_RESULTS
    is_any = bool(_statuses(context, collecting))
    done = _tell(context, context.tasks.collect, RESULTS, which=_Run.status == collecting) if is_any else 0
    with context.database.transaction() as session:
        busy = locations_to_follow(session, context.locations, now=now)
    for location_id in busy:
        if now - context.observed.get(location_id, datetime.min.replace(tzinfo=UTC)) >= _ROUND:
            _ask(context, location_id, now)
    with context.database.transaction() as session:
        done += give_up_uncollected(session, context.locations, now=now, by=context.name) if is_any else 0
        retry = next_retry(session)
        if retry is not None and retry <= now:
            done += len(retry_due_runs(session, now=now, by=context.name))
            retry = next_retry(session)
    lease_end = _next_lease_end(context, collecting) if is_any else None
    moments = (retry, now + _ROUND if busy else None, lease_end)
    context.due = min((moment for moment in moments if moment), default=None)
    return done


def _statuses(context: Context, *statuses: RunStatus) -> set[RunStatus]:
    """Which of these statuses runs have here: of many rounds most have nothing to do, and end with this question."""
    ours = _Run.data_location_id.in_(context.locations)
    with context.database.transaction() as session:
        found = session.execute(sa.select(*(sa.exists().where(_Run.status == one, ours) for one in statuses))).one()
    return {one for one, is_there in zip(statuses, found, strict=True) if is_there}


def _start_pending(context: Context) -> int:
    ours, now = _Run.data_location_id.in_(context.locations), datetime.now(UTC)
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


def _note_held(context: Context) -> tuple[int, datetime | None]:
    """Write down which runs pauses and limits hold; on how many, and when the first window opens for some."""
    ours = _Run.data_location_id.in_(context.locations)
    with context.database.transaction() as session:
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


def _tell(context: Context, task: CeleryTask[int], operation: str, *, which: sa.ColumnElement[bool]) -> int:
    """Lease runs and tell the workers of their locations; what a worker does not finish in time is told again.

    Workers that are behind are told when they have done what they know of.
    """
    queues = {number: workflow_queue(name, operation) for number, name in context.locations.items()}
    idle = [number for number, queue in queues.items() if not task.is_behind(queue)]
    if not idle:
        return 0
    with context.database.transaction() as session:
        where = sa.and_(which, _Run.data_location_id.in_(idle))
        told = sa.select(sa.func.count()).select_from(_Run).where(where, sa.not_(is_free(_Run))).scalar_subquery()
        limit, order = sa.func.greatest(0, _OUTSTANDING - told), (_Run.queue_rank.asc(), _Run.is_redo.asc())
        claimed = claim(session, _Run, where=where, by=context.name, lease=_LEASE, limit=limit, order_by=order)
        if not claimed:
            return 0
        places = session.execute(sa.select(_Run.id, _Run.data_location_id).where(_Run.id.in_(claimed)))
        for run_id, location_id in places:
            task.send_after_commit(session, [run_id], queue=queues[location_id])
    return len(claimed)


def _next_lease_end(context: Context, *statuses: RunStatus) -> datetime | None:
    """When the first run that a worker was told of, or that could not start, is looked at again."""
    ours = sa.and_(_Run.status.in_(statuses), _Run.data_location_id.in_(context.locations))
    with context.database.transaction() as session:
        return session.scalar(sa.select(sa.func.min(_Run.lease_until)).where(ours, sa.not_(is_free(_Run))))


def _ask(context: Context, location_id: int, now: datetime) -> None:
    """Have a location's jobs observed, unless the last question is still unanswered."""
    location = models.DataLocation
    with context.database.transaction() as session:
        where = location.id == location_id
        if claim(session, location, where=where, by=context.name, lease=_LEASE, limit=1):
            queue = workflow_queue(context.locations[location_id], OBSERVATION)
            context.tasks.observe.send_after_commit(session, [location_id], queue=queue)
            context.observed[location_id] = now
