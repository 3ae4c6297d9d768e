"""`ccat plan` and `ccat launch`: what would be created, and exactly that is."""

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ccat.cli import app
from ccat_ops_db import models
from ccat_ops_db.states import RunStatus
from ccat_workflow_manager.verbs.triggering import next_evaluation
from tests.engine.database import Reference, initialized
from tests.engine.history import History
from tests.engine.test_histories import EVENTS, HAPPEN, RECENT, SHAPES

CALIBRATE: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID: dict[str, Any] = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}
ALL: dict[str, Any] = {"key": "all", "group_by": [], "depends_on": ["grid"]}
NOTHING_YET = "no run has completed yet"


@dataclass
class Desk:
    """Where somebody plans and launches, beside what happens."""

    history: History

    def run(self, *words: str, code: int = 0) -> Result:
        url = self.history.engine.url.render_as_string(hide_password=False)
        result = CliRunner().invoke(app, [*words], env={"CCAT_OPS_DB_URL": url})
        assert result.exit_code == code, result.output
        return result

    def json(self, *words: str, code: int = 0) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.run(*words, "--json", code=code).stdout)
        return told

    def plan(self, *options: str) -> dict[str, Any]:
        return self.json("plan", "it", *options)

    def launch(self, plan_id: str, *options: str, code: int = 0) -> dict[str, Any]:
        return self.json("launch", plan_id, *options, code=code)

    def refusal(self, *words: str) -> str:
        """What a person reads who asked for what cannot be; nothing was created."""
        before = len(self.history.runs())
        told = self.run(*words, code=1).stderr
        assert len(self.history.runs()) == before
        return told


@pytest.fixture
def desk(ops_db: sa.Engine) -> Desk:
    """A desk beside an installation in which nothing has happened."""
    return Desk(History(ops_db))


@pytest.fixture
def busy(desk: Desk) -> Desk:
    """The same with three scans, two of them of M17, that are to be calibrated and gridded."""
    desk.history.define(CALIBRATE, GRID, ALL)
    for source in ("M17", "M17", "Orion A"):
        desk.history.archive(source=source)
    return desk


def counted(planned: dict[str, Any]) -> list[tuple[str, str | None, int]]:
    return [(one["step"], one["reason"], one["runs"]) for one in planned["counts"]]


def held(planned: dict[str, Any]) -> list[tuple[str, str, int]]:
    return [(one["step"], one["verdict"], one["sub_groups"]) for one in planned["held"]]


def told(planned: dict[str, Any]) -> list[str]:
    return [" ".join([one["step"], *one["sub_group"].values(), "·", one["because"]]) for one in planned["runs"]]


def test_at_first_everything_is_missing_and_the_rest_follows(busy: Desk) -> None:
    planned = busy.plan()
    assert counted(planned) == [("calibrate", "missing", 3), ("grid", None, 2), ("all", None, 1)]
    assert held(planned) == []
    assert [one["because"] for one in planned["runs"][:3]] == [NOTHING_YET] * 3
    assert busy.history.runs() == []


def test_nothing_to_do_is_no_plan(busy: Desk) -> None:
    busy.history.settle()
    planned = busy.plan()
    assert (planned["plan"], planned["counts"], planned["runs"], planned["next"]) == (None, [], [], None)
    assert busy.run("plan", "it").stdout == "pipeline it: no run would be created now\n"


def test_what_people_read(busy: Desk) -> None:
    lines = [" ".join(line.split()) for line in busy.run("plan", "it", "--limit", "1").stdout.splitlines()]
    plan_id = lines[0].split()[1]
    made = lines[0].removeprefix(f"plan {plan_id} of pipeline it: ")
    assert made.startswith(f"3 runs would be created now, 3 would follow. `ccat launch {plan_id}` creates them, until ")
    assert lines[1:7] == [
        "step reason runs",
        "calibrate missing 3",
        "grid follows 2",
        "all follows 1",
        "",
        "runs",
    ]
    assert lines[8].endswith(f"missing {NOTHING_YET}")
    assert lines[-1] == f"more: ccat plan {plan_id} --after 1"
