"""A wish to cancel a run, in every status, with everything that may come between."""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.cancelling import Answer
from ccat_ops_db.states import FailureClass, RunStatus
from ccat_ops_db.verbs.cancelling import request_cancel
from ccat_workflow_manager.hpc.base import BackendUnavailable, JobSpec
from ccat_workflow_manager.hpc.local.backend import LocalBackend
from ccat_workflow_manager.verbs.cancelling import locations_to_follow
from ccat_workflow_manager.verbs.collecting import collect_runs
from ccat_workflow_manager.verbs.describing import Place, current_attempts, execution_of, job_of
from ccat_workflow_manager.verbs.executing import hand_in_attempts
from ccat_workflow_manager.verbs.failing import Failure, fail_attempts
from ccat_workflow_manager.verbs.observing import observe_locations
from ccat_workflow_manager.verbs.workplace import Workplace
from tests.workflow.verbs.conftest import OpenWorks
from tests.workflow.verbs.works import MERGE, Works, eventually, prepare_attempts

SCRIPTS = {
    **{f"long-{number}": "sleep 1000" for number in range(13)},
    **{f"quick-{number}": MERGE for number in range(8)},
    "failing": "echo 'ValueError: no' >&2; exit 1",
}


@dataclass
class One:
    """A run that one test has for itself."""

    works: Works
    id: int

    @property
    def run(self) -> models.ExecutedReductionStep:
        return self.works.run(id=self.id)

    @property
    def attempt(self) -> models.RunAttempt:
        return self.run.attempts[-1]

    def prepare(self) -> "One":
        assert prepare_attempts(self.works.workplace, [self.id]) == [self.id]
        return self

    def submit(self, workplace: Workplace | None = None) -> "One":
        assert hand_in_attempts(workplace or self.works.workplace, [self.id]) == [self.id]
        return self

    def cancel(self) -> Answer:
        def wish(session: Any) -> Any:
            return request_cancel(session, [self.id], because="clouds", by="a person", now=datetime.now(UTC))

        return Answer(self.works.session(wish)[self.id])

    def look(self, workplace: Workplace | None = None) -> int:
        return observe_locations(workplace or self.works.workplace, [self.works.location_id])

    def until(self, status: RunStatus) -> None:
        eventually(lambda: (self.look(), self.run.status is status)[1])

    def is_ended(self) -> bool:
        """Whether its job is over, by its cancellation."""
        [backend], name = self.works.workplace.backends.values(), self.attempt.job_name
        seen = backend.observe([name])[name]
        return seen.is_over and seen.cancelled


@pytest.fixture(scope="module")
def runs(open_works: OpenWorks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, One]]:
    """Many runs in STAGING_DATA whose data are there, by step; no test takes that of another."""
    with open_works(tmp_path_factory.mktemp("cancelling")) as works:
        works.define(*({"key": key, "group_by": [], "max_retries": 1} for key in SCRIPTS), scripts=SCRIPTS)
        works.observe("one ")
        works.create()
        works.start()
        works.transfer()
        yield {run.reduction_step.key: One(works, run.id) for run in works.runs()}


def take(runs: dict[str, One], kind: str) -> One:
    return runs.pop(next(key for key in runs if key.startswith(kind)))


@pytest.fixture
def long(runs: dict[str, One]) -> One:
    """A run whose job goes on and on."""
    return take(runs, "long")


@pytest.fixture
def quick(runs: dict[str, One]) -> One:
    return take(runs, "quick")


class Meanwhile(LocalBackend):
    """A cluster with which something happens when it is asked."""

    def __init__(self, works: Works, **happens: Callable[[], object]) -> None:
        self.__dict__.update(works.workplace.backends[works.location_id].__dict__)
        self._happens = happens

    def submit(self, spec: JobSpec) -> str:
        job_id = super().submit(spec)
        self._happens.get("submit", int)()
        return job_id

    def observe(self, job_ids: Collection[str]) -> Mapping[str, Any]:
        seen = super().observe(job_ids)
        self._happens.get("observe", int)()
        return seen

    def cancel(self, job_ids: Collection[str]) -> None:
        self._happens.get("cancel", int)()
        super().cancel(job_ids)


def meanwhile(one: One, **happens: Callable[[], object]) -> Workplace:
    return replace(one.works.workplace, backends={one.works.location_id: Meanwhile(one.works, **happens)})


# Without a job, as far as known


def test_a_prepared_run_is_cancelled_once_its_cluster_says_that_it_has_no_job_of_it(quick: One) -> None:
    assert quick.prepare().cancel() is Answer.ASKED
    assert quick.run.is_to_be_cancelled
    works = quick.works
    assert hand_in_attempts(works.workplace, [quick.id]) == []
    where = works.session(lambda session: locations_to_follow(session, [works.location_id], now=datetime.now(UTC)))
    assert where == [works.location_id]
    quick.look()
    assert quick.run.status is RunStatus.CANCELLED
    assert hand_in_attempts(works.workplace, [quick.id]) == []


def test_a_job_that_a_worker_handed_in_before_it_died_is_found_and_ended(long: One) -> None:
    def die() -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        hand_in_attempts(meanwhile(long.prepare(), submit=die), [long.id])
    assert long.cancel() is Answer.ASKED
    long.until(RunStatus.CANCELLED)
    assert long.is_ended()
    assert "submitted" in long.works.moves(long.run)


def test_a_job_that_is_handed_in_for_a_run_that_is_cancelled_already_is_ended_though_its_worker_dies(long: One) -> None:
    works = long.prepare().works
    [attempt] = works.session(lambda session: current_attempts(session, [long.id], RunStatus.STAGING_DATA))
    long.cancel()
    long.look()
    assert (long.run.status, long.attempt.abandoned_at is None) == (RunStatus.CANCELLED, False)

    works.workplace.backends[works.location_id].submit(job_of(attempt, execution_of(attempt, place=Place(works.base))))
    ten_seconds_later = sa.update(models.RunAttempt).where(models.RunAttempt.id == attempt.id)
    works.execute(ten_seconds_later.values(cancel_asked_at=None))
    long.look()
    eventually(long.is_ended)
    works.execute(ten_seconds_later.values(cancel_asked_at=None))
    long.look()
    assert long.attempt.abandoned_at is None, "it is known to be over"


# With a job


def test_a_running_job_is_ended_and_then_its_run_is_cancelled(long: One) -> None:
    long.prepare().submit().until(RunStatus.RUNNING)
    assert long.cancel() is Answer.ASKED
    assert (long.run.status, long.run.is_to_be_cancelled) == (RunStatus.RUNNING, True)
    long.until(RunStatus.CANCELLED)
    assert long.is_ended()
    run = long.run
    assert (run.cancel_answer, run.cancel_requested_by, run.cancel_because) == ("cancelled", "a person", "clouds")
    assert (run.failure, run.retry_at, run.waiting_for) == (None, None, None)
    assert long.attempt.cancel_asked_at is not None


def test_a_wish_that_stands_stays_as_it_is(long: One) -> None:
    long.prepare().submit()
    assert [long.cancel(), long.cancel()] == [Answer.ASKED, Answer.ASKED]
    since = long.run.cancel_requested_at
    long.cancel()
    assert long.run.cancel_requested_at == since
    long.until(RunStatus.CANCELLED)
    assert long.cancel() is Answer.OVER


def test_a_cluster_that_does_not_answer_is_asked_again(long: One) -> None:
    def no_answer() -> None:
        raise BackendUnavailable("local", "it is away")

    long.prepare().submit().cancel()
    long.look(meanwhile(long, cancel=no_answer))
    assert (long.run.is_to_be_cancelled, long.attempt.cancel_asked_at) == (True, None)
    assert "it is being cancelled" in (long.run.waiting_for or "")
    long.until(RunStatus.CANCELLED)
    assert long.is_ended()


def test_two_workers_cancel_it_once(long: One) -> None:
    long.prepare().submit().until(RunStatus.RUNNING)
    long.cancel()

    def look_until_cancelled() -> None:
        eventually(lambda: (long.look(), long.run.status is RunStatus.CANCELLED)[1])

    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(look_until_cancelled), pool.submit(look_until_cancelled)]:
            one.result()
    assert long.works.moves(long.run).count("cancelled") == 1


def test_a_wish_that_comes_while_the_cluster_answers_is_not_overlooked(long: One) -> None:
    long.prepare().submit()
    long.look(meanwhile(long, observe=long.cancel))
    assert long.run.is_to_be_cancelled
    long.until(RunStatus.CANCELLED)


class Blind(Meanwhile):
    """A cluster that finds some jobs only."""

    def __init__(self, works: Works, *names: str) -> None:
        super().__init__(works)
        self._names = names

    def find(self, names: Collection[str]) -> Mapping[str, str]:
        if set(names).intersection(self._names):
            raise OSError(5, "Input/output error")
        return super().find(names)


def test_trouble_with_one_job_keeps_no_wish_for_another_from_being_confirmed(runs: dict[str, One]) -> None:
    forgotten, blind, seen = (take(runs, "long").prepare() for _ in range(3))
    forgotten.cancel()
    forgotten.look()
    assert forgotten.attempt.abandoned_at is not None
    for one in (blind, seen):
        one.cancel()
    works = seen.works
    works.execute(sa.update(models.RunAttempt).values(cancel_asked_at=None))  # ten seconds later
    backend = Blind(works, forgotten.attempt.job_name, blind.attempt.job_name)
    seen.look(replace(works.workplace, backends={works.location_id: backend}))
    assert [one.run.status for one in (blind, seen)] == [RunStatus.STAGING_DATA, RunStatus.CANCELLED]
    works.execute(sa.update(models.RunAttempt).values(cancel_asked_at=None))
    blind.look()
    assert blind.run.status is RunStatus.CANCELLED


def test_a_disk_that_is_not_mounted_cancels_nothing_and_nothing_is_made_in_its_place(long: One) -> None:
    long.prepare().cancel()
    base = long.works.base
    base.rename(base.with_name("unmounted"))
    long.look()
    assert not base.exists()
    base.with_name("unmounted").rename(base)
    assert (long.run.status, long.run.is_to_be_cancelled) == (RunStatus.STAGING_DATA, True)
    long.works.execute(sa.update(models.RunAttempt).values(cancel_asked_at=None))  # ten seconds later
    long.look()
    assert long.run.status is RunStatus.CANCELLED


# Too late


def test_a_job_that_ended_well_before_the_wish_reached_it_is_collected(quick: One) -> None:
    quick.prepare().submit()
    [backend], name = quick.works.workplace.backends.values(), quick.attempt.job_name
    eventually(lambda: backend.observe([name])[name].is_over)
    assert quick.cancel() is Answer.ASKED
    quick.look()
    assert (quick.run.status, quick.run.cancel_answer) == (
        RunStatus.COLLECTING_RESULTS,
        "too late: its job had ended well",
    )
    assert collect_runs(quick.works.workplace, [quick.id]) == [quick.id]
    assert quick.cancel() is Answer.OVER


def test_what_is_being_collected_cannot_be_cancelled(quick: One) -> None:
    quick.prepare().submit().until(RunStatus.COLLECTING_RESULTS)
    assert quick.cancel() is Answer.TOO_LATE
    assert not quick.run.is_to_be_cancelled
    assert collect_runs(quick.works.workplace, [quick.id]) == [quick.id]


@pytest.mark.parametrize("is_wished_before", [True, False])
def test_what_cannot_be_collected_after_such_a_wish_is_not_tried_again(quick: One, *, is_wished_before: bool) -> None:
    quick.prepare().submit()
    [backend], name = quick.works.workplace.backends.values(), quick.attempt.job_name
    eventually(lambda: backend.observe([name])[name].is_over)
    if is_wished_before:
        quick.cancel()
    quick.look()
    if not is_wished_before:
        quick.cancel()
    told = {quick.attempt.id: Failure(FailureClass.PAYLOAD, "it made no map")}
    how: dict[str, Any] = {"expected": [RunStatus.COLLECTING_RESULTS], "now": datetime.now(UTC), "by": "a worker"}
    quick.works.session(lambda session: fail_attempts(session, told, **how))
    assert (quick.run.status, quick.run.retry_at) == (RunStatus.FAILED, None)
    assert quick.run.failure == "it made no map; it is not tried again, as somebody wished it to be cancelled"


def test_a_job_that_failed_while_the_wish_stood_is_not_tried_again(runs: dict[str, One]) -> None:
    one = runs.pop("failing").prepare().submit()
    [backend], name = one.works.workplace.backends.values(), one.attempt.job_name
    eventually(lambda: backend.observe([name])[name].is_over)
    one.cancel()
    one.look()
    assert (one.run.status, one.run.retry_at, one.run.cancel_answer) == (RunStatus.CANCELLED, None, "cancelled")
    assert (one.attempt.exit_code, one.attempt.log_tail) == (1, "ValueError: no")


def test_what_failed_and_waits_for_its_retry_is_given_up(quick: One) -> None:
    quick.works.fail(quick.id, FailureClass.INFRASTRUCTURE)
    before, answer, after = quick.run, quick.cancel(), quick.run
    assert answer is Answer.NOT_RETRIED
    assert [(run.status, run.retry_at is None) for run in (before, after)] == [
        (RunStatus.FAILED, False),
        (RunStatus.FAILED, True),
    ]
    assert quick.cancel() is Answer.OVER


def test_trouble_before_its_job_ran_does_not_fail_what_is_to_be_cancelled(quick: One) -> None:
    quick.prepare().cancel()
    quick.works.fail(quick.id, FailureClass.INFRASTRUCTURE, "the disk is gone")
    assert (quick.run.status, quick.run.cancel_answer) == (RunStatus.CANCELLED, "cancelled")
    assert quick.attempt.cause == "the disk is gone"
