"""The same while packages fade by a relative time: what is maintained is what the raw tables say, and work ends."""

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from ccat_ops_db import models
from ccat_ops_db.states import RunStatus
from tests.engine.happenings import HAPPENINGS, RECENT, SHAPES, Happenings, live_through
from tests.engine.history import History


@pytest.mark.timeout(1800)
@settings(max_examples=200, derandomize=True)
@given(shape=st.sampled_from(sorted(SHAPES)), happenings=HAPPENINGS)
def test_what_is_maintained_is_what_a_rebuild_and_the_raw_tables_say(
    fresh_history: Callable[[], History], shape: str, happenings: Happenings
) -> None:
    history = fresh_history()
    history.rules = [RECENT]
    live_through(history, shape, happenings)


def test_time_that_goes_by_costs_in_proportion_to_what_it_lets_go(history: History) -> None:
    history.define({"key": "calibrate", "group_by": ["executed_obs_unit"]}, rules=[RECENT])
    young, old = history.archive(), history.archive(hours_ago=23)
    history.create()
    member = models.SubGroupPackage
    history.execute(sa.update(member).values(is_faded=True).where(member.raw_data_package_id == young))
    history.offset = timedelta(hours=2)
    history.create()
    faded = set(history.connection.scalars(sa.select(member.raw_data_package_id).where(member.is_faded)))
    assert faded == {young, old}  # nobody looked at the one of which nothing went by
    assert history.rebuilt() > 0


def test_what_enters_a_window_by_time_alone_is_found(history: History) -> None:
    until = {"table": "ExecutedObsUnit", "column": "started_at", "operator": "lt", "value": {"now": "-24h"}}
    history.define({"key": "calibrate", "group_by": ["executed_obs_unit"]}, rules=[until])
    history.archive(hours_ago=23)
    history.create()
    assert history.ids(RunStatus.PENDING) == []
    history.offset = timedelta(hours=2)
    history.create()
    assert len(history.ids(RunStatus.PENDING)) == 1
