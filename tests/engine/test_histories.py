"""Whatever happens in whatever order: what is maintained is what the raw tables say, and work ends."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.happenings import HAPPENINGS, SHAPES, Happenings, come_to_rest, live_through
from tests.engine.history import History


@pytest.mark.timeout(1800)
@settings(max_examples=200, derandomize=True)
@given(shape=st.sampled_from(sorted(SHAPES)), happenings=HAPPENINGS)
def test_what_is_maintained_is_what_a_rebuild_and_the_raw_tables_say(
    fresh_history: Callable[[], History], shape: str, happenings: Happenings
) -> None:
    history = fresh_history()
    live_through(history, shape, happenings)
    come_to_rest(history)
