"""What attempts ask for: more of what did not suffice, and never more than the step allows."""

from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from ccat_ops_db.definitions.steps import Resources
from ccat_ops_db.states import Resource
from ccat_workflow_manager.plan.resources import DEFAULT_CAP, Asked, may_grow, next_request

amounts = st.floats(1e-4, 1e4)
steps = st.builds(
    lambda memory, time, more_memory, more_time: {
        "memory_gb": memory,
        "time_hours": time,
        **({"max_memory_gb": memory * more_memory} if more_memory else {}),
        **({"max_time_hours": time * more_time} if more_time else {}),
    },
    amounts,
    amounts,
    st.none() | st.floats(1, 100),
    st.none() | st.floats(1, 100),
)
used_up = st.none() | st.sampled_from(Resource)


def caps(step: dict[str, Any]) -> Asked:
    return Asked(
        step.get("max_memory_gb", step["memory_gb"] * DEFAULT_CAP),
        step.get("max_time_hours", step["time_hours"] * DEFAULT_CAP),
    )


@given(steps)
def test_the_first_attempt_asks_for_what_its_step_does(step: dict[str, Any]) -> None:
    assert next_request(step) == Asked(step["memory_gb"], step["time_hours"])


@given(steps, st.lists(used_up, max_size=60))
def test_whatever_happens_nothing_shrinks_and_nothing_exceeds_the_caps(
    step: dict[str, Any], story: list[Resource | None]
) -> None:
    last, most = next_request(step), caps(step)
    for one in story:
        asked = next_request(step, last, one)
        assert last.memory_gb <= asked.memory_gb <= most.memory_gb
        assert last.time_hours <= asked.time_hours <= most.time_hours
        if one is not Resource.MEMORY:
            assert asked.memory_gb == last.memory_gb
        if one is not Resource.TIME:
            assert asked.time_hours == last.time_hours
        last = asked


@given(steps, st.sampled_from(Resource))
def test_what_always_runs_out_of_the_same_comes_to_its_cap_and_is_given_up(step: dict[str, Any], one: Resource) -> None:
    last, attempts = next_request(step), 1
    while may_grow(step, last, one):
        last, attempts = next_request(step, last, one), attempts + 1
        assert attempts <= 14, "a hundred times as much takes no more"
    name = "memory_gb" if one is Resource.MEMORY else "time_hours"
    assert getattr(last, name) * 1.05 * (1 + 1e-12) >= getattr(caps(step), name)  # but for the last digit of a float


@given(steps, amounts, amounts, used_up)
def test_a_step_that_asks_for_more_by_now_gets_it_at_once(
    step: dict[str, Any], memory: float, time: float, one: Resource | None
) -> None:
    assume(memory <= step["memory_gb"] and time <= step["time_hours"])
    asked = next_request(step, Asked(memory, time), one)
    assert asked.memory_gb >= step["memory_gb"]
    assert asked.time_hours >= step["time_hours"]


def test_it_grows_by_half_up_to_four_times_where_the_step_does_not_say() -> None:
    step = Resources(memory_gb=2, time_hours=1).as_stored()
    assert next_request(step, Asked(2, 1), Resource.MEMORY) == Asked(3, 1)
    assert next_request(step, Asked(7, 1), Resource.MEMORY) == Asked(8, 1)
    assert not may_grow(step, Asked(8, 1), Resource.MEMORY)
    assert not may_grow(step, Asked(2, 1), None)
