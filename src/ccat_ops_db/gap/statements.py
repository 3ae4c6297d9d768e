"""The statements of `sql/`, for one step and the sub-groups that are looked at."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.gap.scope import Scope, Written
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.grouping.checking import uses_now
from ccat_ops_db.plan.digests import input_digest
from ccat_ops_db.plan.sentences import Names
from ccat_ops_db.states import OnMissing, VersionPolicy

_TYPES: Final[Mapping[str, sa.types.TypeEngine[Any]]] = {
    "ids": sa.ARRAY(sa.BigInteger),
    "keys": sa.ARRAY(sa.Text),
    "plan": sa.Text(),
    "runs": sa.ARRAY(sa.BigInteger),
    "groups": sa.ARRAY(sa.BigInteger),
    "step": sa.BigInteger(),
    "upstream": sa.ARRAY(sa.BigInteger),
    "takes_raw": sa.Boolean(),
    "omits": sa.Boolean(),
    "for_scan": sa.Boolean(),
    "takes_available": sa.Boolean(),
    "min_fraction": sa.Double(),
    "no_inputs": sa.Text(),
    "redoing": sa.ARRAY(sa.Text),
    "has_rules": sa.Boolean(),
    "waiting": sa.ARRAY(sa.Text),
    "failing": sa.ARRAY(sa.Text),
    "recipe": sa.Text(),
    "series": sa.Text(),
    "by_series": sa.Boolean(),
    "fades": sa.Boolean(),
    "since": sa.TIMESTAMP(timezone=True),
    "cooldown": sa.Interval(),
    "now": sa.TIMESTAMP(timezone=True),
}
_NO_INPUTS: Final = input_digest([])


def leave_out(session: Session, step: StepNow, scope: Scope) -> Written:
    """Note which packages a run of now goes without; where that changed. Most steps go without none, and never did."""
    if step.waits.for_everything and not session.scalar(sa.select(_some_left_out(step.id))):
        return Written.those([])
    options = {"omits": step.waits.omits, "takes_available": step.waits.takes_available}
    return _run(session, "left_out", scope=scope, values={**_place(step), **options})


def _some_left_out(step_id: int) -> sa.ColumnElement[bool]:
    member = models.SubGroupPackage
    noted = sa.exists().where(member.reduction_step_id == step_id, member.left_out.is_not(None))
    accepted = sa.exists().where(models.AcceptedCoverage.reduction_step_id == step_id)
    return sa.or_(noted, accepted)


def choose_auxiliary(session: Session, step: StepNow, scope: Scope) -> int:
    """Note which auxiliary products runs of now would take, and how they differ from what was taken; rows written."""
    recipe = step.recipe
    values = {
        **_place(step),
        "takes_raw": step.takes_raw,
        "no_inputs": _NO_INPUTS,
        "redoing": _redoing(step),
        "recipe": recipe.digest if recipe else None,
        "series": recipe.series_digest if recipe else None,
        "by_series": step.policy is VersionPolicy.COMPATIBLE,
    }
    if scope.ids is not None:
        values["ids"] = sorted(scope.ids)
    statement = _statement("auxiliary", is_everything=scope.ids is None)
    rows: int = session.scalars(statement, values).one()
    return rows


def find_facts(session: Session, step: StepNow, scope: Scope) -> Written:
    """Note the newest completed run, the active run and the inputs of now; where that changed something."""
    return _run(
        session,
        "facts",
        scope=scope,
        values={
            **_place(step),
            "takes_raw": step.takes_raw,
            "no_inputs": _NO_INPUTS,
            "has_rules": bool(step.auxiliary),
        },
    )


def decide(session: Session, pipeline: PipelineNow, step: StepNow, *, scope: Scope, now: datetime) -> Written:
    """Note what is to be done; where that is something else than before."""
    recipe = step.recipe
    wanted = {
        "recipe": recipe.digest if recipe else None,
        "series": recipe.series_digest if recipe else None,
        "by_series": step.policy is VersionPolicy.COMPATIBLE,
        "fades": uses_now(pipeline.rules),
        "since": step.since,
        "cooldown": step.cooldown,
        "takes_available": step.waits.takes_available,
        "min_fraction": step.waits.min_fraction or 0.0,
        "for_scan": step.waits.for_scan,
        "redoing": _redoing(step),
        "waiting": [rule.name for rule in step.auxiliary if rule.on_missing is OnMissing.WAIT],
        "failing": [rule.name for rule in step.auxiliary if rule.on_missing is OnMissing.FAIL],
        "no_inputs": _NO_INPUTS,
        "now": now,
    }
    return _run(session, "decisions", scope=scope, values={**_place(step), **wanted})


def find_ready(session: Session, step: StepNow, scope: Scope) -> Written:
    """Note which packages steps further down need not wait for; where that changed."""
    return _run(session, "readiness", scope=scope, values=_place(step))


def _redoing(step: StepNow) -> list[str]:
    return [rule.name for rule in step.auxiliary if rule.redo_on_better]


def _place(step: StepNow) -> dict[str, Any]:
    return {"step": step.id, "upstream": list(step.upstream)}


def take_inputs(session: Session, step: StepNow, sub_groups: Mapping[int, int]) -> None:
    """Fix the inputs of runs: what their sub-groups, given by run id, would get now."""
    values = {"runs": list(sub_groups), "groups": list(sub_groups.values())}
    session.execute(_statement("raw_inputs"), {**values, "takes_raw": step.takes_raw})
    take_products(session, step, sub_groups)
    session.execute(_statement("coverage"), values)


def take_products(session: Session, step: StepNow, sub_groups: Mapping[int, int]) -> None:
    """Fix the upstream and auxiliary products that runs take, as `take_inputs` does."""
    values = {"runs": list(sub_groups), "groups": list(sub_groups.values()), "upstream": list(step.upstream)}
    session.execute(_statement("upstream_inputs"), values)
    if step.auxiliary:
        session.execute(_statement("auxiliary_inputs"), values)


def with_lost_inputs(session: Session, step: StepNow, ids: Collection[int]) -> frozenset[int]:
    """Those of some sub-groups that would take a product that is damaged or lost, and has to be made again first."""
    values = {"upstream": list(step.upstream), "ids": sorted(ids)}
    return frozenset(session.scalars(_statement("lost_inputs"), values)) if ids and step.upstream else frozenset()


def find_words(session: Session, step: StepNow, ids: Collection[int]) -> Sequence[sa.RowMapping]:
    """What the verdicts of some sub-groups are told with."""
    recipe = step.recipe.digest if step.recipe else None
    asked = {"recipe": recipe, "for_scan": step.waits.for_scan, "no_inputs": _NO_INPUTS, "ids": sorted(ids)}
    return session.execute(_statement("sentences"), {**_place(step), **asked}).mappings().all()


def find_auxiliary_words(session: Session, step: StepNow, ids: Collection[int]) -> Sequence[sa.RowMapping]:
    """What is told about the auxiliary inputs of some sub-groups."""
    if not step.auxiliary:
        return []
    return session.execute(_statement("auxiliary_words"), {"step": step.id, "ids": sorted(ids)}).mappings().all()


def add_following(session: Session, step: StepNow, plan_id: str) -> None:
    """Add the runs of a step to a plan that follow from what is planned further up."""
    if step.upstream and step.recipe:
        session.execute(_statement("follows"), {**_place(step), "plan": plan_id})


def find_makers(session: Session, step: StepNow, plan_id: str, *, keys: Collection[str]) -> Mapping[str, Names]:
    """From which runs of a plan those of some sub-groups follow; by key."""
    values = {**_place(step), "plan": plan_id, "keys": sorted(keys)}
    return {key: Names(names, number) for key, names, number in session.execute(_statement("makers"), values)}


def _run(session: Session, name: str, *, scope: Scope, values: Mapping[str, Any]) -> Written:
    if scope.ids is None:
        found = session.execute(_statement(name, is_everything=True), values)
        return Written.anything(found.rowcount)  # type: ignore[attr-defined]  # what an UPDATE returns
    return Written.those(session.scalars(_statement(name, is_everything=False), {**values, "ids": sorted(scope.ids)}))


@cache
def _statement(name: str, *, is_everything: bool = False) -> sa.TextClause:
    text = (files(__package__) / "sql" / f"{name}.sql").read_text()
    if is_everything:  # a million ids are not brought here
        text = re.sub(r"\nRETURNING .*\n$", "", text.replace("{scope}", "true"))
    else:
        text = text.replace("{scope}", "g.id = ANY(:ids)")
    return sa.text(text).bindparams(*(sa.bindparam(key, type_=_TYPES[key]) for key in _TYPES if f":{key}" in text))
