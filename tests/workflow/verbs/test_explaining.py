"""What `ccat run why` says to somebody who sees a run for the first time."""

import re

import pytest
from typer.testing import CliRunner

from ccat.cli import app
from ccat_ops_db.states import RunStatus
from tests.workflow.verbs.works import Works

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
