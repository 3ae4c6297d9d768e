"""What `ccat run why` says to somebody who sees a run for the first time."""

import re
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.states import RunStatus
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import MERGE, Works

GRID = {"key": "grid", "group_by": ["source"], "max_retries": 1}


@pytest.fixture
def grid(works: Works) -> Works:
    """An installation with one run that has not started."""
    works.staged_on_paper("a")
    works.define(GRID)
    works.create()
    return works


def why(works: Works) -> list[str]:
    """What is said of the first run, without its history."""
    environment = {"CCAT_OPS_DB_URL": works.engine.url.render_as_string(hide_password=False)}
    answer = CliRunner().invoke(app, ["run", "why", str(works.runs()[0].id)], env=environment)
    assert answer.exit_code == 0, answer.output
    return answer.stdout.partition("\n\n")[0].splitlines()[1:]


def test_a_run_that_has_not_started(grid: Works) -> None:
    made = "why it was made: no run has completed yet (missing)"
    assert why(grid) == ["status: pending", made, "what comes next: it starts as soon as nothing is in its way"]


def test_a_run_that_something_keeps_from_starting(grid: Works) -> None:
    grid.define(GRID, enabled=False)
    grid.start()
    assert "what holds it up: its pipeline is disabled" in why(grid)


def test_a_run_that_failed_and_is_tried_again(grid: Works) -> None:
    grid.start()
    grid.fail(grid.run().id, cause="no lines were found")
    status, _, wrong, comes = why(grid)
    assert (status, wrong) == ("status: failed", "what went wrong: no lines were found")
    assert re.fullmatch(r"what comes next: it is tried again at [0-9-]+ [0-9:]+ \S+", comes)
    grid.retry_now()
    assert "what went wrong before: no lines were found" in why(grid)


def test_a_run_that_failed_for_good(grid: Works) -> None:
    for _ in range(2):
        grid.start()
        grid.fail(grid.run().id)
        grid.retry_now()
    assert grid.run().status is RunStatus.FAILED
    again = f"`ccat run retry {grid.run().id}` tries it again"
    expected = f"nothing by itself; {again}, and a new version, another config or other inputs make a new run"
    assert why(grid)[-1] == f"what comes next: {expected}"


def test_a_run_whose_retry_would_be_pointless(grid: Works) -> None:
    grid.start()
    grid.fail(grid.run().id)
    grid.staged_on_paper("b")
    grid.create()
    assert why(grid)[-2:] == [
        "why it is not tried again: outdated: the inputs changed since its last attempt",
        "what comes next: a new run, with what is wanted now",
    ]


def test_a_run_that_is_not_needed(works: Works) -> None:
    [package] = works.staged_on_paper("a")
    works.define(GRID)
    works.create()
    works.exclude(package)
    works.start()
    assert why(works)[0] == "status: cancelled"
    assert why(works)[-1] == "what comes next: nothing: it is not needed any more"


def running(works: Works, **resources: float) -> models.ExecutedReductionStep:
    """A run whose job has an hour, and takes longer than its test."""
    works.observe("one ")
    asked = {"cpu": 1, "memory_gb": 1, "time_hours": 1, **resources}
    works.define({**GRID, "resources": asked}, scripts={"grid": f"sleep 600; {MERGE}"})
    return works.until(RunStatus.RUNNING)


def patience(works: Works, *, ran_for: timedelta | None = None) -> str:
    """How long its run may take, as somebody is told once its job has run for so long."""
    if ran_for is not None:
        works.execute(sa.update(models.RunAttempt).values(started_at=datetime.now(UTC) - ran_for))
    [told] = [line for line in why(works) if line.startswith("how long that may take: ")]
    return told.removeprefix("how long that may take: ")


def limit(works: Works) -> datetime:
    """When the hour of its job is over."""
    started = works.run().attempts[-1].started_at
    assert started is not None
    return started + timedelta(hours=1)


def test_of_a_run_that_runs_the_end_is_told_at_which_its_job_has_no_more_time(works: Works) -> None:
    running(works)
    ended = "then its job is ended, and it is tried again with more time"
    assert patience(works) == f"until {limit(works):%F %H:%M} UTC; {ended}"


def test_the_time_out_is_told_of_a_job_that_runs_on_after_its_limit(works: Works) -> None:
    running(works)
    told = patience(works, ran_for=timedelta(minutes=65))
    over = f"it should have been until {limit(works):%F %H:%M} UTC; then "
    asked = "the cluster is asked to end its job, and it is tried again with more time"
    late = f"if its job still runs at {limit(works) + timedelta(minutes=10):%H:%M} UTC, "
    assert told == f"{over}{late}{asked}"
    told = patience(works, ran_for=timedelta(minutes=75))
    assert told == f"it should have been until {limit(works):%F %H:%M} UTC; then {asked}"


def test_a_run_that_had_all_the_time_of_its_step_is_not_promised_another_attempt(works: Works) -> None:
    run = running(works, max_time_hours=1)
    assert patience(works).partition("; then ")[2] == (
        "its job is ended, and it fails for good, as it had all the time that its step allows: "
        f"raise `max_time_hours` in `resources` of the step, then `ccat run retry {run.id}`"
    )


def test_a_run_that_is_to_be_cancelled_is_not_promised_another_attempt(works: Works, say: Say) -> None:
    assert say("run", "cancel", running(works).id, "--because", "clouds").exit_code == 0
    assert patience(works).endswith("; then its job is ended, and it is cancelled")
