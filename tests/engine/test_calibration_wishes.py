"""What people ask for where calibrations are lacking comes with them, and nothing is promised that does not come."""

from datetime import timedelta

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from ccat.cli import app
from ccat_ops_db.states import Verdict
from ccat_ops_db.verbs.coverage import NothingToAccept
from ccat_workflow_manager.verbs.requesting import Opened, Wish, open_wish
from ccat_workflow_manager.verbs.trying import CannotTry, Trial, open_trial
from tests.engine.history import History
from tests.engine.test_auxiliary import FLAT, by_flat, define, flat, of_source, rule, told


@pytest.fixture
def history(ops_db: sa.Engine) -> History:
    return History(ops_db, other_rules=of_source("Saturn"))


def wish(history: History) -> Opened:
    return history.session(lambda session: open_wish(session, Wish("it", "please"), now=history.now, by="Ann"))


def test_a_wish_waits_for_the_calibration_of_another_pipeline(history: History) -> None:
    define(history, by_flat(), FLAT, trigger="manual")
    history.archive(source="Saturn")
    history.archive()
    history.create()
    history.start()
    opened = wish(history)
    assert (opened.requested, opened.waiting, opened.hopeless) == (1, 1, 0)
    history.create()
    history.create()
    history.complete(history.runs_of("flat")[0].id)
    history.create()
    [made] = history.runs_of("grid")
    assert made.trigger_id == opened.trigger_id


def test_what_lacks_a_calibration_for_good_is_not_promised(history: History) -> None:
    define(history, by_flat(on_missing="fail"), FLAT)
    history.archive()
    history.create()
    opened = wish(history)
    assert (opened.requested, opened.waiting, opened.hopeless) == (0, 0, 1)
    history.create()
    environment = {"CCAT_OPS_DB_URL": history.engine.url.render_as_string(hide_password=False)}
    done = CliRunner().invoke(app, ["trigger", "it"], env=environment)
    assert done.stdout == "1 sub-group is not run for want of what it takes: `ccat gap it`.\n"


def test_accepting_does_not_stand_for_a_calibration(history: History) -> None:
    scan = {"key": "grid", "group_by": ["executed_obs_unit"], "wait_for": "scan_complete", "auxiliary": [rule()]}
    define(history, scan, FLAT)
    package = history.archive()
    history.create()
    [found] = history.gap().values()
    with pytest.raises(NothingToAccept):
        history.accept_for("grid", found.path)
    history.write(package)
    flat(history)
    [name] = [name for name in history.gap() if name.startswith("grid")]
    assert told(history, name)[0] is Verdict.BLOCKED


def test_what_lacks_a_calibration_is_not_tried_out(history: History) -> None:
    define(history, by_flat(), FLAT)
    history.archive()
    history.create()
    path = history.gap()["grid M17"].path
    trial = Trial(pipeline="it", because="a test", step="grid", sub_groups=[path], keep=timedelta(days=1))
    with pytest.raises(CannotTry) as refused:
        history.session(lambda session: open_trial(session, trial, now=history.now, by="Ann"))
    assert str(refused.value) == (
        "There is no flat for all packages of what is to be tried: `ccat gap` says for which. No run was created."
    )
