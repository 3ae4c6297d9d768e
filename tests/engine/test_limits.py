"""How many runs limits let in, which go first, and what is said to the others."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ccat_ops_db import models
from ccat_ops_db.plan.limits import Limit, Limits, Minute, Occupant, Room, Scope
from ccat_ops_db.states import RunReason, RunStatus, Verdict
from ccat_ops_db.verbs.limiting import limit_every_user, limit_location, limit_user
from ccat_ops_db.verbs.planning import make_plan
from ccat_workflow_manager.verbs.launching import launch
from ccat_workflow_manager.verbs.requesting import Wish, open_wish
from tests.engine.history import History

SCAN: dict[str, Any] = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
NIGHT = {"redo_between": {"from": "22:00", "to": "06:00"}}
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
STAGING, PENDING = RunStatus.STAGING_DATA, RunStatus.PENDING


class TestRoom:
    """What limits leave, without a database."""

    def test_the_first_limit_that_leaves_no_room_is_named_with_its_figures(self) -> None:
        room = Room(Limits([Limit(Scope.PIPELINE, 1, "chai", 2, 1), Limit(Scope.LOCATION, 7, "cologne/ramses", 1)]))
        run = Occupant(pipeline_id=1, location_id=7, user_id=None, is_redo=False)
        assert room.take(run) is None
        assert room.take(run) == "2 of 2 runs of pipeline `chai` are live"
        other = Occupant(pipeline_id=2, location_id=7, user_id=None, is_redo=False)
        assert room.take(other) == "1 of 1 runs at `cologne/ramses` are live"

    def test_what_is_more_than_a_limit_since_it_was_lowered_is_told_as_it_is(self) -> None:
        room = Room(Limits([Limit(Scope.USER, 3, "ann", 2, 5)]))
        assert room.take(Occupant(1, 1, 3, is_redo=True)) == "5 of 2 runs of user `ann` are live"

    @given(
        mosts=st.dictionaries(st.tuples(st.sampled_from(Scope), st.integers(1, 2)), st.integers(0, 3)),
        runs=st.lists(
            st.builds(Occupant, st.integers(1, 2), st.integers(1, 2), st.integers(1, 2) | st.none(), st.booleans())
        ),
    )
    def test_no_limit_is_exceeded_and_nothing_waits_without_need(
        self, mosts: dict[tuple[Scope, int], int], runs: list[Occupant]
    ) -> None:
        room = Room(Limits([Limit(scope, number, "x", most) for (scope, number), most in mosts.items()]))
        live: list[tuple[Scope, int]] = []
        for run in runs:
            is_full = any(live.count(place) >= mosts.get(place, 100) for place in run.counted().items())
            assert (room.take(run) is not None) == is_full
            live += [] if is_full else run.counted().items()


class TestMinute:
    """Runs that were created within the last minute."""

    @given(
        most=st.integers(1, 5),
        wanted=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=30),
    )
    def test_never_more_than_so_many_within_any_minute(self, most: int, wanted: list[tuple[int, int]]) -> None:
        minute, now, created = Minute({}), NOW, []
        for seconds, number in wanted:
            now += timedelta(seconds=seconds)
            minute = minute.until(now)
            more = min(number, minute.left(most))
            minute = minute.with_more(more, now) if more else minute
            created += [now] * more
            assert sum(at > now - timedelta(minutes=1) for at in created) <= most
            if full_until := minute.full_until(most):
                assert minute.left(most) == 0
                assert minute.until(full_until).left(most) > 0


def limited(history: History, limits: dict[str, Any], *, packages: int = 4, **keys: Any) -> None:
    """A step by scan with limits, and some packages."""
    history.define(SCAN, limits=limits, **keys)
    for _ in range(packages):
        history.archive()


def at_noon(history: History) -> None:
    """Let it be noon, of a day to come."""
    now = datetime.now(UTC)
    history.offset = now.replace(hour=12, minute=0) + timedelta(days=1) - now


def waiting(history: History) -> list[str | None]:
    return [run.waiting_for for run in history.runs(PENDING)]


class TestLive:
    """What is started at once."""

    def test_of_a_pipeline_only_so_many_are_started_and_the_others_say_why(self, history: History) -> None:
        limited(history, {"live": 3})
        history.create()
        started = history.start()
        assert (len(started.started), len(started.held)) == (3, 1)
        assert waiting(history) == ["3 of 3 runs of pipeline `it` are live"]
        history.complete(started.started[0])
        assert len(history.start().started) == 1
        assert history.runs(PENDING) == []

    @pytest.mark.parametrize("end", ["complete", "fail", "cancel"])
    def test_whatever_ends_a_run_leaves_room(self, history: History, end: str) -> None:
        limited(history, {"live": 1}, packages=2)
        history.create()
        [first] = history.start().started
        assert history.start().started == ()
        getattr(history, end)(first)
        assert len(history.start().started) == 1

    def test_a_run_that_waits_for_its_retry_leaves_room_and_needs_some_again(self, history: History) -> None:
        limited(history, {"live": 1}, packages=2)
        history.create()
        [first] = history.start().started
        history.fail(first, retried=True)
        assert len(history.start().started) == 1
        history.offset += timedelta(hours=2)
        assert history.retry() == [first]
        assert history.start().held == (first,)

    def test_at_a_location(self, history: History) -> None:
        limited(history, {})
        history.session(lambda session: limit_location(session, "cologne/ramses", 2))
        history.create()
        assert len(history.start().started) == 2
        assert waiting(history) == ["2 of 2 runs at `cologne/ramses` are live"] * 2
        history.session(lambda session: limit_location(session, "cologne/ramses", None))
        assert len(history.start().started) == 2

    @pytest.mark.parametrize(("own", "of_all", "most"), [(2, None, 2), (None, 3, 3), (1, 3, 1)])
    def test_of_a_user_else_of_every_user(
        self, history: History, own: int | None, of_all: int | None, most: int
    ) -> None:
        limited(history, {})

        def put(session: Any) -> None:
            session.add(models.User(name="ann"))
            session.flush()
            limit_user(session, "ann", own)
            limit_every_user(session, of_all)
            user = sa.select(models.User.id).where(models.User.name == "ann").scalar_subquery()
            session.execute(sa.update(models.Pipeline).values(created_by_user_id=user))

        history.session(put)
        history.create()
        assert len(history.start().started) == most
        assert set(waiting(history)) == {f"{most} of {most} runs of user `ann` are live"}

    def test_a_limit_that_changes_makes_no_revision_and_no_run(self, history: History) -> None:
        limited(history, {})
        history.settle()
        before = history.noted()
        history.keys = {"limits": {"live": 1, "created_per_minute": 1, **NIGHT}}
        history.apply()
        assert history.create() == 0
        assert history.noted() == before
        assert (
            history.session(lambda session: session.scalar(sa.select(sa.func.count(models.PipelineRevision.id)))) == 1
        )


class TestRedoing:
    """What was done before is done again, but not at the cost of new data."""

    def redone(self, history: History, limits: dict[str, Any]) -> None:
        """Three sub-groups are to be redone, and there is a new one."""
        limited(history, limits, packages=3)
        history.settle()
        history.configure("calibrate", 1)
        history.archive()
        history.create()

    def test_only_so_many_of_its_runs_are_live(self, history: History) -> None:
        self.redone(history, {"redo_live": 1})
        assert len(history.start().started) == 2
        assert {run.reason for run in history.runs(STAGING)} == {RunReason.MISSING, RunReason.RECIPE_CHANGED}
        assert waiting(history) == ["1 of 1 runs of pipeline `it` that redo are live"] * 2

    def test_new_data_go_first(self, history: History) -> None:
        self.redone(history, {"live": 1})
        assert len(history.start().started) == 1
        assert [run.reason for run in history.runs(STAGING)] == [RunReason.MISSING]

    def test_it_starts_within_its_window_only_and_says_when_that_opens(self, history: History) -> None:
        at_noon(history)
        self.redone(history, NIGHT)
        assert len(history.start().started) == 1
        told = f"pipeline `it` redoes from 22:00 to 06:00 (UTC) only: it may again at {history.now:%F} 22:00 UTC"
        assert waiting(history) == [told] * 3
        history.offset += timedelta(hours=11)
        assert len(history.start().started) == 3

    def test_so_does_what_a_person_forces(self, history: History) -> None:
        at_noon(history)
        limited(history, NIGHT, packages=1)
        history.settle()
        wish = Wish("it", "a test", force=True)
        history.session(lambda session: open_wish(session, wish, now=history.now, by="a test"))
        history.create()
        assert len(history.start().held) == 1

    def test_a_run_that_is_held_is_for_the_reason_of_now(self, history: History) -> None:
        at_noon(history)
        history.define({"key": "grid", "group_by": ["source"]}, limits=NIGHT)
        history.archive()
        history.settle()
        history.archive()
        history.create()
        history.configure("grid", 1)
        assert len(history.start().held) == 1
        [run] = history.runs(PENDING)
        assert run.reason is RunReason.RECIPE_CHANGED


class TestCreatedPerMinute:
    """What is wanted stays wanted until a minute allows it."""

    def test_the_rest_are_created_when_the_next_minutes_allow_and_none_before(self, history: History) -> None:
        limited(history, {"created_per_minute": 3}, packages=8)
        assert (history.create(), history.create()) == (3, 0)
        assert list(history.verdicts().values()) == [Verdict.WANTED] * 8
        history.create()
        due = history.session(lambda session: session.scalar(sa.select(models.PipelineEvaluation.due_at)))
        assert due is not None
        assert timedelta(seconds=50) < due - history.now <= timedelta(minutes=1)
        history.offset += timedelta(minutes=1)
        assert history.create() == 3
        history.offset += timedelta(minutes=1)
        assert (history.create(), history.create()) == (2, 0)

    def test_new_data_of_any_step_come_before_redoing(self, history: History) -> None:
        history.define(SCAN, {"key": "grid", "group_by": ["source"]})
        history.archive()
        history.archive()
        history.settle()
        history.configure("calibrate", 1)
        history.archive(source="Saturn")
        history.keys = {"limits": {"created_per_minute": 2}}
        history.apply()
        assert history.create() == 2
        assert {run.reason for run in history.runs(PENDING)} == {RunReason.MISSING}

    def minute_by_minute(self, history: History, minutes: int, *sources: str) -> list[str]:
        """What runs, while each minute brings another scan of each source."""
        done = []
        for _ in range(minutes):
            for source in sources:
                history.archive(source=source)
            history.create()
            history.start()
            runs = history.runs(STAGING)
            history.complete(*(run.id for run in runs))
            done += [f"{run.reduction_step.key} {' '.join(map(str, run.sub_group_labels.values()))}" for run in runs]
            history.offset += timedelta(minutes=1)
        return done

    def test_sub_groups_take_turns(self, history: History) -> None:
        history.define({"key": "grid", "group_by": ["source"]}, limits={"created_per_minute": 1})
        assert self.minute_by_minute(history, 4, "M17", "Saturn") == ["grid M17", "grid Saturn"] * 2

    def test_what_follows_is_created_before_more_is_begun(self, history: History) -> None:
        below = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"], "readiness": "available"}
        history.define(SCAN, below, limits={"created_per_minute": 1})
        done = self.minute_by_minute(history, 4, "M17")
        assert [one.split()[0] for one in done] == ["calibrate", "grid"] * 2

    def test_a_higher_limit_acts_at_once(self, history: History) -> None:
        limited(history, {"created_per_minute": 1})
        assert history.create() == 1
        history.keys = {"limits": {"created_per_minute": 3}}
        history.apply()
        assert history.create() == 2

    def test_a_plan_counts_all_and_its_launch_says_how_many_come_later(self, history: History) -> None:
        limited(history, {"created_per_minute": 3}, trigger="manual")
        made = history.session(lambda session: make_plan(session, "it", step=None, now=history.now, by="a test"))
        assert made.at_once == 4
        plan = made.plan
        assert plan
        launched = history.session(lambda session: launch(session, plan.id, now=history.now, by="a test"))
        assert (launched.created, launched.later, launched.lapsed) == (3, 1, {})
        assert history.create() == 0
        history.offset += timedelta(minutes=1)
        assert history.create() == 1

    def test_a_wish_is_open_until_its_last_run_is_created_and_done(self, history: History) -> None:
        limited(history, {"created_per_minute": 1}, packages=2, trigger="manual")
        wish = Wish("it", "a test")
        history.session(lambda session: open_wish(session, wish, now=history.now, by="a test"))
        assert history.settle() == ["calibrate"]
        closed = sa.select(models.Trigger.closed_at)
        assert history.session(lambda session: session.scalar(closed)) is None
        history.offset += timedelta(minutes=1)
        assert history.settle() == ["calibrate"]
        assert history.session(lambda session: session.scalar(closed)) is not None
