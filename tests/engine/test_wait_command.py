"""What `ccat wait` says when it gives up."""

import sqlalchemy as sa
from typer.testing import CliRunner

from ccat.cli import app
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
    assert "after 0 s there is still work under way: 1 runs pending, 1 runs staging data." in said
    assert f"Longest so: run {first} (it/calibrate) is staging data; " in said
    assert f"run {second} (it/calibrate) is pending: 1 of 1 runs of pipeline `it` are live." in said
