"""What a step is advised to ask for, given what its attempts used."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ccat_ops_db.definitions.steps import Resources
from ccat_ops_db.plan.advice import FEWEST, WORTH_IT, Advice, Asked, Measured, Used, advise, efficiency, sensible, span

EIGHT = Asked(cpu=1, memory_gb=8, time_hours=2)
FITS = Used(known=120, usual=1.1, most=1.2)
"""Hours that go with a time limit of two."""


def used(most: float, *, known: int = 120, **keys: Any) -> Used:
    return Used(known=known, usual=most, most=most, **keys)


def measured(memory: Used, *, time: Used = FITS, attempts: int = 120, cpu: Used = Used()) -> Measured:  # noqa: B008 - a value
    return Measured(attempts=attempts, memory=memory, time=time, cpu=cpu)


@pytest.mark.parametrize(
    ("amount", "figure"),
    [(1, 1), (1.01, 1.2), (2.2, 2.5), (0.12, 0.12), (0.26, 0.3), (8.1, 10), (93, 100), (0.1, 0.1), (3e-4, 3e-4)],
)
def test_figures_are_those_that_a_person_would_write(amount: float, figure: float) -> None:
    assert sensible(amount) == figure


@given(st.floats(1e-6, 1e6))
def test_a_figure_is_never_less_and_not_much_more(amount: float) -> None:
    assert amount * (1 - 1e-9) <= sensible(amount) <= amount * 1.34


# Less


def test_a_step_that_uses_little_is_advised_to_ask_for_what_its_largest_attempt_used_and_a_little_more() -> None:
    told = "its largest of 120 attempts used 800 MB of 8 GB"
    assert advise(EIGHT, measured(used(0.8))) == Advice({"memory_gb": 1.0}, told)


def test_a_time_limit_is_lowered_with_more_room_than_memory() -> None:
    told = "its longest of 120 attempts took 12 min of 2 h"
    assert advise(EIGHT, measured(used(6), time=used(0.2))) == Advice({"time_hours": 0.3}, told)


def test_nothing_is_proposed_below_a_floor() -> None:
    assert advise(EIGHT, measured(used(1e-4), time=used(1e-5))).proposal == {"memory_gb": 0.5, "time_hours": 0.1}
    small = Asked(cpu=1, memory_gb=0.2, time_hours=0.01)
    assert advise(small, measured(used(1e-4), time=used(1e-5))).proposal == {}


def test_what_differs_by_little_is_right_as_it_is() -> None:
    memory, time = "its largest of 120 attempts used 6.0 GB of 8 GB", "its longest of 120 attempts took 1.2 h of 2 h"
    assert advise(EIGHT, measured(used(6))) == Advice({}, f"right as it is: {memory}; {time}")


@pytest.mark.parametrize(
    ("cpu", "most", "proposal"),
    [(8, 1.0, {"cpu": 1}), (8, 2.1, {"cpu": 4}), (8, 2.8, {}), (2, 1.2, {}), (2, 0.9, {"cpu": 1}), (1, 0.2, {})],
)
def test_fewer_cpus_are_proposed_where_most_of_them_are_clearly_idle(
    cpu: int, most: float, proposal: dict[str, float]
) -> None:
    assert advise(replace(EIGHT, cpu=cpu), measured(used(6), cpu=used(most))).proposal == proposal


def test_cpus_are_those_of_each_task() -> None:
    asked = replace(EIGHT, cpu=8, ntasks=4)
    found = advise(asked, measured(used(6), cpu=used(4)))
    assert found.proposal == {"cpu": 1}
    assert found.because.startswith("at most 4.0 of 32 CPUs were busy on average; ")


# More


def test_a_step_whose_attempts_ran_out_of_memory_is_advised_to_ask_for_what_sufficed() -> None:
    found = advise(EIGHT, measured(used(7.9, known=110, ran_out=10, ran_out_at=8)))
    assert found == Advice({"memory_gb": 12.0}, "10 of 120 attempts ran out of memory, and had 8 GB or less")
    found = advise(EIGHT, measured(used(11, known=110, ran_out=10, ran_out_at=8.0)))
    assert found.proposal == {"memory_gb": 15.0}
    assert found.because.startswith("its largest of 110 attempts used 11 GB, and 8 GB is asked for")


def test_one_bad_scan_does_not_make_all_ask_for_more() -> None:
    memory, time = used(1.4, known=116, ran_out=4, ran_out_at=8), used(1.2, known=119, ran_out=1, ran_out_at=4)
    found = advise(replace(EIGHT, memory_gb=2), measured(memory, time=time))
    assert found.proposal == {}
    assert "4 of 120 attempts ran out of memory, and are tried again with more" in found.because
    assert "1 of 120 attempts ran out of time, and are tried again with more" in found.because


@pytest.mark.parametrize("asked", [2, 4, 8, 10, 16, 64])
def test_who_nearly_ran_out_is_advised_to_ask_for_more(asked: float) -> None:
    step = replace(EIGHT, memory_gb=asked)
    assert advise(step, measured(used(asked * 0.999))).proposal["memory_gb"] > asked
    assert advise(step, measured(used(asked * 0.9))).proposal == {}


def test_what_ran_out_of_less_than_is_asked_for_now_does_not_count() -> None:
    found = advise(EIGHT, measured(used(6, known=110, ran_out=10, ran_out_at=2)))
    assert found.because.startswith("right as it is: its largest of 110 attempts used 6.0 GB of 8 GB")


def test_where_nobody_measures_memory_what_ran_out_of_it_tells_enough() -> None:
    unknown = Used(ran_out=40, ran_out_at=8)
    assert advise(EIGHT, measured(unknown)).proposal == {"memory_gb": 12.0}


def test_a_time_limit_that_did_not_suffice_is_raised() -> None:
    found = advise(EIGHT, measured(used(6), time=used(1.9, known=110, ran_out=10, ran_out_at=2)))
    assert found == Advice({"time_hours": 3.0}, "10 of 120 attempts ran out of time, and had 2 h or less")


def test_nothing_is_proposed_beyond_the_cap_of_a_step_which_people_may_raise() -> None:
    ran_out = measured(used(7, ran_out=10, ran_out_at=8))
    ran = "10 of 120 attempts ran out of memory, and had 8 GB or less"
    told = ran + ", and `max_memory_gb` allows no more than {}: raise that"
    assert advise(replace(EIGHT, max_memory_gb=11), ran_out) == Advice({"memory_gb": 11}, told.format(11))
    found = advise(replace(EIGHT, max_memory_gb=8), ran_out)
    assert found.proposal == {}
    assert found.because.startswith(f"{told.format(8)}; the rest is right as it is: ")


# Unknown


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "none of its attempts has succeeded yet"),
        (4, "too few attempts are measured to judge by: 4 of at least 5"),
    ],
)
def test_of_few_attempts_nothing_is_concluded(number: int, told: str) -> None:
    assert advise(EIGHT, measured(used(0.1, known=number), attempts=number)) == Advice({}, told)


def test_what_nobody_measured_is_said_and_the_rest_is_judged_all_the_same() -> None:
    told = "how much memory it used is known of none of its attempts"
    right = "; the rest is right as it is: its longest of 120 attempts took 1.2 h of 2 h"
    assert advise(EIGHT, measured(Used())) == Advice({}, told + right)
    found = advise(EIGHT, measured(Used(), time=used(0.2)))
    assert found == Advice({"time_hours": 0.3}, f"its longest of 120 attempts took 12 min of 2 h; {told}")
    told = "memory is known of 2 attempts only, of at least 5"
    assert advise(EIGHT, measured(used(0.1, known=2))) == Advice({}, told + right)


def test_what_the_largest_of_several_tasks_used_does_not_lower_what_all_of_them_may() -> None:
    found = advise(replace(EIGHT, ntasks=4), measured(used(0.8)))
    assert found.proposal == {}
    assert found.because.startswith("how much memory several tasks used together is not measured; the rest is right")


def test_efficiency_is_what_was_used_of_what_the_cpus_could_have_given() -> None:
    assert efficiency(30, 60, 2) == 0.25
    assert [efficiency(None, 60, 2), efficiency(30, None, 2), efficiency(30, 0, 2)] == [None, None, None]


@pytest.mark.parametrize(
    ("hours", "told"), [(0, "0 s"), (0.01, "36 s"), (0.2, "12 min"), (1, "1 h"), (1.256, "1.26 h"), (240, "240 h")]
)
def test_a_time_is_told_in_the_unit_that_fits(hours: float, told: str) -> None:
    assert span(hours) == told


# Whatever was measured

amounts = st.floats(1e-4, 1e4)
uses = st.builds(
    lambda known, most, ran_out, at: Used(
        known=known if most is not None else 0,
        usual=most,
        most=most if known else None,
        ran_out=ran_out if at is not None else 0,
        ran_out_at=at if ran_out else None,
    ),
    st.integers(0, 1000),
    st.none() | amounts,
    st.integers(0, 1000),
    st.none() | amounts,
)
measures = st.builds(
    lambda attempts, memory, time, cpu: Measured(attempts=attempts, memory=memory, time=time, cpu=cpu),
    st.integers(0, 2000),
    uses,
    uses,
    uses,
)
steps = st.builds(
    lambda cpu, memory, time, tasks, more_memory, more_time: Asked(
        cpu=cpu,
        memory_gb=memory,
        time_hours=time,
        max_memory_gb=memory * more_memory if more_memory else None,
        max_time_hours=time * more_time if more_time else None,
        ntasks=tasks,
    ),
    st.integers(1, 128),
    amounts,
    st.floats(1e-4, 80),
    st.integers(1, 4),
    st.none() | st.floats(1, 100),
    st.none() | st.floats(1, 100),
)


@given(steps, measures)
def test_who_takes_advice_over_and_asks_again_gets_none(asked: Asked, found: Measured) -> None:
    taken = replace(asked, **advise(asked, found).proposal)  # type: ignore[arg-type]  # CPUs are whole numbers
    assert advise(taken, found).proposal == {}


@given(steps, measures)
def test_what_is_proposed_is_worth_it_suffices_and_stays_below_the_caps(asked: Asked, found: Measured) -> None:
    proposal = advise(asked, found).proposal
    for name, use in (("memory_gb", found.memory), ("time_hours", found.time)):
        before, cap = getattr(asked, name), getattr(asked, f"max_{name}")
        if (after := proposal.get(name)) is not None:
            ran_out_at = use.ran_out_at or 0 if use.ran_out > found.attempts * 0.05 else 0
            most = max(use.most or 0, ran_out_at)
            assert after > before * WORTH_IT or after * WORTH_IT < before or (after > before and most * 1.05 > before)
            assert after >= most or after == cap
            assert cap is None or after <= cap
    assert 1 <= proposal.get("cpu", 1) <= max(1, asked.cpu / 2)
    assert not proposal or found.attempts >= FEWEST


@given(steps, measures)
def test_what_is_proposed_can_be_written_into_a_file_of_definitions(asked: Asked, found: Measured) -> None:
    proposed = {**vars(asked), **advise(asked, found).proposal}
    limits = {name: value for name, value in proposed.items() if value is not None}
    assume(limits["time_hours"] < 8784)  # nothing takes a year
    Resources.model_validate(limits)


@given(steps, measures)
def test_what_is_proposed_or_right_is_said(asked: Asked, found: Measured) -> None:
    told = advise(asked, found)
    assert told.because
    assert not (told.proposal and "right as it is" in told.because)
