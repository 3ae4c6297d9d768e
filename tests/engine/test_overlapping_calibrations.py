"""Calibrations that are committed while pipelines are evaluated or defined: none is missed."""

from dataclasses import replace

import sqlalchemy as sa

from ccat_ops_db.states import Verdict
from tests.engine.history import History
from tests.engine.order import check
from tests.engine.test_auxiliary import FLAT, MAP, by_flat, define, of_source


def test_a_flat_that_is_committed_while_the_pipeline_is_evaluated_is_not_missed(ops_db: sa.Engine) -> None:
    history = History(ops_db, other_rules=of_source("Saturn"))
    define(history, by_flat(), FLAT)
    history.archive(source="Saturn")
    history.archive()
    history.create()
    history.start()
    with history.engine.connect() as connection:
        late = replace(history, within=connection)
        connection.begin()
        late.complete(history.runs_of("flat")[0].id)
        assert history.gap()["grid M17"].verdict is Verdict.BLOCKED
        connection.commit()
    assert history.gap()["grid M17"].verdict is Verdict.WANTED
    check(history)


def test_a_rule_that_is_applied_while_a_flat_is_made_finds_it(ops_db: sa.Engine) -> None:
    history = History(ops_db, other_rules=of_source("Saturn"))
    define(history, MAP, FLAT)
    history.archive(source="Saturn")
    history.archive()
    history.create()
    history.start()
    with history.engine.connect() as connection:
        late = replace(history, within=connection)
        connection.begin()
        late.complete(history.runs_of("flat")[0].id)
        define(history, by_flat(), FLAT)
        assert history.gap()["grid M17"].verdict is Verdict.BLOCKED
        connection.commit()
    assert history.gap()["grid M17"].verdict is Verdict.WANTED
    check(history)
