"""In which order runs start: new data of a pipeline before it redoes, and priority with ageing between pipelines."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.sql.dml import ReturningInsert

from ccat_ops_db import models
from ccat_ops_db.plan.limits import Limit, Limits, Occupant, Room, Scope
from ccat_ops_db.states import RunReason, RunStatus
from ccat_ops_db.verbs.limiting import limit_location
from ccat_workflow_manager.verbs.claiming import claim_pending
from ccat_workflow_manager.verbs.limiting import first_in_line, in_line
from ccat_workflow_manager.verbs.queueing import in_order
from tests.engine.history import History
from tests.engine.test_auxiliary import FLAT

SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
PENDING, STAGING = RunStatus.PENDING, RunStatus.STAGING_DATA
NEW, REDO = RunReason.MISSING, RunReason.RECIPE_CHANGED
PIPELINES = ("it", "calibration")
HOUR = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
_Run = models.ExecutedReductionStep


class Waiting(NamedTuple):
    """A run that waits."""

    pipeline: str
    reason: RunReason
    hours: int = 0
    priority: int = 0

    @property
    def is_redo(self) -> bool:
        return self.reason is REDO

    @property
    def rank(self) -> int:
        return -self.hours - self.priority


def expected(runs: Sequence[Waiting]) -> list[int]:
    """The order as the design says it: places in the list."""
    own: dict[str, list[int]] = defaultdict(list)
    for number, run in sorted(enumerate(runs), key=lambda one: (one[1].is_redo, one[1].rank, one[0])):
        own[run.pipeline].append(number)
    effective = {
        number: max(runs[before].rank for before in line[: place + 1])
        for line in own.values()
        for place, number in enumerate(line)
    }
    return sorted(effective, key=lambda one: (effective[one], runs[one].is_redo, runs[one].rank, one))


def line_up(history: History, runs: Sequence[Waiting]) -> list[int]:
    """Have nothing but these runs wait, of two pipelines; their ids."""
    return wait(history, runs, like=one_of_each(history))


def one_of_each(history: History) -> dict[str, int]:
    """A run of each of two pipelines, which does not wait."""
    history.define(SCAN, FLAT)
    history.archive()
    history.create()
    names = dict(zip(("calibrate", "flat"), PIPELINES, strict=True))
    found = {names[run.reduction_step.key]: run.id for run in history.runs(PENDING)}
    for run_id in found.values():
        history.cancel(run_id)
    return found


def wait(history: History, runs: Sequence[Waiting], *, like: Mapping[str, int]) -> list[int]:
    """Have runs wait which are like one of their pipeline; their ids."""

    def work(session: Any) -> list[int]:
        return [session.connection().scalars(_COPY, copied(run, number, like)).one() for number, run in enumerate(runs)]

    return history.session(work)


def copied(run: Waiting, number: int, like: Mapping[str, int]) -> dict[str, Any]:
    return {
        "like": like[run.pipeline],
        "status": PENDING,
        "finished_at": None,
        "sub_group_key": f"executed_obs_unit={number}",
        "reason": run.reason,
        "priority": run.priority,
        "created_at": HOUR - timedelta(hours=run.hours),
    }


def _copy() -> ReturningInsert[int]:
    """Copies the run that it is `like`, but for what is said."""
    own = {"status", "finished_at", "sub_group_key", "reason", "priority", "created_at"}
    kept = [one for one in _Run.__table__.columns if one.name != "id" and one.computed is None]
    values = [sa.bindparam(one.name, type_=one.type) if one.name in own else one for one in kept]
    chosen = sa.select(*values).where(_Run.id == sa.bindparam("like", type_=sa.BigInteger()))
    return sa.insert(_Run).from_select([one.name for one in kept], chosen).returning(_Run.id)


_COPY = _copy()


def claimed(history: History, most: int) -> list[int]:
    """Runs that a manager would look at now."""
    return history.session(
        lambda session: claim_pending(
            session, sa.true(), by="a test", lease=timedelta(0), most=most, now=datetime.now(UTC)
        )
    )


ORDERS = {
    "new data before redoing that has waited for longer": (
        [Waiting("it", REDO, 9), Waiting("it", REDO, 8), Waiting("it", NEW)],
        [2, 0, 1],
    ),
    "new data before redoing that is more important": ([Waiting("it", REDO, 0, 9), Waiting("it", NEW)], [1, 0]),
    "of new data the more important": ([Waiting("it", NEW), Waiting("it", NEW, 0, 1)], [1, 0]),
    "of equals the first": ([Waiting("it", NEW), Waiting("it", NEW)], [0, 1]),
    "redoing of the more important pipeline before new data of another": (
        [Waiting("calibration", NEW), Waiting("it", REDO, 0, 5)],
        [1, 0],
    ),
    "what waited for as many hours as a priority is higher, and one more": (
        [Waiting("it", NEW, 0, 5), Waiting("calibration", NEW, 6), Waiting("calibration", NEW, 4)],
        [1, 0, 2],
    ),
    "of pipelines that are equal the one with new data": (
        [Waiting("it", REDO), Waiting("calibration", NEW)],
        [1, 0],
    ),
    "redoing that has waited counts from the new data of its pipeline": (
        [Waiting("it", REDO, 9), Waiting("it", NEW, 1), Waiting("calibration", NEW, 3), Waiting("calibration", NEW)],
        [2, 1, 0, 3],
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_first_comes(history: History, name: str) -> None:
    runs, order = ORDERS[name]
    ids = line_up(history, runs)
    wanted = [ids[place] for place in order]
    assert [sorted(wanted[:most]) for most in range(1, len(runs))] == [
        claimed(history, most) for most in range(1, len(runs))
    ]
    assert history.session(lambda session: in_order(session, ids)) == wanted
    assert order == expected(runs)


def test_a_run_that_a_limit_holds_is_told_its_place_in_this_order(history: History) -> None:
    runs, order = ORDERS["redoing that has waited counts from the new data of its pipeline"]
    *ids, live = line_up(history, [*runs, Waiting("it", NEW)])
    history.move(live, STAGING, inputs_frozen_at=history.now)
    history.session(lambda session: limit_location(session, "cologne/ramses", 1))
    told = [history.session(partial(in_line, run_id=one, now=history.now)) for one in ids]
    assert [one.place - 1 for one in told if one] == [order.index(number) for number in range(len(runs))]


LINES = st.lists(
    st.builds(Waiting, st.sampled_from(PIPELINES), st.sampled_from([NEW, REDO]), st.integers(0, 4), st.integers(0, 2)),
    min_size=1,
    max_size=12,
)
MOSTS = st.dictionaries(st.tuples(st.sampled_from(Scope), st.sampled_from(PIPELINES)), st.integers(0, 4), max_size=3)


def test_the_first_that_limits_leave_room_for_are_those_that_are_let_in_one_after_the_other(history: History) -> None:
    like = one_of_each(history)
    of_pipeline, location = of_users(history), history.runs()[0].data_location_id

    @settings(max_examples=200, derandomize=True)
    @given(runs=LINES, mosts=MOSTS, most=st.integers(1, 13))
    def are_those(runs: list[Waiting], mosts: dict[tuple[Scope, str], int], most: int) -> None:
        with history.connection.begin_nested() as savepoint:
            ids = wait(history, runs, like=like)
            limits = Limits(
                [
                    Limit(
                        scope,
                        location if scope is Scope.LOCATION else of_pipeline[name][scope is Scope.USER],
                        name,
                        number,
                    )
                    for (scope, name), number in mosts.items()
                    if scope is not Scope.LOCATION or name == "it"  # both are at the same
                ]
            )
            room, order = Room(limits), expected(runs)
            let_in = [ids[one] for one in order if room.take(Occupant(*seen(runs[one], of_pipeline, location))) is None]
            found = history.session(lambda session: first_in_line(session, limits, sa.true(), most=most))
            assert found == let_in[:most]
            assert history.session(lambda session: in_order(session, ids)) == [ids[one] for one in order]
            savepoint.rollback()

    are_those()


def of_users(history: History) -> dict[str, tuple[int, int]]:
    """Let each pipeline be of a user; their ids."""

    def work(session: Any) -> dict[str, tuple[int, int]]:
        found = {}
        for one in session.scalars(sa.select(models.Pipeline)):
            user = models.User(name=f"of-{one.name}")
            session.add(user)
            session.flush()
            one.created_by_user_id = user.id
            found[one.name] = (one.id, user.id)
        return found

    return history.session(work)


def seen(run: Waiting, of_pipeline: dict[str, tuple[int, int]], location: int) -> tuple[int, int, int, bool]:
    pipeline, user = of_pipeline[run.pipeline]
    return pipeline, location, user, run.is_redo


def test_new_data_do_not_wait_for_what_was_to_be_redone_hours_before(history: History) -> None:
    history.define(SCAN, limits={"live": 1})
    for _ in range(3):
        history.archive()
    while history.settle():
        pass
    history.configure("calibrate", 1)
    history.create()
    history.execute(
        sa.update(_Run).where(_Run.status == PENDING).values(created_at=_Run.created_at - timedelta(hours=3))
    )
    started = []
    for more in (True, False, True, False, False):
        if more:
            history.archive()
            history.create()
        history.start(*claimed(history, 100))
        [run] = history.runs(STAGING)
        history.complete(run.id)
        started.append(run.reason)
    assert started == [NEW, REDO, NEW, REDO, REDO]
