"""Rounds of the managers: what they tell workers, and tell them again."""

import itertools
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.claims import release
from ccat_ops_db.moves import advance
from ccat_ops_db.session import DatabaseUnreachable
from ccat_ops_db.states import FailureClass, RunReason, RunStatus
from ccat_workflow_manager import managers
from ccat_workflow_manager.execution.collection import Collection as WhatToCollect
from ccat_workflow_manager.execution.collection import collect
from ccat_workflow_manager.execution.durable import alone
from ccat_workflow_manager.execution.products import Collected
from ccat_workflow_manager.hpc.base import Backend, JobObservation
from ccat_workflow_manager.managers import advance_runs, follow_runs
from ccat_workflow_manager.verbs import collecting
from ccat_workflow_manager.verbs.collecting import collect_runs
from ccat_workflow_manager.verbs.describing import run_directory
from ccat_workflow_manager.verbs.observing import observe_locations
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.crashes.lives import Passing
from tests.workflow.verbs.works import MERGE, Works, eventually

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}


@pytest.fixture
def staged(works: Works) -> Works:
    """A run in STAGING_DATA whose data are there, on paper: nobody will read them."""
    works.define(CALIBRATE)
    works.staged_on_paper("one")
    works.create()
    works.start()
    return works


class TestMessages:
    def test_a_worker_is_told_once_while_the_lease_lasts(self, staged: Works) -> None:
        assert staged.advance() == 1
        assert staged.advance() == 0
        assert staged.post.letters == [("workflow.hand_in", [staged.run().id])]

    def test_a_lost_message_is_sent_again_when_the_lease_is_over(self, staged: Works) -> None:
        staged.advance()
        staged.post.letters.clear()
        staged.let_leases_end()
        staged.advance()
        assert staged.post.letters == [("workflow.hand_in", [staged.run().id])]

    def test_every_message_may_be_lost_once_and_every_one_may_come_twice(self, works: Works) -> None:
        works.define(CALIBRATE, GRID)
        works.observe("one ")
        lost: set[str] = set()

        def unreliable(task: str) -> bool:
            if task in lost:
                return True
            lost.add(task)
            return False

        for _ in range(200):
            works.create()
            works.advance()
            works.transfer()
            works.follow()
            works.post.letters[:] = [one for one in works.post.letters if unreliable(one[0])] * 2
            works.deliver()
            works.let_leases_end()
            if works.activity().is_over:
                break
        assert lost == {"workflow.hand_in", "workflow.observe", "workflow.collect"}
        assert [run.status for run in works.runs()] == [RunStatus.COMPLETED] * 2
        assert [len(run.attempts) for run in works.runs()] == [1, 1]
        assert [len(run.products) for run in works.runs()] == [1, 1]

    def test_only_so_many_are_told_at_a_time_each_with_a_message_of_its_own(
        self, works: Works, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(managers, "_OUTSTANDING", 2)
        works.define(CALIBRATE)
        works.staged_on_paper("one", "two", "three")
        works.create()
        works.start()
        assert [works.advance(), works.advance()] == [2, 0]
        assert [(task, len(ids)) for task, ids in works.post.letters] == [("workflow.hand_in", 1)] * 2
        first = works.post.letters[0][1]
        prepared = sa.update(models.RunAttempt).where(models.RunAttempt.run_id.in_(first))
        works.execute(prepared.values(prepared_at=datetime.now(UTC)))
        works.session(lambda session: release(session, models.ExecutedReductionStep, first))
        assert [works.advance(), works.advance()] == [2, 0]
        assert [task for task, _ in works.post.letters[2:]] == ["workflow.hand_in", "workflow.hand_in"]

    def test_nothing_is_sent_for_a_location_that_is_not_served(self, staged: Works) -> None:
        context = staged.context()
        context.locations = {}
        assert [managers.create_runs(context), advance_runs(context), follow_runs(context)] == [0, 0, 0]
        assert staged.post.letters == []

    def test_nothing_is_prepared_before_its_data_are_there(self, works: Works) -> None:
        works.define(CALIBRATE)
        works.archived("one")
        works.create()
        works.advance()
        assert works.post.letters == []
        told = "waits for 1 of its raw packages to be staged"
        assert (works.run().status, works.run().waiting_for) == (RunStatus.STAGING_DATA, told)
        works.execute(sa.update(models.StagingJob).values(failure="Location cologne/lta is missing"))
        works.advance()
        assert works.run().waiting_for == f"{told}: Location cologne/lta is missing"


class TestDue:
    def test_a_manager_looks_again_when_the_first_lease_is_over(self, staged: Works) -> None:
        context = staged.context()
        advance_runs(context)
        assert context.due is not None
        assert timedelta() < context.due - datetime.now(UTC) <= timedelta(seconds=5)

    def test_it_has_nothing_to_wait_for_where_nothing_is_under_way(self, works: Works) -> None:
        context = works.context()
        advance_runs(context)
        assert context.due is None
        follow_runs(context)
        assert context.due is None

    def test_it_looks_again_when_the_first_retry_is_due(self, staged: Works) -> None:
        staged.fail(staged.run().id, FailureClass.INFRASTRUCTURE)
        context = staged.context()
        assert follow_runs(context) == 0
        assert context.due == staged.run().retry_at
        due = sa.update(models.ExecutedReductionStep).values(retry_at=datetime.now(UTC))
        staged.execute(due)
        assert follow_runs(context) == 1
        assert staged.run().status is RunStatus.PENDING


class TestAsking:
    @pytest.fixture
    def submitted(self, staged: Works) -> Works:
        """The same run, SUBMITTED on paper."""
        runs, to = [staged.run().id], RunStatus.SUBMITTED
        noun = models.ExecutedReductionStep
        staged.session(lambda session: advance(session, noun, runs, to=to, because="a test", by="a test"))
        return staged

    def test_one_question_per_location_is_under_way_whoever_asks(self, submitted: Works) -> None:
        for name in ("first", "second"):
            follow_runs(submitted.context(name))
        assert submitted.post.letters == [("workflow.observe", [submitted.location_id])]

    def test_the_next_one_is_asked_a_tenth_of_a_second_later(self, submitted: Works) -> None:
        context = submitted.context()
        follow_runs(context)
        submitted.deliver()
        context.observed[submitted.location_id] = datetime.now(UTC) + timedelta(minutes=1)
        follow_runs(context)
        assert submitted.post.letters == []
        assert context.due is not None
        context.observed[submitted.location_id] = datetime.now(UTC) - timedelta(seconds=0.1)
        follow_runs(context)
        assert submitted.post.letters == [("workflow.observe", [submitted.location_id])]

    def test_an_answer_that_never_comes_is_asked_for_again(self, submitted: Works) -> None:
        follow_runs(submitted.context())
        submitted.post.letters.clear()
        submitted.let_leases_end()
        follow_runs(submitted.context())
        assert submitted.post.letters == [("workflow.observe", [submitted.location_id])]


class TestOrder:
    """Which of the runs that could start does."""

    def started(self, works: Works) -> list[str]:
        """Labels of the sub-groups that were started, one after the other."""
        for _ in works.runs(status=RunStatus.PENDING):
            works.advance()
        changes = works.all(models.StatusChange, noun="executed_reduction_step", to_status="staging_data")
        runs = {run.id: run for run in works.runs()}
        return [str(runs[one.object_id].sub_group_labels["source"]) for one in changes]

    def test_more_important_ones_first_then_those_that_waited_for_hours_and_redoing_last(
        self, works: Works, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(managers, "_BATCH", 1)
        for source in ("redone", "new", "old", "important"):
            works.archived(f"of {source}", source=source)
        works.define({"key": "grid", "group_by": ["source"]})
        works.create()
        run, label = models.ExecutedReductionStep, models.ExecutedReductionStep.sub_group_labels["source"].astext
        redo = sa.update(run).where(label == "redone").values(reason=RunReason.RECIPE_CHANGED, priority=9)
        works.execute(redo)
        hours = sa.update(run).where(label == "old").values(created_at=datetime.now(UTC) - timedelta(hours=3.5))
        works.execute(hours)
        works.execute(sa.update(run).where(label == "important").values(priority=5))
        assert self.started(works) == ["important", "old", "new", "redone"]


class TestActivity:
    """It is over only when nothing follows."""

    def test_an_empty_installation_is_quiet(self, works: Works) -> None:
        assert works.activity().is_over

    def test_from_the_first_file_to_the_last_product_it_is_never_over(self, works: Works) -> None:
        works.define(CALIBRATE, GRID)
        works.observe("one ")
        processes = (works.create, works.advance, works.deliver, works.transfer, works.follow)
        for process in itertools.islice(itertools.cycle(processes), 500):
            process()
            is_over = works.activity().is_over
            done = works.all(models.StatusChange, noun="executed_reduction_step", to_status="completed")
            assert not is_over or len(done) == 2, process
            if is_over:
                return
        raise AssertionError("it never ended")

    def test_a_resting_sub_group_is_not_over_and_says_when(self, works: Works) -> None:
        works.define({**CALIBRATE, "cooldown_seconds": 1000})
        works.archived("one")
        works.execute(sa.update(models.RawDataPackage).values(archived_at=datetime.now(UTC)))
        works.create()
        found = works.activity()
        assert (found.is_over, found.cooling) == (False, 1)
        assert found.next_due is not None

    def test_what_is_given_up_and_what_waits_for_it_is_over(self, works: Works) -> None:
        works.define({**CALIBRATE, "max_retries": 0}, GRID)
        works.archived("one")
        works.create()
        works.start()
        works.fail(works.run().id, FailureClass.DATA)
        works.create()
        assert works.activity().is_over

    def test_a_run_that_waits_for_its_retry_is_not_over(self, works: Works) -> None:
        works.define(CALIBRATE)
        works.archived("one")
        works.create()
        works.start()
        works.fail(works.run().id, FailureClass.INFRASTRUCTURE)
        assert works.activity().active_runs == {RunStatus.FAILED: 1}

    def test_a_pipeline_that_is_switched_off_follows_nothing(self, works: Works) -> None:
        works.define(CALIBRATE, enabled=False)
        works.archived("one")
        works.create()
        assert works.activity().is_over


class Counting(Passing):
    """A backend that counts the questions."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.asked: list[int] = []

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        self.asked.append(len(job_ids))
        return super().observe(job_ids)


def test_of_a_job_the_last_fifty_lines_are_kept_and_what_it_took(works: Works) -> None:
    works.define(CALIBRATE, scripts={"calibrate": f"{MERGE}\nseq 1 60"})
    works.observe("one ")
    works.settle()
    [attempt] = works.run().attempts
    assert (attempt.log_tail or "").split() == [str(number) for number in range(11, 61)]
    assert None not in {attempt.started_at, attempt.ended_at, attempt.wall_time_s, attempt.cpu_time_s, attempt.host}
    assert attempt.exit_code == 0


def test_a_memory_that_nobody_measured_is_told_as_unknown(
    works: Works, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "500")
    works.define(CALIBRATE)
    works.observe("one ")
    works.settle()
    told = []
    for peak in (4096, None):
        works.execute(sa.update(models.RunAttempt).values(peak_memory_bytes=peak))
        told.append(say("run", "show", works.run().id).stdout.count("unknown"))
    assert told == [0, 1]


class TestBatches:
    def test_all_jobs_of_a_location_are_one_question(self, works: Works) -> None:
        works.define(CALIBRATE)
        for number in range(3):
            works.observe("one ", night=number)
        eventually(lambda: (works.create(), works.transfer(), works.advance()) and len(works.post.letters) == 3)
        works.deliver()
        assert {run.status for run in works.runs()} == {RunStatus.SUBMITTED}
        here, backend = works.location_id, Counting(works.workplace.backends[works.location_id])
        observe_locations(replace(works.workplace, backends={here: backend}), [here])
        assert backend.asked == [3]

    def test_where_the_database_goes_away_nothing_of_it_stays_locked(
        self, works: Works, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        works.define({"key": "calibrate", "group_by": ["executed_obs_unit"]})
        works.observe("one ")
        works.observe("two ", night=1)

        def are_over() -> list[models.ExecutedReductionStep]:
            for act in (works.create, works.advance, works.transfer, works.deliver):
                act()
            observe_locations(works.workplace, [works.location_id])
            return found if len(found := works.runs(status=RunStatus.COLLECTING_RESULTS)) == 2 else []

        runs = eventually(are_over)
        count = itertools.count()

        def lose_connection(collection: WhatToCollect) -> Collected:
            if next(count) == 1:
                raise DatabaseUnreachable(works.engine.url, OSError("server closed the connection"))
            return collect(collection)

        monkeypatch.setattr(collecting, "collect", lose_connection)
        with pytest.raises(DatabaseUnreachable) as kept:
            collect_runs(works.workplace, [run.id for run in runs])
        with ExitStack() as locks:
            free = [locks.enter_context(alone(run_directory(run, works.base).lock)) for run in runs]
        assert (free, kept.value.code) == ([True, True], "database_unreachable")
