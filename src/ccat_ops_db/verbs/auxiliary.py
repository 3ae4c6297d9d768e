"""Rules for auxiliary inputs name steps of any pipeline: what has to be true of all pipelines together."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from sqlalchemy.orm import Session

from ccat_ops_db.definitions import document as written
from ccat_ops_db.definitions.auxiliary import Auxiliary
from ccat_ops_db.definitions.parsing import InvalidDefinition
from ccat_ops_db.definitions.steps import Step
from ccat_ops_db.gap.steps import current_revisions
from ccat_ops_db.lookup import UnknownName

_Pipelines = Mapping[str, written.Pipeline]


@dataclass(frozen=True)
class _Use:
    """A rule, and where it stands."""

    pipeline: written.Pipeline
    step: Step
    rule: Auxiliary
    where: str
    """In the file; empty where it is in the database only."""


def require_sound_rules(session: Session, definitions: written.Definitions) -> None:
    """Raise InvalidDefinition unless, once these are applied, every rule names a step that it can take products of."""
    pipelines = {**_stored(session), **{one.name: one for one in definitions.pipelines}}
    places = {one.name: f"pipelines[{index}]" for index, one in enumerate(definitions.pipelines)}
    problems = [problem for use in _uses(pipelines, places) for problem in _problems(use, pipelines, places)]
    problems += _circle(pipelines, places) if not problems else []
    if problems:
        raise InvalidDefinition(problems)


def _stored(session: Session) -> _Pipelines:
    revisions = session.scalars(current_revisions()).all()
    return {one.pipeline.name: written.Pipeline.model_validate(one.definition) for one in revisions}


def _uses(pipelines: _Pipelines, places: Mapping[str, str]) -> Iterator[_Use]:
    for pipeline in pipelines.values():
        for j, step in enumerate(pipeline.steps):
            for k, rule in enumerate(step.auxiliary):
                place = places.get(pipeline.name)
                if place is None and rule.pipeline not in places:
                    continue  # it was sound before
                yield _Use(pipeline, step, rule, f"{place}.steps[{j}].auxiliary[{k}].from" if place else "")


def _problems(use: _Use, pipelines: _Pipelines, places: Mapping[str, str]) -> Iterator[str]:
    rule, giver = use.rule, pipelines.get(use.rule.pipeline)
    if giver is None:
        yield str(UnknownName("pipeline", rule.pipeline, set(pipelines), where=use.where))
    elif rule.step not in (keys := [step.key for step in giver.steps]):
        if use.where:
            yield str(UnknownName("step", rule.step, keys, of=f"pipeline {giver.name}", where=use.where))
        else:
            yield _still_used(use, places[giver.name])
    elif giver.location != use.pipeline.location:
        yield _apart(use, giver, use.where or f"{places[giver.name]}.location")


def _still_used(use: _Use, place: str) -> str:
    return (
        f"{place}.steps: `{use.rule.step}` is missing, which step {use.pipeline.name}/{use.step.key} takes as its "
        f"auxiliary input `{use.rule.name}`; keep it, or apply that pipeline without the rule first."
    )


def _apart(use: _Use, giver: written.Pipeline, where: str) -> str:
    return (
        f"{where}: pipeline {giver.name} runs at {giver.location}, and {use.pipeline.name}, which takes its products, "
        f"at {use.pipeline.location}; products are not brought from one to the other, so let both run at one location."
    )


def _circle(pipelines: _Pipelines, places: Mapping[str, str]) -> Iterator[str]:
    graph = {
        f"{name}/{step.key}": [*(f"{name}/{key}" for key in step.depends_on), *(rule.place for rule in step.auxiliary)]
        for name, pipeline in pipelines.items()
        for step in pipeline.steps
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]
        where = next(places[name] for name in (node.partition("/")[0] for node in circle) if name in places)
        yield f"{where}.steps: steps take products of each other in a circle: {' → '.join(circle)}."
