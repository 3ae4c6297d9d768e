import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.output import LARGEST_ID, AsJson, labels, print_json, print_table
from ccat.wiring import person, transaction
from ccat_ops_db.lookup import PIPELINE, names
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.queries.plans import Planned, PlannedRun, planned_runs, read_plan
from ccat_ops_db.verbs.planning import make_plan
from ccat_workflow_manager.verbs import launching
from ccat_workflow_manager.verbs.launching import Launched

What = Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of the pipeline; or id of a plan, to see more of.")]
Step = Annotated[str | None, typer.Option(metavar="KEY", help="Plan only runs of this step, and what follows.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="Show at most so many runs.")]
After = Annotated[
    int, typer.Option(metavar="NUMBER", min=0, max=LARGEST_ID, help="Continue after this number, where a page ended.")
]

_LIKE_A_PLAN = re.compile("[0-9a-fA-F]{12,20}")
"""What somebody wrote who meant the id of a plan, or else a pipeline."""


def plan(what: What, *, step: Step = None, limit: Limit = 50, after: After = 0, json: AsJson = False) -> None:
    """Show the runs that would be created now, each with its reason, and create none."""
    if step is not None and _is_plan(what):
        raise typer.BadParameter(f"{what} is a plan, which was made already: --step goes with a pipeline only")
    with reported(as_json=json), transaction("plan") as session:
        planned = _planned(session, what, step)
        runs = planned_runs(session, planned.plan, limit=limit, after=after) if planned.plan else []
    if json:
        print_json(_as_json(planned, runs))
    else:
        _show(planned, runs, after=after)


def launch(plan: str, *, strict: bool, json: bool) -> None:
    """Create the runs of a plan that still hold, and list the others with the reason."""
    with reported(as_json=json), transaction("launch") as session:
        by, now = person(), datetime.now(UTC)
        launched = launching.launch(session, plan, now=now, by=by, strict=strict)
    print_json(launched) if json else _conclude(launched)
    if strict and launched.lapsed:
        raise typer.Exit(1)


def _is_plan(what: str) -> bool:
    return re.fullmatch("[0-9a-f]{16}", what) is not None


def _planned(session: Session, what: str, step: str | None) -> Planned:
    now = datetime.now(UTC)
    if _is_plan(what) or (_LIKE_A_PLAN.fullmatch(what) and what not in names(session, PIPELINE)):
        return read_plan(session, what, now=now)
    return make_plan(session, what, step=step, now=now, by=person())


def _as_json(planned: Planned, runs: Sequence[PlannedRun]) -> dict[str, Any]:
    kept = planned.plan
    return {
        "pipeline": planned.pipeline,
        "plan": kept.id if kept else None,
        "expires_at": kept.expires_at if kept else None,
        "counts": planned.counts,
        "runs": runs,
        "next": _next(planned, runs),
        "held": planned.held,
        "stopped": planned.stopped,
    }


def _next(planned: Planned, runs: Sequence[PlannedRun]) -> int | None:
    """The number after which there are more runs."""
    last = runs[-1].number if runs else 0
    return last if runs and last < planned.runs else None


def _show(planned: Planned, runs: Sequence[PlannedRun], *, after: int) -> None:
    is_first_page = after == 0
    if is_first_page:
        rows = [(one.step, one.reason or "follows", one.runs) for one in planned.counts]
        print_table(_headline(planned), ["step", "reason", "runs"], rows)
    if runs:
        cells = [(one.number, one.step, labels(one.sub_group), one.reason or "follows", one.because) for one in runs]
        print_table("\nruns", ["number", "step", "sub_group", "reason", "because"], cells)
    elif not is_first_page:
        typer.echo(_beyond(planned, after))
    if planned.plan and (number := _next(planned, runs)):
        typer.echo(f"\nmore: ccat plan {planned.plan.id} --after {number}")
    if is_first_page and planned.held:
        _show_held(planned)
    if planned.stopped:
        typer.echo(f"\nnothing of it is created now: {planned.stopped}")


def _beyond(planned: Planned, after: int) -> str:
    if planned.plan is None:
        return _headline(planned)
    number = counted(planned.runs, "run", "runs")
    return f"plan {planned.plan.id} of pipeline {planned.pipeline} has {number}; there is none after number {after}"


def _headline(planned: Planned) -> str:
    kept = planned.plan
    if kept is None:
        return f"pipeline {planned.pipeline}: no run would be created now"
    follow = f", {planned.later:,} would follow" if planned.later else ""
    if planned.again:
        follow += f", and {planned.again:,} would make again first what was deleted"
    runs = counted(planned.at_once, "run", "runs")
    if planned.stopped:
        return f"plan {kept.id} of pipeline {planned.pipeline}: {runs} would be created{follow}"
    what = f"plan {kept.id} of pipeline {planned.pipeline}: {runs} would be created now{follow}"
    return f"{what}. `ccat trigger --plan {kept.id}` creates them, until {kept.expires_at:%F %T %Z}"


def _show_held(planned: Planned) -> None:
    columns = ["step", "verdict", "reason", "sub_groups", "such as", "because"]
    rows = [
        (one.step, one.verdict, one.reason, one.sub_groups, labels(one.example), one.because) for one in planned.held
    ]
    print_table("\nnot now", columns, rows)


def _conclude(launched: Launched) -> None:
    lapsed = sum(launched.lapsed.values())
    title = f"plan {launched.plan}: {counted(launched.created, 'run was', 'runs were')} created"
    if launched.later:
        title += f", {launched.later:,} are as soon as `created_per_minute` of the pipeline allows"
    if lapsed:
        title += f"; {counted(lapsed, 'does', 'do')} not hold any more"
    rows = [
        (one.step, one.sub_group_key if one.labels is None else labels(one.labels), one.why.sentence)
        for one in launched.first_lapsed
    ]
    print_table(title, ["step", "sub_group", "because"], rows)
    if lapsed > len(rows):
        typer.echo(f"and {lapsed - len(rows):,} more")
