"""Runs that a limit holds, while what they are for changes: they are neither forgotten nor looked at without end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.states import RunReason, RunStatus
from ccat_ops_db.verbs.limiting import limit_location
from ccat_workflow_manager.verbs.claiming import claim_pending
from ccat_workflow_manager.verbs.requesting import Wish, open_wish
from tests.engine.history import History

SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
MAP: dict[str, Any] = {"key": "grid", "group_by": ["source"]}
NIGHT = {"redo_between": {"from": "22:00", "to": "06:00"}}
STAGING, PENDING, CANCELLED = RunStatus.STAGING_DATA, RunStatus.PENDING, RunStatus.CANCELLED
_Run = models.ExecutedReductionStep


def claimed(history: History, *, most: int = 100) -> list[int]:
    """Runs that a manager would look at now."""
    return history.session(
        lambda session: claim_pending(session, sa.true(), by="a test", lease=timedelta(0), most=most, now=history.now)
    )


def why(history: History, run_id: int) -> str:
    """Why a run is as it is."""
    moves = sa.select(models.StatusChange.because).filter_by(noun=_Run.__tablename__, object_id=run_id)
    return history.session(lambda session: session.scalars(moves.order_by(models.StatusChange.id)).all())[-1]


@pytest.fixture
def noon(history: History) -> History:
    """It is noon, of a day to come."""
    now = datetime.now(UTC)
    history.offset = now.replace(hour=12, minute=0) + timedelta(days=1) - now
    return history


def force(history: History) -> None:
    wish = Wish("it", "a test", force=True)
    history.session(lambda session: open_wish(session, wish, now=history.now, by="a test"))
    history.create()


def test_new_data_let_a_run_start_that_waited_for_the_window_of_redoing(noon: History) -> None:
    noon.define(MAP, limits=NIGHT)
    noon.archive()
    noon.settle()
    force(noon)
    [run] = noon.runs(PENDING)
    assert (run.reason, claimed(noon)) == (RunReason.REQUESTED, [])
    noon.archive()
    noon.create()
    [run] = noon.runs(PENDING)
    assert run.reason is RunReason.INPUTS_CHANGED
    assert run.because == noon.gap()["grid M17"].because
    assert claimed(noon) == [run.id]
    assert noon.start(run.id).started == (run.id,)


def test_so_they_do_whoever_notices_them(noon: History) -> None:
    noon.define(MAP, limits=NIGHT)
    noon.archive()
    noon.settle()
    force(noon)
    noon.archive()
    noon.gap()  # takes the changes before the trigger-manager does
    noon.create()
    assert claimed(noon) == noon.ids(PENDING)


def test_a_run_whose_inputs_are_fixed_stays_for_the_reason_that_it_began_for(noon: History) -> None:
    noon.define(MAP)
    noon.archive()
    noon.create()
    [first] = noon.start().started
    noon.fail(first, retried=True)
    noon.offset += timedelta(hours=2)
    assert noon.retry() == [first]
    noon.archive()
    noon.configure("grid", 1)
    noon.create()
    [run] = noon.runs(PENDING)
    assert run.reason is RunReason.MISSING


def test_a_run_that_is_held_is_cancelled_when_its_sub_group_is_gone(noon: History) -> None:
    noon.define(SCAN, limits=NIGHT)
    package = noon.archive()
    noon.settle()
    noon.configure("calibrate", 1)
    noon.create()
    [run] = noon.start().held
    assert claimed(noon) == []
    noon.exclude(package)
    noon.create()
    [cancelled] = noon.runs(CANCELLED)
    assert (cancelled.id, cancelled.not_needed) == (run, True)
    assert why(noon, run) == "its sub-group is gone"


def test_a_run_that_is_held_is_cancelled_when_its_sub_group_is_up_to_date_again(noon: History) -> None:
    noon.define(SCAN, limits=NIGHT)
    noon.archive()
    noon.settle()
    noon.configure("calibrate", 1)
    noon.create()
    [run] = noon.start().held
    noon.configure("calibrate", 0)
    noon.create()
    [cancelled] = noon.runs(CANCELLED)
    assert (cancelled.id, cancelled.not_needed) == (run, True)
    assert why(noon, run) == "not needed: recipe and inputs are those of the newest completed run"


def test_whoever_starts_runs_cancels_what_nothing_needs(history: History) -> None:
    history.define(SCAN)
    package = history.archive()
    history.create()
    [run] = history.ids(PENDING)
    history.exclude(package)
    started = history.start(run)
    assert (started.started, started.not_needed) == ((), (run,))


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_to_be_cancelled_takes_no_room_wherever_it_stands(history: History, place: int) -> None:
    history.define(SCAN, limits={"live": 1})
    history.archive()
    history.archive()
    history.create()
    runs = history.ids(PENDING)
    group, member = models.SubGroup, models.SubGroupPackage
    of_run = sa.select(member.raw_data_package_id).join(group, group.id == member.sub_group_id)
    [excluded] = history.session(
        lambda session: session.scalars(of_run.filter(group.active_run_id == runs[place])).all()
    )
    history.exclude(excluded)
    history.create()
    assert claimed(history) == [runs[1 - place]]


@pytest.fixture
def second(history: History) -> str:
    """Another processing location."""

    def make(session: Any) -> str:
        first = session.scalars(sa.select(models.DataLocation).filter_by(name="ramses")).one()
        own = {"id", "name", "identity", "claimed_by", "lease_until", "live_limit"}
        keys = [one.key for one in sa.inspect(type(first)).column_attrs if one.key not in own]
        session.add(type(first)(name="second", **{key: getattr(first, key) for key in keys}))
        return "cologne/second"

    return history.session(make)


def move(history: History, place: str) -> None:
    """Have the pipeline run at another location from now on."""
    history.keys = {**history.keys, "location": place}
    history.apply()


def test_the_runs_of_a_pipeline_that_moved_are_held_by_the_limit_of_where_it_is_now(
    history: History, second: str
) -> None:
    history.define(SCAN)
    history.archive()
    history.archive()
    history.create()
    live, waits = history.ids(PENDING)
    move(history, second)
    history.start(live)
    history.session(lambda session: limit_location(session, second, 1))
    history.execute(sa.update(_Run).where(_Run.id == waits).values(data_location_id=_location(history, "ramses")))
    assert claimed(history) == [waits]
    assert history.start(waits).held == (waits,)
    assert claimed(history) == []


def test_the_limit_of_where_a_pipeline_was_holds_it_no_more(history: History, second: str) -> None:
    history.define(SCAN)
    history.archive()
    history.archive()
    history.session(lambda session: limit_location(session, "cologne/ramses", 1))
    history.create()
    history.start()
    [waits] = history.ids(PENDING)
    assert claimed(history) == []
    move(history, second)
    history.create()
    assert claimed(history) == [waits]


def _location(history: History, name: str) -> int:
    wanted = sa.select(models.DataLocation.id).filter_by(name=name)
    return history.session(lambda session: session.scalars(wanted).one())


def test_a_run_that_comes_back_to_a_sub_group_that_is_gone_is_cancelled(noon: History) -> None:
    noon.define(SCAN, limits=NIGHT)
    package = noon.archive()
    noon.create()
    [run] = noon.start().started
    noon.fail(run, retried=True)
    noon.exclude(package)
    noon.create()
    noon.offset += timedelta(hours=2)
    assert noon.retry() == [run]
    noon.create()
    assert noon.ids(CANCELLED) == [run]


def test_a_run_of_a_step_that_is_removed_is_cancelled(noon: History) -> None:
    noon.define(SCAN, {**MAP, "depends_on": ["calibrate"]}, limits=NIGHT)
    noon.archive()
    noon.settle()
    noon.configure("grid", 1)
    noon.create()
    [run] = noon.start().held
    noon.define(SCAN, limits=NIGHT)
    noon.create()
    assert noon.ids(CANCELLED) == [run]


def test_a_run_whose_sub_group_was_forgotten_is_cancelled_by_a_rebuild(noon: History) -> None:
    noon.define(SCAN)
    package = noon.archive()
    noon.create()
    [run] = noon.ids(PENDING)
    noon.execute(sa.delete(models.SubGroup))
    noon.execute(sa.delete(models.SubGroupPackage))
    noon.exclude(package)
    noon.rebuilt()
    assert noon.ids(CANCELLED) == [run]
