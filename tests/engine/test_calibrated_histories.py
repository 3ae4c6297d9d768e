"""The same where rules choose auxiliary inputs: what is maintained is what the raw tables say, and work ends."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.happenings import CALIBRATED, HAPPENINGS, RECENT, Happenings, live_through
from tests.engine.history import History


@pytest.mark.timeout(1800)
@settings(max_examples=200, derandomize=True)
@given(shape=st.sampled_from(sorted(CALIBRATED)), happenings=HAPPENINGS, fades=st.booleans())
def test_what_is_maintained_is_what_a_rebuild_and_the_raw_tables_say(
    fresh_history: Callable[[], History], shape: str, happenings: Happenings, *, fades: bool
) -> None:
    history = fresh_history()
    history.rules = [RECENT] if fades else []
    live_through(history, shape, happenings)
