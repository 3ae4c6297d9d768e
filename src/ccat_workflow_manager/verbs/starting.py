"""PENDING → STAGING_DATA: the moment in which a run's recipe and inputs are fixed."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Session, joinedload

from ccat_ops_db import models
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.gap.evaluation import Evaluated, evaluate
from ccat_ops_db.gap.pending import drop
from ccat_ops_db.gap.recomputing import still_needed
from ccat_ops_db.gap.statements import with_lost_inputs
from ccat_ops_db.gap.steps import PipelineNow
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.plan.limits import Limits, Occupant, Room
from ccat_ops_db.queries.gaps import Place, SubGroupNow, at_places
from ccat_ops_db.queries.limits import limits_now, occupant
from ccat_ops_db.queries.pauses import DISABLED, pause_of
from ccat_ops_db.queries.validity import share_validity
from ccat_ops_db.sets import is_given
from ccat_ops_db.states import NEW_DATA, RunReason, RunStatus
from ccat_workflow_manager.plan import starting as plan
from ccat_workflow_manager.plan.starting import Start
from ccat_workflow_manager.verbs.beginning import Beginning, begin_again, begin_attempts, begin_fresh
from ccat_workflow_manager.verbs.limiting import lock_limits
from ccat_workflow_manager.verbs.queueing import in_order
from ccat_workflow_manager.verbs.recomputing import await_products

_Run = models.ExecutedReductionStep
_TAKE_ANEW: Final = (Start.FRESH, Start.AGAIN)
_STARTS: Final = (Start.FRESH, Start.AGAIN, Start.FIXED)
_OF_SOME: Final = is_given(_Run.id, "runs")
_PIPELINES: Final = sa.select(_Run.pipeline_id).where(_OF_SOME).distinct()
_PLACES: Final = (
    sa.select(_Run.data_location_id, models.Pipeline.created_by_user_id).join(_Run.pipeline).where(_OF_SOME).distinct()
)
_PENDING: Final = (
    sa.select(_Run)
    .where(_OF_SOME, _Run.status == RunStatus.PENDING)
    .options(joinedload(_Run.reduction_step), joinedload(_Run.pipeline))
    .order_by(_Run.id)
    .with_for_update(of=_Run)
)
_HAVE_NEWS: Final = sa.select(sa.func.pg_notify(CHANNEL, f"{models.PipelineEvaluation.__tablename__}:made"))


@dataclass(frozen=True)
class Started:
    """What became of PENDING runs, by run id."""

    started: tuple[int, ...]
    waiting: tuple[int, ...]
    not_needed: tuple[int, ...]
    held: tuple[int, ...] = ()
    """By limits only: as soon as one leaves room, they are started."""
    newly_waiting: tuple[int, ...] = ()
    """Those of the waiting that were not known to wait for this."""


@dataclass(frozen=True)
class _Decided:
    """What becomes of a run, and why."""

    run: _Run
    place: SubGroupNow | None
    pipeline: PipelineNow
    action: Start
    because: str

    @property
    def occupant(self) -> Occupant:
        """What limits see of it, should it start now."""
        fresh = self.place if self.action is Start.FRESH else None
        location = self.pipeline.location_id if fresh else self.run.data_location_id
        reason = fresh.reason if fresh else self.run.reason
        return occupant(
            self.run.pipeline, location_id=location, is_redo=reason not in NEW_DATA and not self.run.is_trial
        )


def start_runs(session: Session, run_ids: Collection[int], *, now: datetime, by: str) -> Started:
    """Fix recipe and inputs of PENDING runs that are still needed, give each an attempt and ask for its data.

    A run that nothing needs any more is CANCELLED as not needed; one that is not ready, or that limits leave no room
    for, stays PENDING with the reason.
    """
    share_validity(session)
    evaluated = _evaluate(session, run_ids, now=now, by=by)
    pipelines = [one.pipeline for one in evaluated]
    limits = _lock_limits(session, run_ids, pipelines, now=now)
    runs = session.scalars(_PENDING, {"runs": list(run_ids)}).all()
    decided = [one for pipeline in pipelines for one in _decide(session, pipeline, runs, now=now)]
    decided = _within(session, limits, decided)
    newly_waiting = [one.run.id for one in decided if one.action is Start.WAIT and one.run.waiting_for != one.because]
    done = {action: tuple(one.run.id for one in decided if one.action is action) for action in Start}
    _act(session, decided, now=now, by=by)
    started = tuple(run_id for action in _STARTS for run_id in done[action])
    cancelled = {run_id for one in evaluated for run_id in one.not_needed}
    not_needed = (*done[Start.NOT_NEEDED], *sorted(cancelled & set(run_ids)))
    return Started(started, done[Start.WAIT], not_needed, done[Start.HOLD], tuple(newly_waiting))


def _decide(session: Session, pipeline: PipelineNow, runs: Iterable[_Run], *, now: datetime) -> list[_Decided]:
    """What becomes of the runs of a pipeline, limits aside."""
    of_pipeline = [run for run in runs if run.pipeline_id == pipeline.id]
    places = at_places(session, pipeline, {_place(run) for run in of_pipeline})
    pause = pause_of(session, pipeline.id)
    lost = _with_lost_inputs(session, of_pipeline, places)
    needed = still_needed(session, pipeline, [run.id for run in of_pipeline if _repeats(run)])
    decided = []
    for run in of_pipeline:
        place = places.get(_place(run))
        found = _now(place, is_lost=place.id in lost) if place else None
        action, because = _start(run, _pending(run, pause), found, is_needed=run.id in needed)
        decided.append(_Decided(run, place, pipeline, action, because))
    return _with_products(session, pipeline, decided, now=now)


def _start(run: _Run, pending: plan.PendingRun, place: plan.Place | None, *, is_needed: bool) -> tuple[Start, str]:
    if run.is_trial:
        return plan.start_trial(pending)
    return plan.start_recompute(pending, place, is_needed=is_needed) if _repeats(run) else plan.start(pending, place)


def _with_products(
    session: Session, pipeline: PipelineNow, decided: list[_Decided], *, now: datetime
) -> list[_Decided]:
    """The same, but what takes products that were deleted waits until they are made again."""
    open_runs = {one.run.id: one.place for one in decided if one.action in _TAKE_ANEW and one.place is not None}
    fixed = [one.run.id for one in decided if one.action is Start.FIXED]
    waits = await_products(session, pipeline, open_runs=open_runs, fixed_runs=fixed, now=now)
    return [_awaiting(one, waits[one.run.id]) if one.run.id in waits else one for one in decided]


def _awaiting(one: _Decided, because: str | None) -> _Decided:
    if because is not None:
        return replace(one, action=Start.WAIT, because=because)
    return replace(one, action=Start.NOT_NEEDED, because=plan.INPUTS_GONE) if _repeats(one.run) else one


def _lock_limits(
    session: Session, run_ids: Collection[int], pipelines: Iterable[PipelineNow], *, now: datetime
) -> Limits:
    if not limits_now(session, now=now):
        return Limits()
    places = session.execute(_PLACES, {"runs": list(run_ids)}).all()
    locations = {location_id for location_id, _ in places} | {one.location_id for one in pipelines}
    users = {user_id for _, user_id in places if user_id is not None}
    return lock_limits(session, users=users, locations=locations, now=now)


def _within(session: Session, limits: Limits, decided: list[_Decided]) -> list[_Decided]:
    """The same, but what limits leave no room for is held; the first in the order go first."""
    if not limits:
        return decided
    room, by_id = Room(limits), {one.run.id: one for one in decided}
    for run_id in in_order(session, by_id):
        one = by_id[run_id]
        held = room.take(one.occupant) if one.action in _STARTS else None
        by_id[run_id] = replace(one, action=Start.HOLD, because=held) if held else one
    return list(by_id.values())


def _evaluate(session: Session, run_ids: Collection[int], *, now: datetime, by: str) -> list[Evaluated]:
    """The pipelines of runs, as they are now; nothing changes them until the caller's transaction is over."""
    hand_out(session, waits=True)  # what was committed before counts
    pipeline_ids = session.scalars(_PIPELINES, {"runs": list(run_ids)})
    evaluated = [evaluate(session, one, now=now, by=by) for one in sorted(pipeline_ids)]
    if any(one.has_news for one in evaluated):  # the trigger-manager does what else follows
        session.execute(_HAVE_NEWS)
    return evaluated


def _place(run: _Run) -> Place:
    return run.reduction_step_id, run.sub_group_key


def _with_lost_inputs(session: Session, runs: Iterable[_Run], places: Mapping[Place, SubGroupNow]) -> frozenset[int]:
    """Sub-groups of runs that were started before, whose inputs are not all there any more."""
    frozen = [places[_place(run)] for run in runs if _starts_again(run) and _place(run) in places]
    steps = {one.step.id: one.step for one in frozen}
    return frozenset().union(
        *(
            with_lost_inputs(session, step, [one.id for one in frozen if one.step.id == step.id])
            for step in steps.values()
        )
    )


def _starts_again(run: _Run) -> bool:
    return run.inputs_frozen_at is not None and not run.is_trial and not _repeats(run)


def _repeats(run: _Run) -> bool:
    """Whether it makes again what was deleted."""
    return run.reason is RunReason.RECOMPUTE and not run.is_trial


def _pending(run: _Run, pause: str | None) -> plan.PendingRun:
    return plan.PendingRun(
        run.recipe_digest,
        run.input_digest,
        is_frozen=run.inputs_frozen_at is not None,
        held=pause if run.pipeline.enabled else DISABLED,
    )


def _now(place: SubGroupNow, *, is_lost: bool) -> plan.Place:
    recipe = place.step.recipe
    return plan.Place(place.verdict, place.because, recipe.digest if recipe else None, place.input_digest, is_lost)


def _act(session: Session, decided: Sequence[_Decided], *, now: datetime, by: str) -> None:
    """Do what was decided about runs, all of a kind together."""
    of_kind: defaultdict[Start, list[_Decided]] = defaultdict(list)
    for one in decided:
        of_kind[one.action].append(one)
    begin_fresh(session, [_beginning(one) for one in of_kind[Start.FRESH]], now=now, by=by)
    again = [_beginning(one) for one in of_kind[Start.AGAIN]]
    begin_again(session, again, because=plan.SAME_INPUTS, by=by)
    for one in of_kind[Start.FIXED]:
        if one.place is not None and _repeats(one.run):
            one.run.step_revision_id = one.place.step.revision_id  # the recipe is the same, but resources may not be
    begin_attempts(session, [one.run for one in of_kind[Start.FIXED]], because=plan.FIXED_INPUTS, by=by)
    _drop(session, of_kind[Start.NOT_NEEDED], by=by)
    for one in of_kind[Start.WAIT]:
        one.run.waiting_for, one.run.held_by_limit = one.because, False
    for one in of_kind[Start.HOLD]:
        _hold(one)


def _beginning(one: _Decided) -> Beginning:
    assert one.place is not None  # noqa: S101 - without one nothing is needed; narrows the type
    return Beginning(one.run, one.place, one.pipeline)


def _drop(session: Session, unneeded: Iterable[_Decided], *, by: str) -> None:
    by_sentence: defaultdict[str, list[int]] = defaultdict(list)
    for one in unneeded:
        by_sentence[one.because].append(one.run.id)
    for because, run_ids in by_sentence.items():
        drop(session, run_ids, because=because, by=by)


def _hold(one: _Decided) -> None:
    """Leave a run to whoever finds that there is room for it; it may be for another reason, and elsewhere, by now."""
    run, place = one.run, one.place
    run.waiting_for, run.held_by_limit = one.because, True
    run.claimed_by = run.lease_until = None
    if run.inputs_frozen_at is not None:
        return
    run.data_location_id = one.pipeline.location_id
    if place is not None and place.reason is not None:
        run.reason, run.because = place.reason, place.because
