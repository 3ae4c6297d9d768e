"""The short form of `make chaos`: real processes on durable servers, each kind of them killed while chains are made."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.killing import KINDS, Kill
from tests.chaos.play import Plan, lacking, play

SHORT = Plan(
    seed=4,
    chains=100,
    kills=len(KINDS),
    each=1,
    every=timedelta(seconds=2),
    rest=timedelta(seconds=5),
    job_seconds=0.05,
)


@pytest.mark.timeout(400)
def test_whatever_is_killed_every_chain_is_made_once_and_nothing_is_left() -> None:
    said: list[str] = []
    outcome = play(SHORT, said.append)
    assert outcome.wrong == [], "\n".join([*said, *outcome.table()])
    assert sorted(one.kind for one in outcome.kills) == sorted(KINDS)


def test_a_kind_that_was_spared_and_work_that_did_not_flow_again_are_wrong() -> None:
    at, recovered = datetime(2026, 4, 5, tzinfo=UTC), timedelta(seconds=1)
    kills = [Kill(kind, None, at, recovered_after=recovered) for kind in KINDS]
    assert list(lacking(SHORT, kills, is_over=False)) == []
    assert list(lacking(SHORT, kills[1:], is_over=True)) == [f"{KINDS[0]} was killed 0 of 1 times"]
    assert list(lacking(replace(SHORT, kills=3), kills[:3], is_over=True)) == []
    stuck = [*kills[1:], Kill(KINDS[0], None, at)]
    assert list(lacking(SHORT, stuck, is_over=True)) == []
    assert list(lacking(SHORT, stuck, is_over=False)) == [
        f"work did not flow again after {KINDS[0]} was killed at 00:00:00 UTC"
    ]
