"""What `ccat wait` says when it gives up."""

from dataclasses import replace

import sqlalchemy as sa
from typer.testing import CliRunner

from ccat.cli import app
from ccat.cli.waiting import conclude, describe
from ccat_ops_db.queries.activity import Activity
from ccat_ops_db.states import RunStatus
from tests.engine.history import History

SCAN = {"key": "calibrate", "group_by": ["executed_obs_unit"]}


def test_what_is_still_under_way_is_named_with_what_keeps_it(ops_db: sa.Engine) -> None:
    history = History(ops_db)
    history.define(SCAN, limits={"live": 1})
    history.archive()
    history.archive()
    history.create()
    history.start()
    environment = {"CCAT_OPS_DB_URL": ops_db.url.render_as_string(hide_password=False)}
    ended = CliRunner().invoke(app, ["wait", "--timeout", "0"], env=environment)
    first, second = (run.id for run in history.runs())
    said = " ".join(ended.stderr.split())
    assert ended.exit_code == 1
    assert "after 0 s there is still work under way: 1 run pending, 1 run staging data." in said
    assert f"Longest so: run {first} (it/calibrate) is staging data; " in said
    assert f"run {second} (it/calibrate) is pending: 1 of 1 runs of pipeline `it` are live." in said


QUIET = Activity(
    unpackaged_files=0,
    moving_packages=0,
    unevaluated_changes=0,
    active_runs={},
    wanted=0,
    cooling=0,
    next_due=None,
    failed_packages=0,
    failed_sub_groups=0,
)


def test_numbers_are_told_in_their_form() -> None:
    one = replace(QUIET, unpackaged_files=1, moving_packages=1, active_runs={RunStatus.RUNNING: 1}, wanted=1, cooling=1)
    assert describe(one) == (
        "1 file to be packed, 1 package on the way, 1 run running, 1 run wanted, 1 sub-group resting"
    )
    two = replace(
        one, unpackaged_files=2000, moving_packages=2, active_runs={RunStatus.RUNNING: 2}, wanted=2, cooling=2
    )
    assert describe(two) == (
        "2,000 files to be packed, 2 packages on the way, 2 runs running, 2 runs wanted, 2 sub-groups resting"
    )
    assert (describe(QUIET), conclude(QUIET)) == ("nothing", "nothing is under way")
    assert conclude(replace(QUIET, failed_packages=1, failed_sub_groups=2)).splitlines()[1:] == [
        "1 raw package failed: `ccat packages --state failed`",
        "2 sub-groups failed: `ccat runs --status failed`",
    ]
