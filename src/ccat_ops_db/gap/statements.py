"""The statements of `sql/`, for one step and the sub-groups that are looked at."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db.gap.scope import EVERYTHING, Scope, Written
from ccat_ops_db.gap.steps import PipelineNow, StepNow
from ccat_ops_db.gap.texts import text_of
from ccat_ops_db.grouping.checking import uses_now
from ccat_ops_db.plan.digests import NOT_INPUTS, input_digest
from ccat_ops_db.plan.sentences import Names
from ccat_ops_db.states import OnMissing, TriggerType, VersionPolicy

_TYPES: Final[Mapping[str, sa.types.TypeEngine[Any]]] = {
    "ids": sa.ARRAY(sa.BigInteger),
    "keys": sa.ARRAY(sa.Text),
    "plan": sa.Text(),
    "runs": sa.ARRAY(sa.BigInteger),
    "groups": sa.ARRAY(sa.BigInteger),
    "step": sa.BigInteger(),
    "upstream": sa.ARRAY(sa.BigInteger),
    "takes_raw": sa.Boolean(),
    "unlisted": sa.ARRAY(sa.Text),
    "lists": sa.Boolean(),
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
    "rests": sa.Boolean(),
    "cooldown": sa.Interval(),
    "now": sa.TIMESTAMP(timezone=True),
}
_NO_INPUTS: Final = input_digest([])
_LEAVING: Final = sa.text("""
    SELECT step.id FROM unnest(:steps) AS step (id)
    WHERE EXISTS (SELECT FROM sub_group_package m WHERE m.reduction_step_id = step.id AND m.left_out IS NOT NULL)
       OR EXISTS (SELECT FROM accepted_coverage a WHERE a.reduction_step_id = step.id)
""").bindparams(sa.bindparam("steps", type_=sa.ARRAY(sa.BigInteger)))
_VERDICTS: Final = ("facts", "decisions", "writing")


def leaving(session: Session, pipeline: PipelineNow) -> frozenset[int]:
    """Steps of a pipeline of which a run may go without some package. Most go without none, and never did."""
    complete = [step.id for step in pipeline.steps if step.waits.for_everything]
    given = frozenset(session.scalars(_LEAVING, {"steps": complete})) if complete else frozenset()
    return given | {step.id for step in pipeline.steps if not step.waits.for_everything}


def leave_out(session: Session, step: StepNow, scope: Scope) -> int:
    """Note which packages a run of now of a step that is `leaving` some goes without; rows written."""
    options = {"omits": step.waits.omits, "takes_available": step.waits.takes_available}
    found = _run(session, "left_out", scope=scope, values={**_place(step), **options})
    return found if isinstance(found, int) else len(found)


def choose_auxiliary(session: Session, step: StepNow, scope: Scope) -> int:
    """Note which auxiliary products runs of now would take, and how they differ from what was taken; rows written."""
    recipe = step.recipe
    values = {
        **_place(step),
        "takes_raw": step.takes_raw,
        "unlisted": _unlisted(step),
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


@dataclass(frozen=True)
class Judged:
    """What noting verdicts changed."""

    passed_on: Written
    """Where steps further down depend on it; the rows are all that were written."""
    told: Scope
    """Where the active run is another one, or has to say anew why it is necessary."""


def judge(session: Session, pipeline: PipelineNow, step: StepNow, *, scope: Scope, now: datetime) -> Judged:
    """Note what is known of sub-groups and what is to be done about each; where that is something else than before."""
    recipe = step.recipe
    values = {
        **_place(step),
        "takes_raw": step.takes_raw,
        "unlisted": _unlisted(step),
        "lists": bool(step.listed),
        "no_inputs": _NO_INPUTS,
        "has_rules": bool(step.auxiliary),
        "recipe": recipe.digest if recipe else None,
        "series": recipe.series_digest if recipe else None,
        "by_series": step.policy is VersionPolicy.COMPATIBLE,
        "fades": uses_now(pipeline.rules),
        "since": step.since,
        "rests": pipeline.trigger is TriggerType.CONTINUOUS,
        "cooldown": step.cooldown,
        "takes_available": step.waits.takes_available,
        "min_fraction": step.waits.min_fraction or 0.0,
        "for_scan": step.waits.for_scan,
        "redoing": _redoing(step),
        "waiting": [rule.name for rule in step.auxiliary if rule.on_missing is OnMissing.WAIT],
        "failing": [rule.name for rule in step.auxiliary if rule.on_missing is OnMissing.FAIL],
        "now": now,
    }
    found = _run(session, *_VERDICTS, scope=scope, values=values)
    if isinstance(found, int):
        return Judged(Written.anything(found), EVERYTHING)
    passed_on = Scope.of(number for number, is_passed_on, _ in found if is_passed_on)
    return Judged(Written(passed_on, len(found)), Scope.of(number for number, _, is_told in found if is_told))


def _redoing(step: StepNow) -> list[str]:
    return [rule.name for rule in step.auxiliary if rule.redo_on_better]


def _place(step: StepNow) -> dict[str, Any]:
    return {"step": step.id, "upstream": list(step.upstream)}


def _unlisted(step: StepNow) -> list[str]:
    """Types of products that the step does not take."""
    return sorted(NOT_INPUTS.difference(step.listed))


def take_inputs(session: Session, step: StepNow, sub_groups: Mapping[int, int]) -> None:
    """Fix the inputs of runs: what their sub-groups, given by run id, would get now."""
    values = {"runs": list(sub_groups), "groups": list(sub_groups.values())}
    session.execute(_statement("raw_inputs"), {**values, "takes_raw": step.takes_raw})
    take_products(session, step, sub_groups)
    session.execute(_statement("coverage"), values)


def take_products(session: Session, step: StepNow, sub_groups: Mapping[int, int]) -> None:
    """Fix the upstream and auxiliary products that runs take, as `take_inputs` does."""
    values = {"runs": list(sub_groups), "groups": list(sub_groups.values()), "upstream": list(step.upstream)}
    session.execute(_statement("upstream_inputs"), {**values, "unlisted": _unlisted(step)})
    if step.auxiliary:
        session.execute(_statement("auxiliary_inputs"), values)


def with_lost_inputs(session: Session, step: StepNow, ids: Collection[int]) -> frozenset[int]:
    """Those of some sub-groups that would take a product that is damaged or lost, and has to be made again first."""
    values = {"upstream": list(step.upstream), "ids": sorted(ids)}
    return frozenset(session.scalars(_statement("lost_inputs"), values)) if ids and step.upstream else frozenset()


def find_words(session: Session, step: StepNow, ids: Collection[int]) -> Sequence[sa.RowMapping]:
    """What the verdicts of some sub-groups are told with."""
    if not ids:
        return []
    recipe = step.recipe.digest if step.recipe else None
    asked = {"recipe": recipe, "for_scan": step.waits.for_scan, "no_inputs": _NO_INPUTS, "ids": sorted(ids)}
    return session.execute(_statement("sentences"), {**_place(step), **asked}).mappings().all()


def find_auxiliary_words(session: Session, step: StepNow, ids: Collection[int]) -> Sequence[sa.RowMapping]:
    """What is told about the auxiliary inputs of some sub-groups."""
    if not step.auxiliary or not ids:
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


def _run(session: Session, *names: str, scope: Scope, values: Mapping[str, Any]) -> Sequence[Any] | int:
    """The rows of a statement; of one that looked at everything only how many there were."""
    if scope.ids is None:
        number: int = session.scalars(_statement(*names, is_everything=True), values).one()
        return number
    return session.execute(_statement(*names), {**values, "ids": sorted(scope.ids)}).all()


@cache
def _statement(*names: str, is_everything: bool = False) -> sa.TextClause:
    """The text of a file; of several, each goes on with the list of WITH where the one before it ended.

    Of statements with a scope the last line names what is `news`.
    """
    texts = [text_of(name) for name in names]
    text = texts[0] if len(texts) == 1 else "WITH " + ",\n".join(one.rstrip("\n") for one in texts)
    if is_everything:  # a million ids are not brought here
        text = re.sub(r"\nSELECT .* FROM news\n?$", "\nSELECT count(*) FROM news", text.replace("{scope}", "true"))
    else:
        text = text.replace("{scope}", "g.id = ANY(:ids)")
    return sa.text(text).bindparams(*(sa.bindparam(key, type_=_TYPES[key]) for key in _TYPES if f":{key}" in text))
