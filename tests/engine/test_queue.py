"""Who goes first under a limit, after pauses and other waits: the order of the queue, and nobody in vain."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.states import RunStatus
from ccat_ops_db.verbs.limiting import limit_location
from ccat_ops_db.verbs.pausing import pause, resume
from ccat_workflow_manager.verbs.claiming import claim_pending, note_stopped
from tests.engine.history import History
from tests.engine.test_auxiliary import FLAT, of_source

SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
PENDING, STAGING = RunStatus.PENDING, RunStatus.STAGING_DATA
PLACE = "cologne/ramses"
_Run = models.ExecutedReductionStep


def claimed(history: History, *, most: int = 100, lease: timedelta = timedelta(0)) -> list[int]:
    """Runs that a manager would look at now."""
    return history.session(
        lambda session: claim_pending(session, sa.true(), by="a test", lease=lease, most=most, now=history.now)
    )


def noted(history: History) -> int:
    return history.session(lambda session: note_stopped(session, sa.true()))


def hold(history: History, *, location: str | None = None, everything: bool = False) -> None:
    pipeline = None if location or everything else "it"
    history.session(lambda session: pause(session, pipeline=pipeline, location=location, because="rain", by="Ann"))


def go_on(history: History, *, location: str | None = None, everything: bool = False) -> None:
    pipeline = None if location or everything else "it"
    history.session(lambda session: resume(session, pipeline=pipeline, location=location))


def switch(history: History, *, enabled: bool) -> None:
    history.keys = {**history.keys, "enabled": enabled}
    history.apply()


def one_by_one(history: History, rounds: int) -> list[int]:
    """Runs in the order in which they start, while there is room for one, and more comes each time."""
    started: list[int] = []
    for _ in range(rounds):
        history.archive()
        history.create()
        started += history.start(*claimed(history)).started
        history.complete(*history.ids(STAGING))
    return started


@pytest.fixture
def waiting(history: History) -> list[int]:
    """Runs of a pipeline of which one may be live."""
    history.define(SCAN, limits={"live": 1})
    history.archive()
    history.archive()
    history.create()
    return history.ids(PENDING)


def test_what_was_paused_goes_before_what_came_later(history: History, waiting: list[int]) -> None:
    hold(history)
    noted(history)
    go_on(history)
    assert one_by_one(history, 3)[:2] == waiting


def test_what_was_disabled_goes_before_what_came_later(history: History, waiting: list[int]) -> None:
    switch(history, enabled=False)
    assert noted(history) == 2
    assert {run.waiting_for for run in history.runs(PENDING)} == {"its pipeline is disabled"}
    switch(history, enabled=True)
    assert {run.waiting_for for run in history.runs(PENDING)} == {None}
    assert one_by_one(history, 3)[:2] == waiting


def test_what_waited_for_something_that_is_there_now_goes_before_what_came_later(
    history: History, waiting: list[int]
) -> None:
    history.execute(sa.update(_Run).values(waiting_for="waits for a calibration"))
    assert one_by_one(history, 3)[:2] == waiting


def test_each_batch_looks_at_some_that_wait_and_in_turns(history: History) -> None:
    history.define(SCAN, limits={"live": 100})
    for _ in range(11):
        history.archive()
    history.create()
    wait, ready = set(history.ids(PENDING)[:3]), set(history.ids(PENDING)[3:])
    history.execute(sa.update(_Run).where(_Run.id.in_(wait)).values(waiting_for="waits for a calibration"))
    seen = [set(claimed(history, most=4)) for _ in range(3)]
    assert [len(batch & ready) for batch in seen] == [3, 3, 3]
    assert set.union(*(batch & wait for batch in seen)) == wait


def test_where_nothing_else_is_to_be_done_as_many_that_wait_are_looked_at_as_there_is_place_for(
    history: History, waiting: list[int]
) -> None:
    history.execute(sa.update(_Run).values(waiting_for="waits for a calibration"))
    assert claimed(history, most=4, lease=timedelta(seconds=5)) == waiting


@pytest.mark.parametrize("whole", [{}, {"location": PLACE}, {"everything": True}])
def test_why_a_pipeline_is_paused_is_written_on_its_runs_once(
    history: History, waiting: list[int], whole: dict[str, Any]
) -> None:
    hold(history, **whole)
    assert claimed(history) == []
    assert (noted(history), noted(history)) == (2, 0)
    told = {run.waiting_for or "" for run in history.runs(PENDING)}
    assert all(one.startswith("paused by Ann since ") and one.endswith(" UTC: rain") for one in told)
    go_on(history, **whole)
    assert {run.waiting_for for run in history.runs(PENDING)} == {None}
    assert claimed(history) == waiting[:1]


def test_a_pause_that_ends_leaves_those_of_others(history: History, waiting: list[int]) -> None:
    hold(history)
    hold(history, everything=True)
    noted(history)
    go_on(history)
    assert claimed(history) == []
    assert noted(history) == len(waiting)


@pytest.mark.parametrize("stop", [hold, lambda history: switch(history, enabled=False)])
def test_what_is_paused_or_disabled_takes_no_room_of_others(history: History, stop: Any) -> None:
    history.other_rules = of_source("Saturn")
    history.define(SCAN, FLAT, rules=of_source("M17"))
    for _ in range(3):
        history.archive()
    history.archive(source="Saturn")
    history.create()
    history.session(lambda session: limit_location(session, PLACE, 1))
    stop(history)
    [flat] = [run.id for run in history.runs_of("flat")]
    assert claimed(history) == [flat]
    assert history.start(flat).started == (flat,)
