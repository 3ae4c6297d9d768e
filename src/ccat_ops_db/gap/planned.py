"""Plans as rows: written by SQL from the maintained tables, however many they are."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.recomputing import repeated_for
from ccat_ops_db.gap.statements import add_following
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.states import RunReason, Verdict

_Group, _Plan, _Row = models.SubGroup, models.Plan, models.PlanRow
_KEPT_FOR: Final = timedelta(hours=24)
_ID_LENGTH: Final = 16
_WRITES: Final = {"synchronize_session": False}
_CREATED_NOW: Final = sa.and_(_Group.verdict == Verdict.WANTED, _Group.active_run_id.is_(None))


def keep_plan(
    session: Session,
    pipeline: PipelineNow,
    *,
    steps: Sequence[StepNow],
    which: sa.ColumnElement[bool] = _CREATED_NOW,
    now: datetime,
    by: str,
) -> models.Plan | None:
    """Write down for which sub-groups of some steps there are runs, and which runs follow; None where there are none.

    The pipeline has been evaluated. The same sub-groups with the same recipes and inputs make the same plan.
    """
    runs = _runs(steps, which)
    plan_id = session.scalar(_id_of(runs))
    if plan_id is None:
        return None
    session.execute(sa.delete(_Plan).where(_Plan.id == plan_id))  # what follows may be different from what it was
    plan = _Plan(id=plan_id, pipeline_id=pipeline.id, created_at=now, expires_at=now + _KEPT_FOR, who=by)
    session.add(plan)
    session.flush()
    columns = ["plan_id", *runs.c.keys()]
    session.execute(sa.insert(_Row).from_select(columns, sa.select(sa.literal(plan_id), runs)))
    for step in pipeline.steps:
        add_following(session, step, plan_id)
    _add_repeated(session, pipeline, plan_id)
    return plan


def _add_repeated(session: Session, pipeline: PipelineNow, plan_id: str) -> None:
    """Put the runs that make again what was deleted before those of a plan that take it, or that take what follows.

    They have neither recipe nor inputs of their own to be launched with: who takes their products creates them.
    """
    repeated = repeated_for(session, pipeline, {step.id: _planned(session, step, plan_id) for step in pipeline.steps})
    if not repeated:
        return
    of_plan = sa.update(_Row).where(_Row.plan_id == plan_id)
    session.execute(of_plan.values(number=-_Row.number), execution_options=_WRITES)  # each number stays unique
    listed = (
        sa.func.unnest(sa.literal(repeated, sa.ARRAY(sa.BigInteger)))
        .table_valued("id", with_ordinality="number", name="listed")
        .render_derived()
    )
    values = (listed.c.number, _Group.reduction_step_id, _Group.key, sa.literal(RunReason.RECOMPUTE))
    rows = sa.select(sa.literal(plan_id), *values).join_from(listed, _Group, _Group.id == listed.c.id)
    columns = ["plan_id", "number", "reduction_step_id", "sub_group_key", "reason"]
    session.execute(sa.insert(_Row).from_select(columns, rows))
    moved = of_plan.where(_Row.number < 0).values(number=len(repeated) - _Row.number)
    session.execute(moved, execution_options=_WRITES)


def _planned(session: Session, step: StepNow, plan_id: str) -> Sequence[int]:
    """The sub-groups of a step that a plan names."""
    named = sa.and_(_Row.reduction_step_id == _Group.reduction_step_id, _Row.sub_group_key == _Group.key)
    return session.scalars(
        sa.select(_Group.id).join(_Row, named).where(_Row.plan_id == plan_id, _Group.reduction_step_id == step.id)
    ).all()


def _runs(steps: Sequence[StepNow], which: sa.ColumnElement[bool]) -> sa.Subquery:
    """Runs of some sub-groups, numbered: the columns of a PlanRow without its plan."""
    ready = [step for step in steps if step.recipe]
    recipes = [step.recipe.digest for step in ready if step.recipe]
    made_with = (
        sa.func.unnest(
            sa.literal([step.id for step in ready], sa.ARRAY(sa.BigInteger)), sa.literal(recipes, sa.ARRAY(sa.Text))
        )
        .table_valued("step_id", "recipe_digest", with_ordinality="position", name="made_with")
        .render_derived()
    )
    order = [made_with.c.position, sa.collate(_Group.key, "C")]
    return (
        sa.select(
            sa.func.row_number().over(order_by=order).label("number"),
            _Group.reduction_step_id,
            _Group.key.label("sub_group_key"),
            made_with.c.recipe_digest,
            _Group.input_digest,
            _Group.reason,
        )
        .join_from(made_with, _Group, _Group.reduction_step_id == made_with.c.step_id)
        .where(which)
        .subquery()
    )


def _id_of(runs: sa.Subquery) -> sa.Select[str]:
    """The digest of what would be launched, as SQL; NULL of nothing."""
    facts = (runs.c.reduction_step_id, runs.c.sub_group_key, runs.c.recipe_digest, runs.c.input_digest)
    row = sa.func.sha256(sa.func.convert_to(sa.func.concat_ws(" ", *facts), "UTF8"))
    rows = sa.func.string_agg(row, aggregate_order_by(sa.literal(b""), runs.c.number))
    return sa.select(sa.func.left(sa.func.encode(sa.func.sha256(rows), "hex"), _ID_LENGTH))
