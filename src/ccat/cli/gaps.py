from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, print_json, print_table
from ccat.wiring import person, transaction
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.gaps import SubGroupNow
from ccat_ops_db.states import Verdict
from ccat_ops_db.verbs.gaps import Asked, Gap, look_up_gap

Pipeline = Annotated[str, typer.Argument(metavar="PIPELINE")]
Step = Annotated[str | None, typer.Argument(metavar="STEP", help="Only sub-groups of this step.")]
Place = Annotated[str | None, typer.Argument(metavar="SUB_GROUP", help="Only this one: its path or its key.")]
Only = Annotated[
    list[Verdict] | None, typer.Option(case_sensitive=False, help="Only these; several may be given, one by one.")
]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Show at most so many.")]


def gap(
    pipeline: Pipeline,
    step: Step = None,
    sub_group: Place = None,
    *,
    verdict: Only = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """Say what is to be done about the sub-groups that are not up to date, and why; of a single one in any case."""
    asked = Asked(pipeline, step, sub_group, verdict or ())
    with reported(as_json=json), transaction("gap") as session:
        found = look_up_gap(session, asked, limit=limit, now=datetime.now(UTC), by=person())
    if json:
        rows = [_row(one) for one in found.sub_groups]
        print_json({"pipeline": pipeline, "counts": found.counts, "held": found.held, "sub_groups": rows})
    else:
        _show(found, asked)


def _row(one: SubGroupNow) -> dict[str, Any]:
    return {
        "step": one.step.key,
        "sub_group": one.labels,
        "path": one.path,
        "key": one.key,
        "verdict": one.verdict,
        "reason": one.reason,
        "because": one.because,
        "due_at": one.due_at,
        "active_run": one.active_run_id,
        "last_run": one.last_run_id,
    }


def _show(found: Gap, asked: Asked) -> None:
    whole = sum(one.sub_groups for one in found.counts)
    cells = [(one.step, one.verdict, one.reason, one.sub_groups) for one in found.counts]
    title = counted(whole, "such sub-group", "such sub-groups") if whole else _nothing(asked)
    print_table(title, ["step", "verdict", "reason", "sub_groups"], cells)
    columns = ["step", "path", "verdict", "because", "active_run", "last_run"]
    rows = map(_row, found.sub_groups)
    print_table("", columns, [[row[name] for name in columns] for row in rows])
    if whole > len(found.sub_groups):
        typer.echo(f"and {whole - len(found.sub_groups):,} more")
    if found.held and any(one.verdict is Verdict.WANTED and not one.active_run_id for one in found.sub_groups):
        typer.echo(f"\nwhy no run of what is wanted is created: {found.held}")


def _nothing(asked: Asked) -> str:
    """What is said where nothing is to be told."""
    whose = f"step {asked.step} of pipeline {asked.pipeline}" if asked.step else f"pipeline {asked.pipeline}"
    if asked.verdicts:
        verdicts = " or ".join(str(one).replace("_", " ") for one in asked.verdicts)
        return f"no sub-group of {whose} is {verdicts}"
    return f"nothing is to be done: no sub-group of {whose} is missing anything or out of date"
