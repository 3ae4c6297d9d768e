"""Which failures are tried again, when, and how often."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db.states import FailureClass
from ccat_workflow_manager.plan.retries import Retry, Tries, retry_after

NEVER = (FailureClass.DATA, FailureClass.CONFIGURATION)


def test_failures_of_the_software_are_counted_against_the_step() -> None:
    failure = FailureClass.PAYLOAD
    assert retry_after(failure, Tries(counted=1, trouble=4, allowed=2), jitter=0.5) == Retry(
        timedelta(seconds=3), counted=2, trouble=0
    )
    assert retry_after(failure, Tries(counted=2, trouble=0, allowed=2), jitter=0) is None
    assert retry_after(failure, Tries(counted=0, trouble=0, allowed=0), jitter=0) is None


def test_what_used_up_its_resources_is_tried_again_as_long_as_it_gets_more_whatever_the_step_allows() -> None:
    grows = Tries(counted=3, trouble=4, allowed=0, may_grow=True)
    assert retry_after(FailureClass.RESOURCES, grows, jitter=0.5) == Retry(timedelta(seconds=1.5), 3, 0)
    assert retry_after(FailureClass.RESOURCES, Tries(counted=0, trouble=0, allowed=9), jitter=0.5) is None


@pytest.mark.parametrize("failure", NEVER)
def test_what_would_fail_again_is_not_tried_again(failure: FailureClass) -> None:
    assert retry_after(failure, Tries(counted=0, trouble=0, allowed=9), jitter=0) is None


def test_trouble_outside_is_tried_ten_times_whatever_the_step_allows() -> None:
    retries = [retry_after(FailureClass.INFRASTRUCTURE, Tries(0, trouble, 0), jitter=0.5) for trouble in range(11)]
    assert [retry.delay.total_seconds() if retry else None for retry in retries] == [
        *(1.5 * 2**number for number in range(10)),
        None,
    ]
    assert [(retry.counted, retry.trouble) for retry in retries if retry] == [(0, number) for number in range(1, 11)]


def test_trouble_outside_is_tried_for_a_day_after_its_first_failure_at_most() -> None:
    hour = timedelta(hours=1)
    tries = [Tries(0, 1, 9, trouble_for=hours * hour) for hours in (23, 24)]
    retries = [retry_after(FailureClass.INFRASTRUCTURE, one, jitter=0) for one in tries]
    assert [retry is not None for retry in retries] == [True, False]


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 60))
def test_jitter_spreads_over_the_upper_half_and_no_pause_is_longer_than_a_few_hours(
    jitter: float, counted: int
) -> None:
    retry = retry_after(FailureClass.PAYLOAD, Tries(counted, 0, 100), jitter=jitter)
    assert retry is not None
    plain = min(2 * 2**counted, 4 * 3600)
    assert 0.5 * plain <= retry.delay.total_seconds() <= plain
