from collections.abc import Mapping
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.output import LARGEST_ID, AsJson, Before, Limit, labels, print_json, print_table
from ccat.wiring import transaction
from ccat_ops_db import models
from ccat_ops_db.lookup import PIPELINE, STEP, require
from ccat_ops_db.plan.advice import efficiency, span
from ccat_ops_db.plan.numbers import counted
from ccat_ops_db.plan.spaces import size
from ccat_ops_db.queries.runs import Coverage, Filter, coverage, get_run, list_runs
from ccat_ops_db.states import RunStatus

app = typer.Typer(no_args_is_help=True, help="One run: what it did, and why.")

_ATTEMPT = ["number", "directory", "job_name", "exit_code", "failure_class", "cause", "log_tail", "submitted_at"]
_ATTEMPT += ["started_at", "ended_at", "wall_time_s", "cpu_time_s", "peak_memory_bytes", "host", "job_id"]
_ATTEMPT += ["memory_gb", "time_hours", "exhausted", "fingerprint"]
_COLUMNS = ["number", "exit_code", "cause", "memory", "time", "cpu", "host", "directory"]

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
        rows = [as_row(run) for run in list_runs(session, Filter(pipeline, step, status), limit=limit, before=before)]
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


def require_known(session: Session, pipeline: str | None, step: str | None) -> None:
    """Refuse a filter that nothing can pass because it names what does not exist."""
    if pipeline is not None:
        require(session, PIPELINE, pipeline)
    if step is not None:
        require(session, STEP, step)


def as_row(run: models.ExecutedReductionStep) -> dict[str, Any]:
    """What every command says of a run, for programs."""
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
        "failure_class": run.failure_class,
        "fingerprint": run.fingerprint,
        "metrics": run.metrics,
        "created_at": run.created_at,
        "submitted_at": min((one.submitted_at for one in run.attempts if one.submitted_at), default=None),
        "finished_at": run.finished_at,
    }


def _cells(row: dict[str, Any], columns: list[str]) -> list[object]:
    return [labels(row[column]) if column == "sub_group" else row[column] for column in columns]


def _detail(run: models.ExecutedReductionStep, covered: Coverage) -> dict[str, Any]:
    return {
        **as_row(run),
        "coverage": covered,
        "attempts": [_attempt(one, run.step_revision.resources) for one in run.attempts],
        "products": [
            {"id": one.id, "path": one.relative_path, "type": one.type, "state": one.state, "checksum": one.checksum}
            for one in run.products
        ],
    }


def _attempt(attempt: models.RunAttempt, resources: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of an attempt, with what it used beside what it had."""
    cpus = resources["cpu"] * resources.get("ntasks", 1)
    told = {name: getattr(attempt, name) for name in _ATTEMPT}
    return {**told, "cpus": cpus, "cpu_efficiency": efficiency(attempt.cpu_time_s, attempt.wall_time_s, cpus)}


def _cells_of(attempt: dict[str, Any]) -> list[object]:
    """An attempt in a table; what nobody could measure of a job that is over is said to be unknown."""
    is_over = attempt["started_at"] and attempt["ended_at"]
    unknown = "unknown" if is_over else None
    peak, wall, busy = (attempt[name] for name in ("peak_memory_bytes", "wall_time_s", "cpu_efficiency"))
    memory, time = attempt["memory_gb"], attempt["time_hours"]
    told = {
        **attempt,
        "exit_code": unknown if attempt["exit_code"] is None else attempt["exit_code"],
        "memory": _beside(unknown if peak is None else size(peak), None if memory is None else f"{memory:g} GB"),
        "time": _beside(unknown if wall is None else span(wall / 3600), None if time is None else span(time)),
        "cpu": _beside(None if busy is None else f"{busy * 100:.0f} %", str(attempt["cpus"])),
    }
    return [told[name] for name in _COLUMNS]


def _beside(used: str | None, had: str | None) -> str | None:
    """What was used beside what there was of it, as far as either is known."""
    return f"{used or ''} of {had}".strip() if had else used


def _show(found: dict[str, Any]) -> None:
    columns = ["id", "pipeline", "step", "sub_group", "status", "version", "reason"]
    print_table("run", columns, [_cells(found, columns)])
    if found["failure"]:
        typer.echo(f"\n{found['failure']}")
    typer.echo(f"\n{_covered(found['coverage'], found['status'])}")
    print_table("\nattempts", _COLUMNS, map(_cells_of, found["attempts"]))
    columns = ["id", "type", "state", "path", "checksum"]
    print_table("\nproducts", columns, [[one[name] for name in columns] for one in found["products"]])


def _covered(coverage: Coverage, status: RunStatus) -> str:
    if not coverage.packages:
        is_to_come = status == RunStatus.PENDING
        return f"made from: {'nothing yet, its inputs are chosen when it starts' if is_to_come else 'nothing'}"
    said = f"made from: {coverage.packages:,} raw package{'s' if coverage.packages > 1 else ''}"
    return said + (f", {coverage.excess:,} of them of other sub-groups" if coverage.excess else "")
