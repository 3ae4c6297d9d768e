"""`ccat run why`: why a run exists, why it is where it is, and what comes next."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import typer
from sqlalchemy.orm import Session

from ccat.cli.errors import reported
from ccat.cli.output import AsJson, labels, print_json, print_table
from ccat.cli.runs import RunId, as_row
from ccat.wiring import transaction
from ccat_ops_db import models
from ccat_ops_db.plan.timeouts import TIME_OUTS, at_its_limit
from ccat_ops_db.queries.runs import get_run, history, in_status_since
from ccat_ops_db.states import Resource, RunStatus
from ccat_workflow_manager.plan.resources import may_grow
from ccat_workflow_manager.verbs.asking import asked_or_first
from ccat_workflow_manager.verbs.limiting import in_line

_NEW_RUN: Final = "a new version, another config or other inputs make a new run"
_NEXT: Final = {
    RunStatus.PENDING: "it starts as soon as nothing is in its way",
    RunStatus.STAGING_DATA: "its inputs are brought to where it runs, then it is handed to the cluster",
    RunStatus.SUBMITTED: "the cluster starts it when there is room",
    RunStatus.RUNNING: "when it ends, its products are collected",
    RunStatus.COLLECTING_RESULTS: "its products are checked and registered",
    RunStatus.COMPLETED: "nothing: it is done",
    RunStatus.FAILED: f"nothing by itself; `ccat run retry {{id}}` tries it again, and {_NEW_RUN}",
    RunStatus.CANCELLED: f"nothing by itself; `ccat trigger`, {_NEW_RUN}",
}
_NOT_NEEDED: Final = {
    RunStatus.CANCELLED: "nothing: it is not needed any more",
    RunStatus.FAILED: "nothing: another run makes what is wanted, and its own results would be refused again",
}
_FACTS: Final = ("number", "job_id", "submitted_at", "started_at", "cancel_asked_at", "exhausted")


def why(run: RunId, *, json: AsJson = False) -> None:
    """Say why a run exists, and why it is where it is."""
    with reported(as_json=json), transaction("run") as session:
        found = _reasons(session, get_run(session, run), now=datetime.now(UTC))
    if json:
        print_json(found)
    else:
        _explain(found)


def _reasons(session: Session, run: models.ExecutedReductionStep, *, now: datetime) -> dict[str, Any]:
    line = in_line(session, run.id, now=now)
    noted = None if run.held_by_limit else run.waiting_for  # of limits it is told what they are now
    return {
        **as_row(run),
        "waiting_for": line.because if line else noted,
        "line": line,
        "failure": run.failure,
        "retry_at": run.retry_at,
        "cancel": _wish(run),
        "attempt": _last_attempt(run),
        "time_out": _time_out(session, run, now=now),
        "history": [_move(one) for one in history(session, models.ExecutedReductionStep, run.id)],
    }


def _wish(run: models.ExecutedReductionStep) -> dict[str, Any] | None:
    """The wish to cancel a run, and what became of it."""
    if run.cancel_requested_at is None:
        return None
    told = {"at": run.cancel_requested_at, "by": run.cancel_requested_by, "because": run.cancel_because}
    return told | {"answer": run.cancel_answer}


def _last_attempt(run: models.ExecutedReductionStep) -> dict[str, Any] | None:
    if not run.attempts:
        return None
    last, asked = run.attempts[-1], asked_or_first(run.attempts[-1])
    return {
        **{name: getattr(last, name) for name in _FACTS},
        "memory_gb": asked.memory_gb,
        "time_hours": asked.time_hours,
    }


def _time_out(session: Session, run: models.ExecutedReductionStep, *, now: datetime) -> dict[str, Any] | None:
    """How long a run may be in its status, and what happens then."""
    timeout = TIME_OUTS.get(run.status)
    if timeout is None:
        return None
    since = in_status_since(session, run)
    ends_at, then = since + timeout.after, timeout.then
    if run.status is RunStatus.RUNNING:
        attempt = run.attempts[-1]
        ends_at = (attempt.started_at or since) + asked_or_first(attempt).time_limit
        then = at_its_limit(ends_at, follows=_out_of_time(run), now=now)
    return {"since": since, "ends_at": ends_at, "is_over": now > ends_at, "then": then}


def _out_of_time(run: models.ExecutedReductionStep) -> str:
    """What becomes of a run whose job needs more time than it has."""
    if run.is_to_be_cancelled:
        return "it is cancelled"
    if may_grow(run.step_revision.resources, asked_or_first(run.attempts[-1]), Resource.TIME):
        return "it is tried again with more time"
    more = f"raise `max_time_hours` in `resources` of the step, then `ccat run retry {run.id}`"
    return f"it fails for good, as it had all the time that its step allows: {more}"


def _move(one: models.StatusChange) -> dict[str, Any]:
    return {"at": one.at, "from": one.from_status, "to": one.to_status, "by": one.by, "because": one.because}


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
    if wish := found["cancel"]:
        yield "who wants it cancelled", f"{wish['by']} at {wish['at']:%F %T %Z}: {wish['because']}"
        yield "what became of that", wish["answer"]
    if failed:
        yield "why it is not tried again", waiting_for
    else:
        yield "what holds it up", waiting_for and re.sub("^waits", "it waits", waiting_for)
        if line := found["line"]:
            yield "its place", f"{line.place:,} of {line.number:,} runs that wait for this, as of now"
    yield "its job", _job(found)
    yield "how long that may take", _patience(found)
    yield "what comes next", _next(found)


def _job(found: dict[str, Any]) -> str | None:
    """What is asked of the cluster, while it has or gets the job."""
    if found["status"] not in {RunStatus.SUBMITTED, RunStatus.RUNNING} or not (attempt := found["attempt"]):
        return None
    asked = f"{attempt['memory_gb']:g} GB of memory and {attempt['time_hours']:g} h"
    return f"{attempt['job_id']}, attempt {attempt['number']}, which asked for {asked}"


def _patience(found: dict[str, Any]) -> str | None:
    """Of what starts by itself nothing is said before that takes too long."""
    timeout = found["time_out"]
    if not timeout or (found["status"] == RunStatus.PENDING and not timeout["is_over"]):
        return None
    over = "it should have been until" if timeout["is_over"] else "until"
    return f"{over} {timeout['ends_at']:%F %H:%M} UTC; then {timeout['then']}"


def _next(found: dict[str, Any]) -> str:
    if found["retry_at"]:
        return f"it is tried again at {found['retry_at']:%F %T %Z}"
    if found["not_needed"] and found["status"] in _NOT_NEEDED:
        return _NOT_NEEDED[found["status"]]
    if found["status"] == RunStatus.FAILED and found["waiting_for"]:
        return "a new run, with what is wanted now"
    if found["cancel"] and not found["cancel"]["answer"]:
        return "it is cancelled as soon as its job is over"
    return _NEXT[found["status"]].format(id=found["id"])
