"""The short form of `make chaos`: real processes on durable servers, each kind of them killed while chains are made."""

from datetime import timedelta

import pytest

from tests.chaos.killing import KINDS
from tests.chaos.play import Plan, play

SHORT = Plan(
    seed=4, chains=100, kills=10, each=1, every=timedelta(seconds=2), rest=timedelta(seconds=5), job_seconds=0.05
)


@pytest.mark.timeout(400)
def test_whatever_is_killed_every_chain_is_made_once_and_nothing_is_left() -> None:
    said: list[str] = []
    outcome = play(SHORT, said.append)
    assert outcome.wrong == [], "\n".join([*said, *outcome.table()])
    assert len({one.kind for one in outcome.kills}) == SHORT.kills == len(KINDS) - 1
