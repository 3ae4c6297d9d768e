from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.evaluation import come_by, evaluate, rest
from ccat_ops_db.gap.steps import PipelineNow, StepNow, current_revision
from ccat_ops_db.gap.telling import tell
from ccat_ops_db.models.runs import ACTIVE_RUN
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.plan.limits import Minute
from ccat_ops_db.queries.pauses import pause_of
from ccat_ops_db.sets import is_given
from ccat_ops_db.states import NEW_DATA, RunReason, RunStatus, TriggerType
from ccat_workflow_manager.plan.starting import INPUTS_CHANGED, RECIPE_CHANGED
from ccat_workflow_manager.verbs.requesting import ask_again, asks_for_it, close, follow, tick

_Run, _Group, _Request = models.ExecutedReductionStep, models.SubGroup, models.RunRequest
_Pipeline, _State, _Change = models.Pipeline, models.PipelineEvaluation, models.PendingChange
_PAGE: Final = 5_000
_ALL: Final = sa.true()
_ASKED_FOR: Final = sa.exists().where(asks_for_it())
_KINDS: Final = (_Group.reason.in_(NEW_DATA), _Group.reason.not_in(NEW_DATA))

# Made once: to put one of these together takes longer than to execute it.
_REVISION: Final = current_revision()
_AT_LOCATIONS: Final = (
    sa.select(_Pipeline.id)
    .join(_REVISION, _REVISION.c.pipeline_id == _Pipeline.id)
    .where(_Pipeline.enabled, is_given(_REVISION.c.processing_location_id, "locations"))
)
"""Enabled pipelines that run there."""
_WITH_NEWS: Final = (
    _AT_LOCATIONS.outerjoin(_State, _State.pipeline_id == _Pipeline.id)
    .where(
        sa.or_(
            sa.exists().where(_Change.pipeline_id == _Pipeline.id),
            _State.due_at.is_(None),
            _State.due_at <= sa.bindparam("now", type_=sa.TIMESTAMP(timezone=True)),
        )
    )
    .order_by(_Pipeline.priority.desc(), _Pipeline.id)
)
_NEXT_DUE: Final = sa.select(sa.func.min(_State.due_at)).join(
    _Pipeline, sa.and_(_Pipeline.id == _State.pipeline_id, _Pipeline.enabled)
)
_IS_TO_CREATE: Final = "verdict = 'wanted' AND active_run_id IS NULL"  # an index has them
_STANDING: Final = sa.text(f"""
    SELECT ARRAY(
            SELECT step.id FROM unnest(:steps) AS step (id)
            WHERE EXISTS (SELECT FROM sub_group WHERE reduction_step_id = step.id AND {_IS_TO_CREATE})) AS wanting,
        EXISTS (SELECT FROM pause) AS is_any_paused,
        EXISTS (SELECT FROM trigger WHERE pipeline_id = :pipeline AND closed_at IS NULL)
            OR EXISTS (SELECT FROM run_request WHERE reduction_step_id = ANY(:steps)) AS is_triggered,
        EXISTS (
            SELECT FROM executed_reduction_step
            WHERE {ACTIVE_RUN} AND status = 'failed' AND reduction_step_id = ANY(:steps)) AS is_retrying
""").bindparams(  # noqa: S608 - our own words
    sa.bindparam("pipeline", type_=sa.BigInteger()), sa.bindparam("steps", type_=sa.ARRAY(sa.BigInteger))
)
_STEP: Final = sa.bindparam("step", type_=sa.BigInteger())
_TO_CREATE: Final = sa.select(_Group.id).where(_Group.reduction_step_id == _STEP, sa.text(_IS_TO_CREATE))
_IN_PAGES: Final = _TO_CREATE.order_by(_Group.id).limit(_PAGE)
_LONGEST_WANTED: Final = _TO_CREATE.order_by(_Group.cut_off.asc().nulls_first(), _Group.id)


@dataclass(frozen=True)
class Evaluation:
    """What evaluating one pipeline did."""

    created: int
    given_up: int
    """FAILED runs whose retry became pointless: with the next evaluation, what is wanted now gets a run."""
    drift: int


def pipelines_to_evaluate(session: Session, location_ids: Sequence[int], *, now: datetime) -> list[int]:
    """Enabled pipelines that run at these locations and have something new, the most important first."""
    return list(session.scalars(_WITH_NEWS, {"locations": list(location_ids), "now": now}))


def look_at_everything(session: Session, location_ids: Sequence[int]) -> None:
    """Have all pipelines at these locations compared with the raw tables: who knows what happened to them."""
    there = _AT_LOCATIONS.params(locations=list(location_ids))
    come_by(session, _State.pipeline_id.in_(there), rebuild=True)


def next_evaluation(session: Session) -> datetime | None:
    """When something changes by itself, in any pipeline that is evaluated."""
    return session.scalar(_NEXT_DUE)


def create_wanted_runs(session: Session, pipeline_id: int, *, now: datetime, by: str) -> Evaluation:
    """Create a PENDING run for every sub-group that needs one and has none; racing another process is harmless."""
    evaluated = evaluate(session, pipeline_id, now=now, by=by, upkeep=True)
    pipeline = evaluated.pipeline
    is_new = tick(session, pipeline, now=now, by=by) is not None
    standing = _standing(session, pipeline)
    while (standing.is_triggered and follow(session, pipeline)) or is_new:
        evaluate(session, pipeline_id, now=now, by=by)
        standing, is_new = _standing(session, pipeline), False
    is_paused = standing.is_any_paused and pause_of(session, pipeline_id)
    created = 0 if is_paused else _create_all(session, pipeline, standing.wanting, now=now)
    given_up = sum(_give_up_outdated(session, step) for step in pipeline.steps) if standing.is_retrying else 0
    if standing.is_triggered:
        close(session, pipeline, now=now)
    rest(session, pipeline, now=now, again_at=minute_full_until(session, pipeline, now=now))
    return Evaluation(created, given_up, evaluated.drift)


class _Standing(NamedTuple):
    """What of a pipeline, evaluated, there is to see to; mostly nothing of most, so it is asked at once."""

    wanting: Sequence[int]
    """Steps that want runs which they have not got."""
    is_any_paused: bool
    """Whether this or another pipeline is."""
    is_triggered: bool
    """Whether a trigger asks for anything, or is open at least."""
    is_retrying: bool
    """Whether runs wait for their retry."""


def _standing(session: Session, pipeline: PipelineNow) -> _Standing:
    asked = {"pipeline": pipeline.id, "steps": [step.id for step in pipeline.steps]}
    return _Standing._make(session.execute(_STANDING, asked).one())


def _create_all(session: Session, pipeline: PipelineNow, wanting: Collection[int], *, now: datetime) -> int:
    """Create what is wanted, of these steps; of a pipeline that waits for triggers only what these ask for."""
    among = _ALL if pipeline.trigger is TriggerType.CONTINUOUS else _ASKED_FOR
    there = replace(pipeline, steps=tuple(step for step in pipeline.steps if step.id in wanting))
    return create_runs(session, there, lambda _: among, now=now) if wanting else 0


def create_runs(
    session: Session, pipeline: PipelineNow, among: Callable[[StepNow], sa.ColumnElement[bool]], *, now: datetime
) -> int:
    """Create a PENDING run for sub-groups that need one and have none, and that are among some of each step; how many.

    The caller has evaluated the pipeline in the same transaction. Where its runs of a minute are limited, those for
    new data come first, of these what is nearest to its end, and of a step what has been wanted longest; the rest are
    created when the next minutes allow.
    """
    most = pipeline.created_per_minute
    if most is None:
        return sum(_create_runs(session, pipeline, step, among=among(step)) for step in pipeline.steps)
    minute, created = _minute(session, pipeline, now=now), 0
    for kind in _KINDS:
        for step in reversed(pipeline.steps):
            left = minute.left(most) - created
            created += _create_runs(session, pipeline, step, among=sa.and_(kind, among(step)), most=left)
    _note_minute(session, pipeline, minute.with_more(created, now) if created else minute)
    return created


def minute_full_until(session: Session, pipeline: PipelineNow, *, now: datetime) -> datetime | None:
    """When more runs of a pipeline may be created, where so many were within the last minute that none may now."""
    most = pipeline.created_per_minute
    return _minute(session, pipeline, now=now).full_until(most) if most is not None else None


def left_of_minute(session: Session, pipeline: PipelineNow, *, now: datetime) -> int | None:
    """How many runs of a pipeline may be created now; None where their number is not limited."""
    most = pipeline.created_per_minute
    return None if most is None else _minute(session, pipeline, now=now).left(most)


def note_created(session: Session, pipeline: PipelineNow, number: int, *, now: datetime) -> None:
    """Count runs that were created towards those of this minute, where their number is limited."""
    if pipeline.created_per_minute is not None:
        _note_minute(session, pipeline, _minute(session, pipeline, now=now).with_more(number, now))


def _minute(session: Session, pipeline: PipelineNow, *, now: datetime) -> Minute:
    lately = session.scalars(sa.select(_State.created_lately).where(_State.pipeline_id == pipeline.id)).one()
    return Minute({datetime.fromisoformat(at): number for at, number in lately.items()}).until(now)


def _note_minute(session: Session, pipeline: PipelineNow, minute: Minute) -> None:
    lately = {at.isoformat(): number for at, number in minute.created.items()}
    session.execute(sa.update(_State).where(_State.pipeline_id == pipeline.id).values(created_lately=lately))


def _create_runs(
    session: Session, pipeline: PipelineNow, step: StepNow, *, among: sa.ColumnElement[bool], most: int | None = None
) -> int:
    created = 0
    while ids := _to_create(session, step, among, most=None if most is None else most - created):
        runs = _insert(session, pipeline, step, ids=ids)
        created += runs
        if runs < len(ids) or len(ids) < _PAGE:  # somebody else has just created the rest, or that was all
            break
    return created


def _to_create(session: Session, step: StepNow, among: sa.ColumnElement[bool], *, most: int | None) -> Sequence[int]:
    """The next sub-groups that get a run; where their number is limited, those that have been wanted longest."""
    wanted = _IN_PAGES if most is None else _LONGEST_WANTED.limit(min(_PAGE, most))
    chosen = wanted if among is _ALL else wanted.where(among)
    return session.scalars(chosen, {"step": step.id}).all()


def _insert(session: Session, pipeline: PipelineNow, step: StepNow, *, ids: Sequence[int]) -> int:
    """Create runs for sub-groups of a step, note them there, and wake who starts them; how many."""
    because = tell(session, step, ids)
    told, made = {"ids": list(because), "told": list(because.values())}, made_with(pipeline, step)
    values = {"step": step.id, **told, **{f"its_{name}": value for name, value in made.items()}}
    created: int = session.scalars(_new_runs(tuple(made)), values).one()
    return created


@cache
def _new_runs(made_with: tuple[str, ...]) -> sa.Select[int, None]:
    """Creates runs for `ids`, sub-groups of `step`, of each of which something is `told`, and notes them there."""
    told = sa.func.unnest(
        sa.bindparam("ids", type_=sa.ARRAY(sa.BigInteger)), sa.bindparam("told", type_=sa.ARRAY(sa.Text))
    ).table_valued("id", "because", name="told")
    told = told.render_derived()
    of_group = {
        "sub_group_key": _Group.key,
        "sub_group_path": _Group.path,
        "sub_group_labels": _Group.labels,
        "reason": _Group.reason,
        "input_digest": _Group.input_digest,
        "packages_until": _Group.cut_off,
        "because": told.c.because,
        "trigger_id": _Request.trigger_id,
        **{name: sa.bindparam(f"its_{name}", type_=_Run.__table__.c[name].type) for name in made_with},
    }
    wanted = sa.select(*of_group.values()).join_from(told, _Group, _Group.id == told.c.id)
    chosen = wanted.outerjoin(_Request, asks_for_it()).order_by(_Group.id)
    new = insert(_Run).from_select(list(of_group), chosen).on_conflict_do_nothing()
    made = new.returning(_Run.id, _Run.sub_group_key).cte("made")
    asked = (_Request.reduction_step_id == _STEP, _Request.sub_group_key == made.c.sub_group_key)
    carried = sa.update(_Request).where(*asked, _Request.run_id.is_(None)).values(run_id=made.c.id)
    noted = sa.update(_Group).where(_Group.reduction_step_id == _STEP, _Group.key == made.c.sub_group_key)
    number = sa.func.count(noted.values(active_run_id=made.c.id).returning(_Group.id).cte("noted").c.id)
    woken = sa.case((number > 0, sa.func.pg_notify(CHANNEL, f"{_Run.__tablename__}:{RunStatus.PENDING}")))
    return sa.select(number, woken).add_cte(carried.cte("carried"))


def made_with(pipeline: PipelineNow, step: StepNow) -> dict[str, int | str | None]:
    """Columns of a run that say where it belongs and with what it is made."""
    assert step.version is not None  # noqa: S101 - without one no sub-group is WANTED; narrows the type
    assert step.recipe is not None  # noqa: S101 - goes with the version
    return {
        "pipeline_id": pipeline.id,
        "data_location_id": pipeline.location_id,
        "priority": pipeline.priority,
        "reduction_step_id": step.id,
        "step_revision_id": step.revision_id,
        "software_version_id": step.version.id,
        "config_revision_id": step.config_revision_id,
        "recipe_digest": step.recipe.digest,
        "series_digest": step.recipe.series_digest,
    }


def _give_up_outdated(session: Session, step: StepNow) -> int:
    """Let runs that wait for their retry have none where recipe or inputs are not wanted any more; how many.

    What was asked of them is asked of the next.
    """
    of_its_group = sa.and_(_Group.reduction_step_id == _Run.reduction_step_id, _Group.key == _Run.sub_group_key)
    other_recipe = _Run.recipe_digest != step.recipe.digest if step.recipe else sa.false()
    other_inputs = _Run.input_digest != _Group.input_digest
    outdated = (
        sa.update(_Run)
        .where(_Run.reduction_step_id == step.id, _Run.status == RunStatus.FAILED, _Run.retry_at.is_not(None))
        .where(sa.not_(_Run.is_trial), _Run.reason != RunReason.RECOMPUTE)
        .where(of_its_group, sa.or_(other_recipe, other_inputs))
        .values(retry_at=None, waiting_for=sa.case((other_recipe, RECIPE_CHANGED), else_=INPUTS_CHANGED))
    )
    options = {"synchronize_session": False}
    run_ids = session.scalars(outdated.returning(_Run.id), execution_options=options).all()
    if run_ids:
        ask_again(session, _Run.id.in_(run_ids))
    return len(run_ids)
