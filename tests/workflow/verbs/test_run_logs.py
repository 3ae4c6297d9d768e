"""What a run wrote, seen by a person while it runs and after."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from ccat_ops_db.states import RunStatus
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import MERGE, Works

SCRIPT = f"""
    echo begun; echo 'no beam yet' >&2
    until [ -e "$WORKFLOW_LOG_DIR/../../go" ]; do sleep 0.02; done
    printf 'the end'; {MERGE}
"""


@pytest.fixture
def running(works: Works, monkeypatch: pytest.MonkeyPatch) -> Works:
    """An installation with a run whose software waits for a file."""
    monkeypatch.setenv("CCAT_WORKFLOW_MANAGER_PIPELINE_BASE_DIR", str(works.base))
    monkeypatch.setenv("CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID", str(works.location_id))
    works.observe("one ")
    works.define({"key": "grid", "group_by": ["source"]}, scripts={"grid": SCRIPT})
    works.until(RunStatus.RUNNING)
    return works


def go_on(works: Works) -> None:
    [attempt] = works.run().attempts
    (works.base / attempt.directory).with_name("go").touch()


def test_a_log_is_followed_until_its_attempt_is_over_and_kept_when_its_files_are_gone(running: Works, say: Say) -> None:
    run_id = running.run().id
    url = running.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "ccat", "run", "logs", str(run_id), "-f"]
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "CCAT_OPS_DB_URL": url}
    ) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "begun\n"
        go_on(running)
        running.until(RunStatus.COMPLETED)
        rest, errors = follower.communicate(timeout=20)
    assert (follower.returncode, rest, errors) == (0, "the end\n", "no beam yet\n")

    told = json.loads(say("run", "logs", run_id, "--json").stdout)
    assert (told["attempt"], told["is_over"]) == (1, True)
    assert told["lines"][:2] == [
        {"stream": "stdout", "text": "begun"},
        {"stream": "stderr", "text": "no beam yet"},
    ]
    shutil.rmtree((running.base / running.run().attempts[0].directory) / "logs")
    kept = say("run", "logs", run_id)
    assert kept.stdout.splitlines() == ["begun", "the end", "no beam yet"]
    assert "its files are not here" in kept.stderr
    assert "cannot be followed" in say("run", "logs", run_id, "--follow").stderr
    assert "no attempt 2; it has had 1" in say("run", "logs", run_id, "--attempt", 2).stderr


def test_what_is_not_over_is_not_said_to_be_kept_where_its_location_is_away(running: Works, say: Say) -> None:
    run = running.run()
    disk = running.base.parent
    away = disk.rename(disk.with_name("away"))
    told = say("run", "logs", run.id)
    away.rename(disk)
    assert (told.exit_code, told.stdout) == (0, "")
    assert told.stderr == (
        "(attempt 1 is not over: nothing of its log is kept before that, and its files are not here, as location "
        f"cologne/ramses is away, or mounted on other hosts only: {run.attempts[0].directory}. "
        f"`ccat run logs {run.id}` shows them on a host where they are)\n"
    )
    assert say("run", "logs", run.id).stdout == "begun\n"


def test_of_an_attempt_that_has_not_begun_and_of_one_that_left_nothing_that_is_said(works: Works, say: Say) -> None:
    works.staged_on_paper("a")
    works.define({"key": "grid", "group_by": ["source"]})
    works.create()
    works.start()
    run_id = works.run().id
    assert say("run", "logs", run_id).stderr == "(attempt 1 has not begun, and so has written nothing)\n"
    works.fail(run_id)
    assert say("run", "logs", run_id).stderr == (
        f"(nothing of it was kept when it ended, and its files are not here: {works.run().attempts[0].directory})\n"
    )
