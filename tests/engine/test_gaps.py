"""`ccat gap`: what is to be done, and why, also where no run was ever made."""

import json
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from ccat.cli import app
from ccat_ops_db import models
from tests.engine.history import History

SCAN = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
NOTHING_TO_DO = "nothing is to be done: no sub-group of pipeline it is missing anything or out of date"
MAP = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"], "cooldown_seconds": 60}


@pytest.fixture
def history(ops_db: sa.Engine) -> History:
    """Two scans of one source: one done, one failed for good; the map waits."""
    made = History(ops_db)
    for hours_ago in (0.02, 0.01):
        made.archive(hours_ago=hours_ago)
    made.define(SCAN, MAP)
    made.create()
    first, second = sorted(made.start().started)
    made.complete(first)
    made.fail(second)
    return made


def ask(history: History, *words: str) -> Result:
    environment = {"CCAT_OPS_DB_URL": history.engine.url.render_as_string(hide_password=False)}
    return CliRunner().invoke(app, ["gap", *words], env=environment)


def told(history: History, *words: str) -> dict[str, Any]:
    done = ask(history, *words, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_is_not_up_to_date_is_listed_with_its_reason(history: History) -> None:
    found = told(history, "it")
    assert [(one["step"], one["verdict"], one["sub_groups"]) for one in found["counts"]] == [
        ("calibrate", "failed", 1),
        ("grid", "blocked", 1),
    ]
    failed, blocked = found["sub_groups"]
    assert (failed["reason"], failed["active_run"], failed["last_run"]) == ("missing", None, None)
    assert "exit code 1" in failed["because"]
    assert blocked["because"] == f"waits for calibrate {failed['path']} (failed); `ccat accept` lets it go without"


def test_one_sub_group_is_told_of_though_it_is_up_to_date(history: History) -> None:
    [done] = told(history, "it", "calibrate", "--verdict", "up_to_date")["sub_groups"]
    for name in (done["path"], done["key"]):
        found = told(history, "it", "calibrate", name)
        assert found["sub_groups"] == [done]
        assert found["counts"] == [{"step": "calibrate", "verdict": "up_to_date", "reason": None, "sub_groups": 1}]
    assert done["because"] == "recipe and inputs are those of the newest completed run"


def test_people_see_how_many_there_are_and_the_first(history: History) -> None:
    done = ask(history, "it", "--limit", "1")
    assert done.stdout.startswith("2 such sub-groups\n")
    assert done.stdout.endswith("and 1 more\n")


def test_where_nothing_is_to_be_done_that_is_said(history: History) -> None:
    done = ask(history, "it", "grid", "--verdict", "wanted", "--verdict", "up_to_date")
    assert done.stdout.strip() == "no sub-group of step grid of pipeline it is wanted or up to date"
    history.configure("calibrate", 1)
    history.settle()
    history.offset += timedelta(hours=1)
    history.settle()
    assert ask(history, "it").stdout.strip() == NOTHING_TO_DO


def test_so_it_is_where_a_grouping_selects_nothing(ops_db: sa.Engine) -> None:
    history = History(ops_db)
    history.define(SCAN)
    assert ask(history, "it").stdout.strip() == NOTHING_TO_DO


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ti"], "There is no pipeline `ti`. Known: `it`."),
        (["it", "gird"], "There is no step `gird` of pipeline it. Did you mean `grid`?"),
        (["it", "grid", "M71"], "There is no sub-group `M71` of step grid. Known: `{path}`."),
    ],
)
def test_names_that_do_not_exist_are_refused(history: History, words: list[str], message: str) -> None:
    [blocked] = told(history, "it", "grid")["sub_groups"]
    done = ask(history, *words)
    assert done.exit_code == 1
    assert message.format(path=blocked["path"]) in done.output


@pytest.mark.parametrize(
    ("noun", "stored", "problem"),
    [
        (
            models.DataGroupingRevision,
            {"filter_rules": [{"table": "Gone", "column": "x", "operator": "eq", "value": 1}]},
            "rules[0].table: there is no table `Gone`.",
        ),
        (
            models.PipelineRevision,
            {"trigger_type": "cron", "trigger_config": {"cron": "0 18 * * *", "time_zone": "Europe/Gone"}},
            "trigger: there is no time zone `Europe/Gone`.",
        ),
    ],
)
def test_a_definition_that_is_not_understood_any_more_is_told_with_its_pipeline(
    history: History, noun: type[models.Base], stored: dict[str, Any], problem: str
) -> None:
    history.execute(sa.update(noun).values(stored))
    said = ask(history, "it")
    assert said.exit_code == 1
    start = f"error: What pipeline it was defined with is not understood any more, so nothing of it runs: {problem} "
    assert said.stderr.startswith(start)
    assert said.stderr.endswith(" Correct it in its file, and apply that.\n")
