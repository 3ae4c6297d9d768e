"""Triggers: a tick or a wish asks for runs, and what becomes ready downstream of them belongs to it, to its end."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.gap.evaluation import evaluate, evaluate_now
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.lookup import PIPELINE, UnknownName, find
from ccat_ops_db.models.runs import ACTIVE_RUN
from ccat_ops_db.plan.schedule import due
from ccat_ops_db.queries.pauses import pause_of
from ccat_ops_db.sets import is_among, once_more
from ccat_ops_db.states import RunStatus, TriggerType, Verdict
from ccat_ops_db.verbs.reasons import require_reason

_Run, _Group, _Member = models.ExecutedReductionStep, models.SubGroup, models.SubGroupPackage
_Trigger, _Request = models.Trigger, models.RunRequest
_Theirs, _Other = once_more(_Member), once_more(_Request)
_OPEN = (Verdict.WANTED, Verdict.COOLING)
_GIVEN_UP = (Verdict.FAILED, Verdict.CANCELLED)
_IS_OPEN: Final = _Run.inputs_frozen_at.is_(None)
"""The run takes what is there when it starts."""
_WRITES: Final = {"synchronize_session": False}
_NAMED: Final = 10_000
"""Sub-groups among which the nearest name is looked for, at most."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants to have run, and why."""

    pipeline: str
    because: str
    step: str | None = None
    """Only this step, and what follows from it."""
    sub_groups: Collection[str] = ()
    """Only these, by key or path; of the step, or of whichever steps have them."""
    force: bool = False
    """Also what is up to date."""


@dataclass(frozen=True)
class Opened:
    """A trigger that was opened, and what it asks for."""

    trigger_id: int | None
    """None where nothing was to be asked for."""
    requested: int
    """Sub-groups that are run for it: now, by the run that they have, or as soon as that is over."""
    requested_before: int
    """Sub-groups besides that another trigger asks for already."""
    waiting: int
    """Of the requested, sub-groups that wait for something upstream."""
    hopeless: int
    """Sub-groups besides that are not run, as what they need does not exist: `ccat gap` says what that is."""
    unreleased: tuple[str, ...]
    """Steps that are not run, as their software has no released version, or their config was withdrawn."""
    pause: str | None
    """Why nothing of it starts for now."""


class PipelineDisabled(CcatError):
    """Runs were asked for that could not start."""

    code = "pipeline_disabled"

    def __init__(self, pipeline: str) -> None:
        super().__init__(
            f"Pipeline {pipeline} is disabled, so its runs would not start: set `enabled: true` in its definition, "
            "apply it, and say the same again. No run was created."
        )


class NothingReleased(CcatError):
    """Runs were asked for that nothing could make."""

    code = "nothing_released"

    def __init__(self, steps: Sequence[StepNow]) -> None:
        software = ", ".join(sorted({step.software for step in steps}))
        super().__init__(
            f"No version of {software} is released, so none of these runs could start: release one in its definition, "
            "apply it, and say the same again. No run was created."
        )


class PipelinePaused(CcatError):
    """Runs were to be created while nothing is."""

    code = "pipeline_paused"

    def __init__(self, pipeline: str, *, pause: str) -> None:
        super().__init__(
            f"Nothing of pipeline {pipeline} is created now: it is {pause}. Say the same again after `ccat resume`. "
            "No run was created."
        )


def require_enabled(pipeline: models.Pipeline) -> None:
    """Raise PipelineDisabled where that is so."""
    if not pipeline.enabled:
        raise PipelineDisabled(pipeline.name)


def open_wish(session: Session, wish: Wish, *, now: datetime, by: str) -> Opened:
    """Ask for what is missing or out of date, what was given up included; with `force` for all that there is.

    Raises UnknownName, PipelineDisabled, NothingReleased and ReasonMissing.
    """
    require_reason(wish.because, outcome="No run was created.")
    found = find(session, PIPELINE, wish.pipeline)
    require_enabled(found)
    pipeline = evaluate_now(session, found.id, now=now, by=by)
    chosen_steps = _steps(pipeline, wish)
    steps = [step for step in chosen_steps if step.recipe]
    if not steps:
        raise NothingReleased(chosen_steps)
    trigger_id = _open(session, found.id, TriggerType.MANUAL, forced=wish.force, because=wish.because, by=by)
    verdicts = tuple(Verdict) if wish.force else (*_OPEN, *_GIVEN_UP, Verdict.BLOCKED)
    named = is_named(session, wish.sub_groups, chosen_steps, of=wish.step or wish.pipeline)
    chosen = sa.and_(_Group.verdict.in_(verdicts), named)
    # What merely waits for the runs of steps above follows from them by itself.
    waits = sa.or_(_Group.reason.is_not(None), sa.true() if wish.force else sa.false())
    which = sa.and_(_of(steps), chosen, waits)
    asked = _ask(session, trigger_id, steps, which=which, forced=wish.force, now=now)
    forced = _force(session, which) if wish.force else 0
    before = _asked_before(session, trigger_id, which) - forced
    requested = asked + forced
    if not requested:
        session.execute(sa.delete(_Trigger).where(_Trigger.id == trigger_id))
    evaluate(session, found.id, now=now, by=by)
    hopeless = _count(session, trigger_id, Verdict.FAILED)
    return Opened(
        trigger_id if requested else None,
        requested - hopeless,
        before,
        _count(session, trigger_id, Verdict.BLOCKED),
        hopeless,
        unreleased=tuple(step.key for step in chosen_steps if not step.recipe),
        pause=pause_of(session, found.id),
    )


def ask_for(
    session: Session, pipeline: PipelineNow, which: sa.ColumnElement[bool], *, because: str, now: datetime, by: str
) -> None:
    """Open a trigger for some sub-groups, if there are any, of a pipeline that the same transaction has evaluated."""
    trigger_id = _open(session, pipeline.id, TriggerType.MANUAL, because=because, by=by)
    if not _ask(session, trigger_id, pipeline.steps, which=which, forced=False, now=now):
        session.execute(sa.delete(_Trigger).where(_Trigger.id == trigger_id))


def _steps(pipeline: PipelineNow, wish: Wish) -> Sequence[StepNow]:
    if wish.step is None:
        return pipeline.steps
    found = [step for step in pipeline.steps if step.key == wish.step]
    if not found:
        raise UnknownName("step", wish.step, [step.key for step in pipeline.steps], of=f"pipeline {wish.pipeline}")
    return found


def is_named(
    session: Session, sub_groups: Collection[str], steps: Sequence[StepNow], *, of: str
) -> sa.ColumnElement[bool]:
    """Condition: the sub-group is one of those that are named by key or path, if any are; raises UnknownName.

    `of` says whose sub-groups they are.
    """
    if not sub_groups:
        return sa.true()
    of_steps = _Group.reduction_step_id.in_([step.id for step in steps])
    named = sa.or_(_Group.key.in_(sub_groups), _Group.path.in_(sub_groups))
    known = {name for row in session.execute(sa.select(_Group.key, _Group.path).where(of_steps, named)) for name in row}
    for name in sub_groups:
        if name not in known:
            paths = session.scalars(sa.select(_Group.path).where(of_steps).limit(_NAMED)).all()
            raise UnknownName("sub-group", name, paths, of=of)
    return named


def tick(session: Session, pipeline: PipelineNow, *, now: datetime, by: str) -> int | None:
    """Open a trigger for the newest tick of a pipeline's schedule that has passed, if there is one; its id.

    However many were missed while nobody looked, they run once. The first look only starts the clock.
    """
    evaluation = models.PipelineEvaluation
    if pipeline.schedule is None:
        return None
    state = session.scalars(sa.select(evaluation).where(evaluation.pipeline_id == pipeline.id)).one()
    last, state.last_tick_at = state.last_tick_at, now
    passed = due(pipeline.schedule, last=last, now=now) if last is not None else None
    if passed is None:
        return None
    because = f"tick of {pipeline.schedule.cron} ({pipeline.schedule.time_zone}) at {passed:%F %H:%M} UTC"
    trigger_id = _open(session, pipeline.id, TriggerType.CRON, because=because, by=by, tick_at=passed)
    missing = sa.and_(_Group.verdict.in_([*_OPEN, Verdict.BLOCKED]), _Group.reason.is_not(None))
    _ask(session, trigger_id, pipeline.steps, which=missing, forced=False, now=now)
    return trigger_id


def _open(
    session: Session,
    pipeline_id: int,
    kind: TriggerType,
    *,
    because: str,
    by: str,
    forced: bool = False,
    tick_at: datetime | None = None,
) -> int:
    values = {"pipeline_id": pipeline_id, "type": kind, "is_forced": forced, "tick_at": tick_at}
    return session.scalars(insert(_Trigger).values(**values, because=because, by=by).returning(_Trigger.id)).one()


def _ask(
    session: Session,
    trigger_id: int,
    steps: Sequence[StepNow],
    *,
    which: sa.ColumnElement[bool],
    forced: bool,
    now: datetime,
) -> int:
    """Ask for sub-groups of steps, but for those that are asked for already; how many.

    The run that a sub-group has will do, unless its inputs are fixed already and others are wanted, or it is forced.
    """
    is_there = sa.exists().where(_Member.sub_group_id == _Group.id, sa.not_(_Member.is_faded))
    chosen = sa.and_(_of(steps), which, is_there)
    will_do = sa.and_(_Run.id == _Group.active_run_id, sa.or_(_IS_OPEN, sa.false() if forced else _is_as_wanted(steps)))
    session.execute(sa.select(_Run.id).join(_Group, will_do).where(chosen).order_by(_Run.id).with_for_update(of=_Run))
    wanted = sa.select(_Group.reduction_step_id, _Group.key, *map(sa.literal, (trigger_id, forced, now)), _Run.id)
    columns = ["reduction_step_id", "sub_group_key", "trigger_id", "is_forced", "created_at", "run_id"]
    new = insert(_Request).from_select(columns, wanted.outerjoin(_Run, will_do).where(chosen)).on_conflict_do_nothing()
    found = session.scalars(new.returning(_Request.run_id)).all()
    if joined := [run_id for run_id in found if run_id is not None]:
        ours = sa.update(_Run).where(is_among(_Run.id, joined), _Run.trigger_id.is_(None))
        session.execute(ours.values(trigger_id=trigger_id), execution_options=_WRITES)
    return len(found)


def _force(session: Session, which: sa.ColumnElement[bool]) -> int:
    """Have what is asked for, and has not begun, run though nothing makes it necessary; how much of it would not."""
    has_begun = sa.exists().where(_Run.id == _Request.run_id, sa.not_(_IS_OPEN))
    forced = (
        sa.update(_Request)
        .where(at_place(), which, sa.not_(has_begun), sa.not_(_Request.is_forced))
        .values(is_forced=True)
    )
    return len(session.scalars(forced.returning(_Request.id), execution_options=_WRITES).all())


def _of(steps: Sequence[StepNow]) -> sa.ColumnElement[bool]:
    return _Group.reduction_step_id.in_([step.id for step in steps])


def _asks(steps: Sequence[StepNow]) -> sa.ColumnElement[bool]:
    return _Request.reduction_step_id.in_([step.id for step in steps])


def _is_as_wanted(steps: Sequence[StepNow]) -> sa.ColumnElement[bool]:
    """Condition: the run has the recipe and the inputs that are wanted of the sub-group now."""
    recipes = {step.id: step.recipe.digest for step in steps if step.recipe}
    recipe = sa.case(recipes, value=_Group.reduction_step_id) if recipes else sa.null()
    return sa.and_(_Run.recipe_digest == recipe, _Run.input_digest == _Group.input_digest)


def _asked_before(session: Session, trigger_id: int, which: sa.ColumnElement[bool]) -> int:
    others = sa.exists().where(at_place(), _Request.trigger_id != trigger_id)
    ours = sa.exists().where(at_place(), _Request.trigger_id == trigger_id)
    return session.scalar(sa.select(sa.func.count()).select_from(_Group).where(which, others, sa.not_(ours))) or 0


def ask_again(session: Session, which: sa.ColumnElement[bool]) -> int:
    """Have what runs were to carry out be carried out by others; `which` is a condition on the runs. How much it is."""
    runs = sa.select(_Run.id).where(which)
    same = (
        _Other.reduction_step_id == _Request.reduction_step_id,
        _Other.sub_group_key == _Request.sub_group_key,
        _Other.run_id.is_(None),
    )
    again = sa.update(_Request).where(_Request.run_id.in_(runs), sa.not_(sa.exists().where(*same)))
    told = {"run_id": None, "created_at": _Request.created_at}  # which is noted, as what is asked for is judged anew
    forced = sa.update(_Other).where(*same, _Request.run_id.in_(runs), _Request.is_forced, sa.not_(_Other.is_forced))
    written = (again.values(told).returning(_Request.id), forced.values(is_forced=True).returning(_Other.id))
    return sum(len(session.scalars(one, execution_options=_WRITES).all()) for one in written)


@cache
def at_place() -> sa.ColumnElement[bool]:
    """Condition: the request is for the sub-group."""
    return sa.and_(_Request.reduction_step_id == _Group.reduction_step_id, _Request.sub_group_key == _Group.key)


@cache
def asks_for_it() -> sa.ColumnElement[bool]:
    """Condition: the request is for the sub-group, and no run carries it out so far."""
    return sa.and_(at_place(), _Request.run_id.is_(None))


def _count(session: Session, trigger_id: int, verdict: Verdict) -> int:
    counted = sa.select(sa.func.count()).select_from(_Request).join(_Group, at_place())
    return session.scalar(counted.where(_Request.trigger_id == trigger_id, _Group.verdict == verdict)) or 0


def follow(session: Session, pipeline: PipelineNow) -> int:
    """Let runs that are over hand their triggers on to what builds on them; how many requests make a difference now.

    Expects the pipeline to be evaluated in the same transaction, and to be evaluated again if any do. Requests whose
    work is done go. What is handed on has been wanted since the trigger was opened: it waits for what was there then,
    and for nothing that came later.
    """
    was_outdated = sa.and_(_Run.status == RunStatus.CANCELLED, _Run.not_needed, _Run.id.in_(sa.select(_Request.run_id)))
    different = ask_again(session, sa.and_(_Run.pipeline_id == pipeline.id, was_outdated))
    different += sum(_hand_on(session, pipeline, step) for step in pipeline.steps)
    if not different:  # or what is noted of sub-groups is older than their requests
        _drop_fulfilled(session, pipeline)
    return different


def _hand_on(session: Session, pipeline: PipelineNow, step: StepNow) -> int:
    over = sa.or_(
        _Run.status.in_([RunStatus.COMPLETED, RunStatus.CANCELLED]),
        sa.and_(_Run.status == RunStatus.FAILED, _Run.retry_at.is_(None)),
    )
    ended = (
        sa.delete(_Request)
        .where(
            _Request.reduction_step_id == step.id,
            _Run.id == _Request.run_id,
            over,
            _Group.reduction_step_id == step.id,
            _Group.key == _Request.sub_group_key,
            _Group.active_run_id.is_distinct_from(_Run.id),  # its end is evaluated
        )
        .returning(_Request.trigger_id, _Request.created_at, _Group.id, _Run.id, _Run.status)
    )
    completed: defaultdict[tuple[int, datetime], dict[int, int]] = defaultdict(dict)
    for trigger_id, since, group_id, run_id, status in session.execute(ended, execution_options=_WRITES):
        if status == RunStatus.COMPLETED:
            completed[trigger_id, since][group_id] = run_id
    return sum(
        _ask(session, trigger_id, steps, which=which, forced=False, now=since)
        for (trigger_id, since), runs in completed.items()
        for steps, which in _taking(pipeline, step, runs)
    )


def _taking(
    pipeline: PipelineNow, step: StepNow, runs: Mapping[int, int]
) -> Iterator[tuple[Sequence[StepNow], sa.ColumnElement[bool]]]:
    """Steps, and which sub-groups of them, take what was made by runs of a step, given by their sub-groups."""
    if below := [one for one in pipeline.steps if step.id in one.upstream]:
        yield below, _Group.id.in_(_sharing(list(runs)))
    if choosing := [one for one in pipeline.steps if step.id in [rule.from_step_id for rule in one.auxiliary]]:
        yield choosing, _Group.id.in_(_choosing(list(runs.values())))


def _sharing(group_ids: Sequence[int]) -> sa.Select[int]:
    """Sub-groups of any step that share packages with these."""
    same = _Theirs.raw_data_package_id == _Member.raw_data_package_id
    return sa.select(_Theirs.sub_group_id).join(_Member, same).where(is_among(_Member.sub_group_id, group_ids))


def _choosing(run_ids: Sequence[int]) -> sa.Select[int]:
    """Sub-groups of any step for which these runs are the nearest."""
    nearest = models.AuxiliaryNearest
    return sa.select(nearest.sub_group_id).where(is_among(nearest.run_id, run_ids))


def _drop_fulfilled(session: Session, pipeline: PipelineNow) -> None:
    """Delete the requests of what is up to date without them, was given up, or is gone."""
    stands = sa.exists().where(at_place(), _Group.verdict.in_([*_OPEN, Verdict.BLOCKED]), _Group.reason.is_not(None))
    has_run = sa.exists().where(at_place(), _Group.active_run_id.is_not(None))
    is_run = sa.exists().where(_Run.id == _Request.run_id, sa.text(ACTIVE_RUN))  # also of what is gone for a while
    session.execute(
        sa.delete(_Request).where(_asks(pipeline.steps), sa.not_(stands), sa.not_(has_run), sa.not_(is_run)),
        execution_options=_WRITES,
    )


def close(session: Session, pipeline: PipelineNow, *, now: datetime) -> list[int]:
    """Close the triggers of a pipeline from which nothing follows any more; their ids.

    What still waits for something that nobody is making is given up with them, but for calibrations: these come from
    elsewhere.
    """
    nearest = models.AuxiliaryNearest
    lacks = sa.exists().where(nearest.sub_group_id == _Group.id, nearest.run_id.is_(None))
    moves = sa.or_(_Group.verdict != Verdict.BLOCKED, lacks, _Request.run_id.is_not(None))
    moving = sa.exists().where(_Request.trigger_id == _Trigger.id, at_place(), moves)
    active = sa.exists().where(_Run.pipeline_id == pipeline.id, sa.not_(_Run.is_trial), sa.text(ACTIVE_RUN))
    ended = sa.update(_Trigger).where(
        _Trigger.pipeline_id == pipeline.id, _Trigger.closed_at.is_(None), sa.not_(moving), sa.not_(active)
    )
    is_open = sa.and_(_Trigger.pipeline_id == pipeline.id, _Trigger.closed_at.is_(None))
    session.execute(sa.select(_Trigger.id).where(is_open).order_by(_Trigger.id).with_for_update())
    closed = list(session.scalars(ended.values(closed_at=now).returning(_Trigger.id), execution_options=_WRITES))
    if closed:
        session.execute(sa.delete(_Request).where(_Request.trigger_id.in_(closed)), execution_options=_WRITES)
    return closed
