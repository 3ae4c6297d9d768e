from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.evaluation import come_by, evaluate, rest
from ccat_ops_db.gap.steps import PipelineNow, StepNow, current_revision
from ccat_ops_db.gap.telling import tell
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.plan.limits import Minute
from ccat_ops_db.queries.pauses import pause_of
from ccat_ops_db.states import NEW_DATA, RunStatus, TriggerType, Verdict
from ccat_workflow_manager.plan.starting import INPUTS_CHANGED, RECIPE_CHANGED
from ccat_workflow_manager.verbs.requesting import ask_again, asks_for_it, close, follow, tick

_Run, _Group, _Request = models.ExecutedReductionStep, models.SubGroup, models.RunRequest
_PAGE: Final = 5_000
_ALL: Final = sa.true()
_LONGEST_WANTED: Final = (_Group.cut_off.asc().nulls_first(), _Group.id)


@dataclass(frozen=True)
class Evaluation:
    """What evaluating one pipeline did."""

    created: int
    given_up: int
    """FAILED runs whose retry became pointless: with the next evaluation, what is wanted now gets a run."""
    drift: int


def pipelines_to_evaluate(session: Session, location_ids: Sequence[int], *, now: datetime) -> list[int]:
    """Enabled pipelines that run at these locations and have something new, the most important first."""
    evaluation, change = models.PipelineEvaluation, models.PendingChange
    is_changed = sa.exists().where(change.pipeline_id == models.Pipeline.id)
    is_due = sa.or_(evaluation.due_at.is_(None), evaluation.due_at <= now)
    return list(
        session.scalars(
            _at_locations(location_ids)
            .outerjoin(evaluation, evaluation.pipeline_id == models.Pipeline.id)
            .where(sa.or_(is_changed, is_due))
            .order_by(models.Pipeline.priority.desc(), models.Pipeline.id)
        )
    )


def _at_locations(location_ids: Sequence[int]) -> sa.Select[int]:
    """Enabled pipelines that run at these locations."""
    revision = current_revision()
    return (
        sa.select(models.Pipeline.id)
        .join(revision, revision.c.pipeline_id == models.Pipeline.id)
        .where(models.Pipeline.enabled, revision.c.processing_location_id.in_(location_ids))
    )


def look_at_everything(session: Session, location_ids: Sequence[int]) -> None:
    """Have all pipelines at these locations compared with the raw tables: who knows what happened to them."""
    come_by(session, models.PipelineEvaluation.pipeline_id.in_(_at_locations(location_ids)), rebuild=True)


def next_evaluation(session: Session) -> datetime | None:
    """When something changes by itself, in any pipeline that is evaluated."""
    evaluation = models.PipelineEvaluation
    due = sa.select(sa.func.min(evaluation.due_at)).join(
        models.Pipeline, sa.and_(models.Pipeline.id == evaluation.pipeline_id, models.Pipeline.enabled)
    )
    return session.scalar(due)


def create_wanted_runs(session: Session, pipeline_id: int, *, now: datetime, by: str) -> Evaluation:
    """Create a PENDING run for every sub-group that needs one and has none; racing another process is harmless."""
    evaluated = evaluate(session, pipeline_id, now=now, by=by, upkeep=True)
    is_new = tick(session, evaluated.pipeline, now=now, by=by) is not None
    while follow(session, evaluated.pipeline) or is_new:
        evaluate(session, pipeline_id, now=now, by=by)
        is_new = False
    created = 0 if pause_of(session, pipeline_id) else _create_all(session, evaluated.pipeline, now=now)
    given_up = sum(_give_up_outdated(session, step) for step in evaluated.pipeline.steps)
    close(session, evaluated.pipeline, now=now)
    rest(session, evaluated.pipeline, now=now, again_at=minute_full_until(session, evaluated.pipeline, now=now))
    return Evaluation(created, given_up, evaluated.drift)


def _create_all(session: Session, pipeline: PipelineNow, *, now: datetime) -> int:
    """Create what is wanted; of a pipeline that waits for triggers only what these ask for."""
    among = _ALL if pipeline.trigger is TriggerType.CONTINUOUS else sa.exists().where(asks_for_it())
    return create_runs(session, pipeline, lambda _: among, now=now)


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
    for kind in (_Group.reason.in_(NEW_DATA), _Group.reason.not_in(NEW_DATA)):
        for step in reversed(pipeline.steps):
            left = minute.left(most) - created
            created += _create_runs(session, pipeline, step, among=sa.and_(kind, among(step)), most=left)
    _note_minute(session, pipeline, minute.with_more(created, now) if created else minute)
    return created


def minute_full_until(session: Session, pipeline: PipelineNow, *, now: datetime) -> datetime | None:
    """When more runs of a pipeline may be created, where so many were within the last minute that none may now."""
    most = pipeline.created_per_minute
    return _minute(session, pipeline, now=now).full_until(most) if most is not None else None


def _minute(session: Session, pipeline: PipelineNow, *, now: datetime) -> Minute:
    state = models.PipelineEvaluation
    lately = session.scalars(sa.select(state.created_lately).where(state.pipeline_id == pipeline.id)).one()
    return Minute({datetime.fromisoformat(at): number for at, number in lately.items()}).until(now)


def _note_minute(session: Session, pipeline: PipelineNow, minute: Minute) -> None:
    state = models.PipelineEvaluation
    lately = {at.isoformat(): number for at, number in minute.created.items()}
    session.execute(sa.update(state).where(state.pipeline_id == pipeline.id).values(created_lately=lately))


def _create_runs(
    session: Session, pipeline: PipelineNow, step: StepNow, *, among: sa.ColumnElement[bool], most: int | None = None
) -> int:
    created = 0
    while ids := _to_create(session, step, among, most=None if most is None else most - created):
        runs = _insert(session, pipeline, step, ids=ids)
        created += runs
        if runs < len(ids):  # somebody else has just created the rest
            break
    if created:
        session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{_Run.__tablename__}:{RunStatus.PENDING}")))
    return created


def _to_create(session: Session, step: StepNow, among: sa.ColumnElement[bool], *, most: int | None) -> Sequence[int]:
    """The next sub-groups that get a run; where their number is limited, those that have been wanted longest."""
    wanted = sa.select(_Group.id).where(
        _Group.reduction_step_id == step.id, _Group.verdict == Verdict.WANTED, _Group.active_run_id.is_(None), among
    )
    if most is None:
        return session.scalars(wanted.order_by(_Group.id).limit(_PAGE)).all()
    return session.scalars(wanted.order_by(*_LONGEST_WANTED).limit(min(_PAGE, most))).all()


def _insert(session: Session, pipeline: PipelineNow, step: StepNow, *, ids: Sequence[int]) -> int:
    """Create runs for sub-groups of a step, and note them there; how many."""
    because = tell(session, step, ids)
    told = sa.func.unnest(
        sa.literal(list(because), sa.ARRAY(sa.BigInteger)), sa.literal(list(because.values()), sa.ARRAY(sa.Text))
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
        **{name: sa.literal(value) for name, value in made_with(pipeline, step).items() if value is not None},
    }
    wanted = sa.select(*of_group.values()).join_from(told, _Group, _Group.id == told.c.id)
    chosen = wanted.outerjoin(_Request, asks_for_it()).order_by(_Group.id)
    new = insert(_Run).from_select(list(of_group), chosen).on_conflict_do_nothing()
    made = new.returning(_Run.id, _Run.sub_group_key).cte("made")
    asked = (_Request.reduction_step_id == step.id, _Request.sub_group_key == made.c.sub_group_key)
    carried = sa.update(_Request).where(*asked, _Request.run_id.is_(None)).values(run_id=made.c.id)
    noted = sa.update(_Group).where(_Group.reduction_step_id == step.id, _Group.key == made.c.sub_group_key)
    statement = noted.values(active_run_id=made.c.id).returning(_Group.id).add_cte(carried.cte("carried"))
    return len(session.scalars(statement, execution_options={"synchronize_session": False}).all())


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
        .where(sa.not_(_Run.is_trial), of_its_group, sa.or_(other_recipe, other_inputs))
        .values(retry_at=None, waiting_for=sa.case((other_recipe, RECIPE_CHANGED), else_=INPUTS_CHANGED))
    )
    options = {"synchronize_session": False}
    run_ids = session.scalars(outdated.returning(_Run.id), execution_options=options).all()
    if run_ids:
        ask_again(session, _Run.id.in_(run_ids))
    return len(run_ids)
