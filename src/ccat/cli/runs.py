import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.output import LARGEST_ID, AsJson, Before, Limit, counted, labels, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db import models
from ccat_ops_db.lookup import PIPELINE, STEP, require
from ccat_ops_db.queries.runs import Coverage, Filter, coverage, get_run, history, list_runs
from ccat_ops_db.states import RunStatus
from ccat_workflow_manager.verbs.limiting import InLine, in_line

app = typer.Typer(no_args_is_help=True, help="One run: what it did, and why.")

_ATTEMPT = ["number", "directory", "job_name", "exit_code", "failure_class", "cause", "log_tail", "submitted_at"]
_ATTEMPT += ["started_at", "ended_at", "wall_time_s", "cpu_time_s", "peak_memory_bytes", "host"]

_NEW_RUN = "nothing by itself; a new version, another config or other inputs make a new run"
_NEXT = {
    RunStatus.PENDING: "it starts as soon as nothing is in its way",
    RunStatus.STAGING_DATA: "its inputs are brought to where it runs, then it is handed to the cluster",
    RunStatus.SUBMITTED: "the cluster starts it when there is room",
    RunStatus.RUNNING: "when it ends, its products are collected",
    RunStatus.COLLECTING_RESULTS: "its products are checked and registered",
    RunStatus.COMPLETED: "nothing: it is done",
    RunStatus.FAILED: _NEW_RUN,
    RunStatus.CANCELLED: _NEW_RUN,
}

RunId = Annotated[int, typer.Argument(metavar="RUN", min=1, max=LARGEST_ID, help="Number of the run.")]


def runs(
    *,
    pipeline: Annotated[str | None, typer.Option(help="Only runs of this pipeline.")] = None,
    step: Annotated[str | None, typer.Option(help="Only runs of this step.")] = None,
    status: Annotated[RunStatus | None, typer.Option(case_sensitive=False, help="Only runs in this status.")] = None,
    limit: Limit = 50,
    before: Before = None,
    json: AsJson = False,
) -> None:
    """List runs, the newest first."""
    with reported(as_json=json), transaction("runs") as session:
        require_known(session, pipeline, step)
        rows = [_row(run) for run in list_runs(session, Filter(pipeline, step, status), limit=limit, before=before)]
    if json:
        print_json(rows)
    else:
        columns = ["id", "pipeline", "step", "sub_group", "status", "version", "reason", "because"]
        print_table(counted(len(rows), "run", "runs"), columns, [_cells(row, columns) for row in rows])


@app.command()
def show(run: RunId, *, json: AsJson = False) -> None:
    """Show one run with its attempts and products."""
    with reported(as_json=json), transaction("run") as session:
        found = _detail(get_run(session, run), coverage(session, run))
    if json:
        print_json(found)
    else:
        _show(found)


@app.command()
def why(run: RunId, *, json: AsJson = False) -> None:
    """Say why a run exists, and why it is where it is."""
    with reported(as_json=json), transaction("run") as session:
        line = in_line(session, run, now=datetime.now(UTC))
        found = _reasons(get_run(session, run), history(session, models.ExecutedReductionStep, run), line)
    if json:
        print_json(found)
    else:
        _explain(found)


def require_known(session: Session, pipeline: str | None, step: str | None) -> None:
    """Refuse a filter that nothing can pass because it names what does not exist."""
    if pipeline is not None:
        require(session, PIPELINE, pipeline)
    if step is not None:
        require(session, STEP, step)


def _row(run: models.ExecutedReductionStep) -> dict[str, Any]:
    return {
        "id": run.id,
        "pipeline": run.pipeline.name,
        "step": run.reduction_step.key,
        "sub_group_key": run.sub_group_key,
        "sub_group": run.sub_group_labels,
        "status": run.status,
        "version": run.software_version.version,
        "reason": run.reason,
        "because": run.because,
        "not_needed": run.not_needed,
        "is_trial": run.is_trial,
        "expires_at": run.expires_at,
        "failure": run.failure,
        "metrics": run.metrics,
        "created_at": run.created_at,
        "submitted_at": min((one.submitted_at for one in run.attempts if one.submitted_at), default=None),
        "finished_at": run.finished_at,
    }


def _cells(row: dict[str, Any], columns: list[str]) -> list[object]:
    return [labels(row[column]) if column == "sub_group" else row[column] for column in columns]


def _detail(run: models.ExecutedReductionStep, covered: Coverage) -> dict[str, Any]:
    return {
        **_row(run),
        "coverage": covered,
        "attempts": [{name: getattr(attempt, name) for name in _ATTEMPT} for attempt in run.attempts],
        "products": [
            {"id": one.id, "path": one.relative_path, "type": one.type, "state": one.state, "checksum": one.checksum}
            for one in run.products
        ],
    }


def _reasons(
    run: models.ExecutedReductionStep, moves: Iterable[models.StatusChange], line: InLine | None
) -> dict[str, Any]:
    noted = None if run.held_by_limit else run.waiting_for  # of limits it is told what they are now
    return {
        **_row(run),
        "waiting_for": line.because if line else noted,
        "line": line,
        "failure": run.failure,
        "retry_at": run.retry_at,
        "history": [_move(one) for one in moves],
    }


def _move(one: models.StatusChange) -> dict[str, Any]:
    return {"at": one.at, "from": one.from_status, "to": one.to_status, "by": one.by, "because": one.because}


def _show(found: dict[str, Any]) -> None:
    columns = ["id", "pipeline", "step", "sub_group", "status", "version", "reason"]
    print_table("run", columns, [_cells(found, columns)])
    if found["failure"]:
        typer.echo(f"\n{found['failure']}")
    typer.echo(f"\n{_covered(found['coverage'], found['status'])}")
    columns = ["number", "exit_code", "cause", "wall_time_s", "peak_memory_bytes", "host", "directory"]
    print_table("\nattempts", columns, [[one[name] for name in columns] for one in found["attempts"]])
    columns = ["id", "type", "state", "path", "checksum"]
    print_table("\nproducts", columns, [[one[name] for name in columns] for one in found["products"]])


def _covered(coverage: Coverage, status: RunStatus) -> str:
    if not coverage.packages:
        is_to_come = status == RunStatus.PENDING
        return f"made from: {'nothing yet, its inputs are chosen when it starts' if is_to_come else 'nothing'}"
    said = f"made from: {coverage.packages:,} raw package{'s' if coverage.packages > 1 else ''}"
    return said + (f", {coverage.excess:,} of them of other sub-groups" if coverage.excess else "")


def _explain(found: dict[str, Any]) -> None:
    typer.echo(f"run {found['id']}: step {found['step']} of pipeline {found['pipeline']}, {labels(found['sub_group'])}")
    for title, text in _story(found):
        if text:
            typer.echo(f"{title}: {text}")
    columns = ["at", "from", "to", "because", "by"]
    print_table("\nhistory", columns, [[one[name] for name in columns] for one in found["history"]])


def _story(found: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    failed, waiting_for = found["status"] == RunStatus.FAILED, found["waiting_for"]
    yield "status", found["status"]
    yield "why it was made", f"{found['because']} ({found['reason']})"
    if found["is_trial"]:
        yield "what it is", f"a trial: nothing is made from its products, kept until {found['expires_at']:%F %H:%M} UTC"
    yield "what went wrong" if failed else "what went wrong before", found["failure"]
    if failed:
        yield "why it is not tried again", waiting_for
    else:
        yield "what holds it up", waiting_for and re.sub("^waits", "it waits", waiting_for)
        if line := found["line"]:
            yield "its place", f"{line.place:,} of {line.number:,} runs that wait for this, as of now"
    yield "what comes next", _next(found)


def _next(found: dict[str, Any]) -> str:
    if found["retry_at"]:
        return f"it is tried again at {found['retry_at']:%F %T %Z}"
    if found["not_needed"]:
        return "nothing: it is not needed any more"
    if found["status"] == RunStatus.FAILED and found["waiting_for"]:
        return "a new run, with what is wanted now"
    return _NEXT[found["status"]]
