"""What `ccat limit` and `ccat limits` say."""

from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from ccat.cli import app
from tests.engine.history import History

SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
NIGHT = {"redo_between": {"from": "22:00", "to": "06:00"}}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["limit", "--live", "3"], "name one of --location, --user and --every-user"),
        (["limit", "--live", "3", "--every-user", "--user", "ann"], "name one of --location, --user and --every-user"),
        (["limit", "--every-user"], "name one of --live and --unlimited"),
        (["limit", "--every-user", "--live", "3", "--unlimited"], "name one of --live and --unlimited"),
        (["limit", "--every-user", "--live", "0"], "greater than or equal to 1"),
    ],
)
def test_words_that_contradict_each_other_are_refused(words: list[str], problem: str) -> None:
    ended = CliRunner().invoke(app, words, terminal_width=200)
    assert ended.exit_code == 2
    assert problem in " ".join(ended.output.replace("│", "").split())


def test_limits_are_shown_with_how_far_they_are_used(ops_db: sa.Engine) -> None:
    environment = {"CCAT_OPS_DB_URL": ops_db.url.render_as_string(hide_password=False)}

    def say(*words: str) -> str:
        ended = CliRunner().invoke(app, [*words], env=environment)
        return " ".join((ended.stdout + ended.stderr).split())

    assert say("limits") == "0 limits"
    told = "There is no processing location `cologne/lta`. Did you mean `cologne/ramses`?"
    assert say("limit", "--location", "cologne/lta", "--live", "3") == f"error: {told}"
    assert say("limit", "--user", "ann", "--live", "3") == "error: There is no user `ann`. There is none yet."
    told = "Live runs at cologne/ramses are limited to 3 at a time."
    assert say("limit", "--location", "cologne/ramses", "--live", "3") == told
    history = History(ops_db)
    history.define(SCAN, limits={"live": 2, "created_per_minute": 9, **NIGHT})
    history.archive()
    history.create()
    history.start()
    shown = say("limits")
    assert shown.startswith("4 limits")
    assert "live runs of pipeline `it` 2 1" in shown
    assert "live runs at `cologne/ramses` 3 1" in shown
    assert "runs of pipeline `it` created per minute 9" in shown
    assert "runs of pipeline `it` that redo start from 22:00 to 06:00 (UTC)" in shown
    told = "Live runs at cologne/ramses are not limited any more."
    assert say("limit", "--location", "cologne/ramses", "--unlimited") == told


def test_a_pipeline_counts_for_the_user_whom_its_definition_names(ops_db: sa.Engine) -> None:
    environment = {"CCAT_OPS_DB_URL": ops_db.url.render_as_string(hide_password=False)}
    history = History(ops_db)
    history.define(SCAN, owner="ann")
    told = CliRunner().invoke(app, ["limit", "--user", "ann", "--live", "1"], env=environment)
    assert told.stdout == "Live runs of user ann are limited to 1 at a time.\n"
    for _ in range(2):
        history.archive()
    history.create()
    assert len(history.start().started) == 1
    shown = " ".join(CliRunner().invoke(app, ["limits"], env=environment).stdout.split())
    assert "live runs of user `ann` 1 1" in shown
    history.define(SCAN)
    assert len(history.start().started) == 1
