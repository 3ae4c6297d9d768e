"""Whatever happens in whatever order: what is maintained is what the raw tables say, and work ends.

Runs are created at every change, or wait for a tick or a wish, and come to their end in any order.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccat_ops_db.states import Verdict
from ccat_workflow_manager.verbs.requesting import NothingReleased
from tests.engine.happenings import ORDERS, SHAPES, WHEN, WISHES, Happenings, come_to_rest, live_through
from tests.engine.history import History


@pytest.mark.timeout(1800)
@settings(max_examples=200, derandomize=True)
@given(
    shape=st.sampled_from(sorted(SHAPES)),
    when=st.sampled_from(["at every change", *sorted(WHEN)]),
    happenings=WISHES,
    order=ORDERS,
    is_restless=st.booleans(),
)
def test_what_is_maintained_is_what_a_rebuild_and_the_raw_tables_say(
    fresh_history: Callable[[], History],
    shape: str,
    when: str,
    happenings: Happenings,
    order: Random,
    *,
    is_restless: bool,
) -> None:
    history = fresh_history()
    history.keys, history.is_restless = dict(WHEN[when]), is_restless
    live_through(history, shape, happenings)
    come_to_rest(history, order)
    if is_restless:  # or none would tell
        made_again_all_once(history, order)


def made_again_all_once(history: History, order: Random) -> None:
    """Have somebody want again all that is up to date, and see that it is made, and not twice."""
    up_to_date = {(one.step.key, one.key) for one in history.gap().values() if one.verdict is Verdict.UP_TO_DATE}
    before = {run.id for run in history.runs()}
    with suppress(NothingReleased):
        history.wish(force=True)
    history.settle(order=order)
    made = Counter((history.step_of(run), run.sub_group_key) for run in history.runs() if run.id not in before)
    assert up_to_date <= made.keys()
    if all(step.get("readiness") != "available" for step in history.steps):  # or what is half made again is made first
        assert {made[place] for place in up_to_date} <= {1}
    assert history.open_triggers() == []
