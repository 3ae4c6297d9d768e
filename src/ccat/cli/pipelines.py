from collections.abc import Callable, Sequence
from typing import Annotated, Final

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db.plan.advice import Used, gigabytes, span
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.measures import StepUse, step_uses

app = typer.Typer(no_args_is_help=True, help="All pipelines: what their steps use of what they ask for.")

Pipeline = Annotated[str | None, typer.Argument(metavar="[PIPELINE]", help="Only steps of this pipeline.")]

_COLUMNS: Final = ["pipeline", "step", "version", "attempts", "memory", "time", "cpu"]
_HOW_TO_READ: Final = "Of memory and time it is told what 95 of 100 attempts did not exceed, and what none did."
_HOW_TO_TAKE: Final = (
    "To take it over, write it into `resources` of the step in its file of definitions, and `ccat apply` that file. "
    "Resources are no part of the recipe, so nothing is processed again for it."
)


@app.command()
def advise(pipeline: Pipeline = None, *, json: AsJson = False) -> None:
    """Show what steps use of the memory, time and CPUs that they ask for, and what they should ask for instead."""
    with reported(as_json=json), transaction("pipelines") as session:
        found = step_uses(session, pipeline)
    print_json(found) if json else _show(found)


def _show(found: Sequence[StepUse]) -> None:
    newest = [one for one in found if one.is_newest]
    advised = sum(1 for one in newest if one.advice.proposal)
    title = f"{counted(len(newest), 'step', 'steps')}: {advised or 'none'} should ask for something else"
    print_table(title, _COLUMNS, map(_cells, found))
    lines = [*([_HOW_TO_READ] if newest else []), "", *map(_advice, newest), "", *([_HOW_TO_TAKE] if advised else [])]
    typer.echo("\n".join(lines).rstrip(), nl=bool(newest))


def _cells(one: StepUse) -> Sequence[object]:
    asked, measured = one.asked, one.measured
    memory = _measures(measured.memory, gigabytes, measured.attempts)
    time = _measures(measured.time, span, measured.attempts)
    busy = "" if measured.cpu_efficiency is None else f"{measured.cpu_efficiency * 100:.0f} % "
    return (
        one.pipeline,
        one.step,
        one.version,
        measured.attempts,
        f"{memory}of {asked.memory_gb:g} GB",
        f"{time}of {span(asked.time_hours)}",
        f"{busy}of {asked.cpu * asked.ntasks}",
    )


def _measures(used: Used, tell: Callable[[float], str], attempts: int) -> str:
    """What was used, up to what was asked for; nothing where there was nobody to use it."""
    if used.usual is None or used.most is None:
        return "unknown " if attempts else ""
    return f"{tell(used.usual)}, {tell(used.most)} "


def _advice(one: StepUse) -> str:
    proposal = ", ".join(f"{name}: {value:g}" for name, value in one.advice.proposal.items())
    return f"{one.pipeline}/{one.step}: {f'ask for {proposal}; ' if proposal else ''}{one.advice.because}"
