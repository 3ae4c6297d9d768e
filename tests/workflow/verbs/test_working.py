"""What workers do with a run: prepare, submit, observe, collect; again, at once, too late, with trouble around them."""

import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.session import DatabaseUnreachable
from ccat_ops_db.states import FailureClass, PhysicalCopyStatus, RunStatus
from ccat_workflow_manager.execution.collection import Collection as WhatToCollect
from ccat_workflow_manager.execution.collection import collect
from ccat_workflow_manager.execution.durable import alone
from ccat_workflow_manager.execution.layout import RunLayout
from ccat_workflow_manager.execution.products import Collected
from ccat_workflow_manager.hpc.base import BackendUnavailable, JobObservation, JobSpec, JobState
from ccat_workflow_manager.hpc.local.backend import LocalBackend
from ccat_workflow_manager.verbs import collecting, executing
from ccat_workflow_manager.verbs.collecting import collect_runs
from ccat_workflow_manager.verbs.describing import current_attempts, run_directory
from ccat_workflow_manager.verbs.executing import hand_in_attempts
from ccat_workflow_manager.verbs.failing import Failure, fail_attempt
from ccat_workflow_manager.verbs.observing import observe_locations
from ccat_workflow_manager.verbs.workplace import Workplace
from tests.engine.toy import install
from tests.workflow.verbs.conftest import OpenWorks
from tests.workflow.verbs.works import MERGE, START, Works, eventually, prepare_attempts

SCRIPT = f"""
    {MERGE}
    echo started >>"$WORKFLOW_LOG_DIR/../../starts"
    case "$WORKFLOW_STEP_NAME" in slow*) sleep 0.5; esac
"""
ODD = {"greedy": {"resources": {"cpu": 1000}}, "changing": {}, "vanishing": {}, "slow": {}, "slower": {}}


@dataclass
class One:
    """A run that one test has for itself."""

    works: Works
    id: int

    @property
    def run(self) -> models.ExecutedReductionStep:
        return self.works.run(id=self.id)

    @property
    def directory(self) -> RunLayout:
        return run_directory(self.run, self.works.base)

    @property
    def starts(self) -> int:
        """How often its software was started."""
        return len((self.directory.directory / "starts").read_text().splitlines())

    def prepare(self) -> bool:
        return prepare_attempts(self.works.workplace, [self.id]) == [self.id]

    def submit(self, workplace: Workplace | None = None) -> bool:
        return hand_in_attempts(workplace or self.works.workplace, [self.id]) == [self.id]

    def collect(self) -> bool:
        return collect_runs(self.works.workplace, [self.id]) == [self.id]

    def await_end(self) -> None:
        def look() -> bool:
            observe_locations(self.works.workplace, [self.works.location_id])
            return self.run.status is RunStatus.COLLECTING_RESULTS

        eventually(look)

    def complete(self) -> None:
        """Let what was submitted end well, and see that it ran once."""
        self.await_end()
        assert self.collect()
        assert self.run.status is RunStatus.COMPLETED
        assert self.starts == 1


def in_two_threads(act: Callable[[], Any]) -> list[Any]:
    """What both say that do the same at the same time."""
    together = threading.Barrier(2, timeout=10)

    def wait_and_act() -> Any:
        together.wait()
        return act()

    with ThreadPoolExecutor() as pool:
        return [one.result() for one in [pool.submit(wait_and_act), pool.submit(wait_and_act)]]


@pytest.fixture(scope="module")
def runs(open_works: OpenWorks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, One]]:
    """Many runs in STAGING_DATA of one package that is there, by step; no test takes that of another."""
    with open_works(tmp_path_factory.mktemp("working")) as works:
        keys = [*(f"step-{number}" for number in range(30)), *ODD]
        works.define(
            *({"key": key, "group_by": [], "max_retries": 1, **ODD.get(key, {})} for key in keys),
            scripts=dict.fromkeys(keys, SCRIPT),
        )
        works.observe("one ")
        works.create()
        works.start()
        works.transfer()
        yield {run.reduction_step.key: One(works, run.id) for run in works.runs()}


@pytest.fixture
def staged(runs: dict[str, One]) -> One:
    """A run whose data are there."""
    return runs.pop(next(key for key in runs if key not in ODD))


@pytest.fixture
def prepared(staged: One) -> One:
    assert staged.prepare()
    return staged


@pytest.fixture
def submitted(prepared: One) -> One:
    assert prepared.submit()
    return prepared


@pytest.fixture
def ended(submitted: One) -> One:
    """A run whose job ended well."""
    submitted.await_end()
    return submitted


class TestPreparing:
    def test_doing_it_again_changes_nothing(self, staged: One) -> None:
        assert staged.prepare()
        before = sorted(staged.directory.directory.rglob("*"))
        assert staged.prepare()
        assert sorted(staged.directory.directory.rglob("*")) == before
        assert staged.run.status is RunStatus.STAGING_DATA

    def test_two_at_once_fail_nothing(self, staged: One) -> None:
        assert True in in_two_threads(staged.prepare)
        assert staged.run.status is RunStatus.STAGING_DATA

    def test_while_another_worker_is_at_it_nothing_is_done(self, staged: One) -> None:
        with alone(staged.directory.lock) as is_alone:
            assert is_alone
            assert not staged.prepare()
        assert staged.prepare()

    def test_software_that_is_not_what_was_released_waits_until_it_is_restored(self, runs: dict[str, One]) -> None:
        one = runs.pop("changing")
        environment = install(one.works.root / "env-1.0", code="answer = 41\n")
        assert not one.prepare()
        install(environment)
        run = one.run
        assert (run.status, run.failure_class) == (RunStatus.FAILED, FailureClass.INFRASTRUCTURE)
        assert run.retry_at is not None
        assert run.failure == (
            f"{environment} no longer holds toy-changing 1.0 as it was released: its files differ. "
            "Restore the environment, or release what it holds as a new version."
        )

    def test_an_environment_that_is_gone_is_waited_for_too(self, runs: dict[str, One]) -> None:
        one = runs.pop("vanishing")
        environment = one.works.root / "env-1.0"
        shutil.rmtree(environment)
        one.prepare()
        install(environment)
        assert one.run.failure_class is FailureClass.INFRASTRUCTURE
        assert f"{environment} does not exist, and so has no `toy`" in (one.run.failure or "")

    def test_a_disk_that_cannot_be_written_is_trouble_of_the_infrastructure(self, staged: One) -> None:
        staged.directory.directory.parent.mkdir(parents=True)
        staged.directory.directory.write_text("a file where a directory should be")
        assert not staged.prepare()
        assert (staged.run.failure_class, staged.run.retry_at is None) == (FailureClass.INFRASTRUCTURE, False)

    def test_a_late_failure_of_an_old_attempt_does_not_fail_the_new_one(
        self, staged: One, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        works = staged.works

        def fail_while_a_new_attempt_begins(*_: object, **__: object) -> None:
            works.fail(staged.id, FailureClass.INFRASTRUCTURE)
            works.retry_now()
            works.start(staged.id)
            raise OSError("the disk of the first attempt is gone")

        monkeypatch.setattr(executing, "prepare", fail_while_a_new_attempt_begins)
        assert not staged.prepare()
        assert (staged.run.status, len(staged.run.attempts)) == (RunStatus.STAGING_DATA, 2)
        assert staged.run.attempts[1].cause is None

    def test_a_lost_connection_fails_nothing(self, staged: One, monkeypatch: pytest.MonkeyPatch) -> None:
        def lose_connection(*_: object, **__: object) -> None:
            lost = Exception("server closed the connection")
            raise sa.exc.OperationalError("SELECT 1", {}, lost, connection_invalidated=True)

        monkeypatch.setattr(executing, "inputs_of", lose_connection)
        with pytest.raises(DatabaseUnreachable):
            staged.prepare()
        assert (staged.run.status, staged.run.failure) == (RunStatus.STAGING_DATA, None)

    def test_a_defect_of_ours_fails_the_run_with_its_name(self, staged: One, monkeypatch: pytest.MonkeyPatch) -> None:
        def stumble(*_: object, **__: object) -> None:
            raise KeyError("memory_gb")

        monkeypatch.setattr(executing, "describe", stumble)
        assert hand_in_attempts(staged.works.workplace, [staged.id]) == []
        assert (staged.run.failure_class, staged.run.retry_at) == (FailureClass.CONFIGURATION, None)
        assert staged.run.failure == "unexpected KeyError: 'memory_gb'; the log of worker has the rest"


class Doubtful(LocalBackend):
    """A cluster whose answer gets lost, or comes while something else happens."""

    def __init__(self, works: Works, meanwhile: Callable[[], object]) -> None:
        self.__dict__.update(works.workplace.backends[works.location_id].__dict__)
        self._meanwhile = meanwhile

    def submit(self, spec: JobSpec) -> str:
        job_id = super().submit(spec)
        self._meanwhile()
        return job_id


def doubtful(works: Works, meanwhile: Callable[[], object]) -> Workplace:
    return replace(works.workplace, backends={works.location_id: Doubtful(works, meanwhile)})


class TestSubmitting:
    def test_two_at_once_hand_in_one_job_and_cancel_nothing(self, prepared: One) -> None:
        in_two_threads(prepared.submit)
        prepared.complete()

    def test_who_is_overtaken_by_another_worker_leaves_its_job_alone(self, runs: dict[str, One]) -> None:
        one = runs.pop("slow")
        assert one.prepare()

        def another_worker() -> None:
            one.directory.lock.unlink()  # as on a file system without locks
            assert one.submit()

        assert not one.submit(doubtful(one.works, another_worker))
        one.complete()

    def test_a_worker_that_dies_before_it_recorded_the_job_is_followed_by_one_that_adopts_it(
        self, prepared: One
    ) -> None:
        def die() -> None:
            raise SystemExit

        with pytest.raises(SystemExit):
            prepared.submit(doubtful(prepared.works, die))
        assert prepared.run.status is RunStatus.STAGING_DATA
        assert prepared.prepare()
        assert prepared.submit()
        prepared.complete()

    def test_the_job_of_a_run_that_was_cancelled_meanwhile_is_cancelled(self, runs: dict[str, One]) -> None:
        one = runs.pop("slower")
        assert one.prepare()
        works, run = one.works, one.run

        def cancel() -> None:
            to, who = RunStatus.CANCELLED, "a person"
            works.session(lambda session: advance(session, type(run), [run.id], to=to, because="", by=who))

        workplace = doubtful(works, cancel)
        assert not one.submit(workplace)
        [backend], name = workplace.backends.values(), run.attempts[0].job_name
        eventually(lambda: backend.observe([name])[name].is_over)
        assert backend.observe([name])[name].cancelled
        assert one.run.status is RunStatus.CANCELLED

    def test_a_cluster_that_does_not_answer_is_asked_again_later(self, prepared: One) -> None:
        def no_answer() -> None:
            raise BackendUnavailable("local", "it is away")

        assert not prepared.submit(doubtful(prepared.works, no_answer))
        assert (prepared.run.status, prepared.run.failure) == (RunStatus.STAGING_DATA, None)
        told = "the local backend cannot be used at the moment: it is away; it is tried again"
        assert prepared.run.waiting_for == told
        assert prepared.submit()
        assert prepared.run.waiting_for is None

    def test_a_job_that_is_handed_in_is_not_forgotten_whatever_happens_before_it_is_recorded(
        self, prepared: One, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lose_the_disk() -> None:
            raise OSError(116, "Stale file handle")

        assert not prepared.submit(doubtful(prepared.works, lose_the_disk))
        assert (prepared.run.status, prepared.run.failure) == (RunStatus.STAGING_DATA, None)
        told = "its job is handed in, but cannot be recorded: [Errno 116] Stale file handle"
        assert prepared.run.waiting_for == told

        def stumble(*_: object, **__: object) -> None:
            raise KeyError("memory_gb")

        with monkeypatch.context() as patched:
            patched.setattr(executing, "job_of", stumble)
            assert not prepared.submit()
        assert prepared.run.status is RunStatus.STAGING_DATA
        assert prepared.submit()
        prepared.complete()

    def test_nothing_is_failed_while_nobody_can_tell_whether_the_job_is_handed_in(self, prepared: One) -> None:
        class Blind(Doubtful):
            def find(self, names: Collection[str]) -> Mapping[str, str]:
                raise OSError(5, f"Input/output error, as for {names}")

        works = prepared.works
        assert not prepared.submit(replace(works.workplace, backends={works.location_id: Blind(works, int)}))
        assert (prepared.run.status, prepared.run.failure) == (RunStatus.STAGING_DATA, None)
        assert "Input/output error" in (prepared.run.waiting_for or "")
        assert prepared.submit()
        prepared.complete()

    def test_no_job_is_handed_in_whose_input_was_lost_since_it_was_prepared(self, prepared: One) -> None:
        works = prepared.works
        [copy] = works.all(models.PhysicalCopy, data_location_id=works.location_id, status=PhysicalCopyStatus.STAGED)
        set_status = sa.update(models.PhysicalCopy).where(models.PhysicalCopy.id == copy.id)
        works.execute(set_status.values(status="corrupt"))
        assert not prepared.submit()
        works.execute(set_status.values(status="staged"))
        assert prepared.run.failure_class is FailureClass.INFRASTRUCTURE
        assert (prepared.run.failure or "").startswith(f"only 0 of 1 inputs of run {prepared.id} have a copy at ramses")

    def test_a_job_that_the_cluster_will_never_run_is_a_failure_of_the_configuration(
        self, runs: dict[str, One]
    ) -> None:
        one = runs.pop("greedy")
        assert one.prepare()
        assert not one.submit()
        assert (one.run.failure_class, one.run.retry_at) == (FailureClass.CONFIGURATION, None)
        assert "it asks for 1000 CPUs and this host gives 4" in (one.run.failure or "")


class TestObserving:
    def test_two_at_once_move_a_run_once(self, submitted: One) -> None:
        works = submitted.works
        place = [works.location_id]
        while submitted.run.status is not RunStatus.COLLECTING_RESULTS:
            in_two_threads(lambda: observe_locations(works.workplace, place))
        assert works.moves(submitted.run).count("collecting_results") == 1

    def test_a_cluster_that_does_not_answer_is_told_and_asked_again_at_once(self, submitted: One) -> None:
        class Away(LocalBackend):
            def __init__(self) -> None:
                pass

            def observe(self, job_ids: object) -> Any:
                raise BackendUnavailable("local", f"it is away, with {job_ids}")

        works, here = submitted.works, submitted.works.location_id
        works.execute(sa.update(models.DataLocation).values(claimed_by="manager", lease_until=START))
        assert observe_locations(replace(works.workplace, backends={here: Away()}), [here]) == 0
        assert works.all(models.DataLocation, id=here)[0].lease_until is None
        assert submitted.run.status is RunStatus.SUBMITTED
        assert "it is away" in (submitted.run.waiting_for or "")
        submitted.complete()
        assert submitted.run.waiting_for is None

    def test_a_job_that_waits_at_the_cluster_says_for_what(self, submitted: One) -> None:
        class Full(LocalBackend):
            def __init__(self) -> None:
                pass

            def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
                waiting = JobObservation(state=JobState.PENDING, queue_reason="2 jobs wait before it")
                return dict.fromkeys(job_ids, waiting)

        works, here = submitted.works, submitted.works.location_id
        observe_locations(replace(works.workplace, backends={here: Full()}), [here])
        assert submitted.run.waiting_for == "its job waits: 2 jobs wait before it"
        submitted.complete()

    def test_a_job_that_nobody_knows_is_told_and_only_after_its_time_limit_tried_again(self, submitted: One) -> None:
        cancelled: list[str] = []

        class Forgetful(LocalBackend):
            def __init__(self) -> None:
                pass

            def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
                return dict.fromkeys(job_ids, JobObservation(state=JobState.UNKNOWN))

            def find(self, names: Collection[str]) -> Mapping[str, str]:
                return {name: name for name in names}

            def cancel(self, job_ids: Collection[str]) -> None:
                cancelled.extend(job_ids)

            def logs(self, job_id: str, *, lines: int = 50) -> str:
                raise AssertionError((job_id, lines))

        works, here = submitted.works, submitted.works.location_id
        workplace = replace(works.workplace, backends={here: Forgetful()})
        assert observe_locations(workplace, [here]) == 1
        [attempt] = submitted.run.attempts
        since = attempt.unknown_since
        assert since is not None
        assert "cannot tell what its job does" in (submitted.run.waiting_for or "")
        assert observe_locations(workplace, [here]) == 0

        earlier = sa.update(models.RunAttempt).where(models.RunAttempt.id == attempt.id)
        works.execute(earlier.values(unknown_since=since - timedelta(hours=1, minutes=11)))
        assert observe_locations(workplace, [here]) == 1
        run = submitted.run
        assert (run.status, run.failure_class, run.waiting_for) == (
            RunStatus.FAILED,
            FailureClass.INFRASTRUCTURE,
            None,
        )
        assert run.retry_at is not None
        assert run.failure == "the cluster could not tell what became of the job until its time limit was long over"
        assert cancelled == [attempt.job_name]
        assert submitted.run.attempts[0].abandoned_at is not None

        works.execute(earlier.values(cancel_asked_at=None))  # ten seconds later
        eventually(lambda: observe_locations(works.workplace, [here]))
        assert submitted.run.attempts[0].abandoned_at is None, "it is known to be over"

    def test_late_news_of_an_old_attempt_is_not_that_of_the_new_one(self, submitted: One) -> None:
        works, here = submitted.works, submitted.works.location_id

        class Slow(Doubtful):
            """Answers when somebody else has seen the job fail and its next attempt is submitted."""

            def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
                seen = dict.fromkeys(job_ids, JobObservation(state=JobState.FINISHED, exit_code=0))
                self._meanwhile()
                return seen

        def fail_and_begin_anew() -> None:
            works.session(
                lambda session: fail_attempt(
                    session,
                    current_attempts(session, [submitted.id], RunStatus.SUBMITTED)[0],
                    Failure(FailureClass.INFRASTRUCTURE, "its host died"),
                    expected=[RunStatus.SUBMITTED],
                    now=datetime.now(UTC),
                    by="another worker",
                )
            )
            works.retry_now()
            works.start(submitted.id)
            assert submitted.prepare()
            assert submitted.submit()

        observe_locations(replace(works.workplace, backends={here: Slow(works, fail_and_begin_anew)}), [here])
        run = submitted.run
        assert (run.status, len(run.attempts)) == (RunStatus.SUBMITTED, 2)
        assert run.attempts[1].ended_at is None
        submitted.await_end()
        assert submitted.collect()

    def test_a_location_that_another_worker_asks_about_is_left_to_it(self, submitted: One) -> None:
        works, here = submitted.works, submitted.works.location_id

        class Watched(Doubtful):
            def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
                self._meanwhile()
                return super().observe(job_ids)

        asked = []
        workplace = replace(
            works.workplace,
            backends={here: Watched(works, lambda: asked.append(observe_locations(works.workplace, [here])))},
        )
        observe_locations(workplace, [here])
        assert asked == [0]
        assert works.all(models.DataLocation, id=here)[0].lease_until is None
        submitted.complete()


class TestCollecting:
    def test_doing_it_again_registers_nothing_twice(self, ended: One) -> None:
        assert ended.collect()
        assert not ended.collect()
        assert len(ended.run.products) == 1

    def test_two_at_once_register_each_product_once(self, ended: One) -> None:
        assert sorted(in_two_threads(ended.collect)) == [False, True]
        [product] = ended.run.products
        assert ended.works.text(product) == "one "

    def test_who_is_overtaken_by_another_worker_registers_nothing(
        self, ended: One, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def collect_after_another_worker(collection: WhatToCollect) -> Collected:
            monkeypatch.undo()
            ended.directory.lock.unlink()  # as on a file system without locks
            assert ended.collect()
            return collect(collection)

        monkeypatch.setattr(collecting, "collect", collect_after_another_worker)
        assert not ended.collect()
        assert len(ended.run.products) == 1

    def test_a_worker_that_dies_after_publishing_is_followed_by_one_that_registers(
        self, ended: One, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*_: object, **__: object) -> None:
            raise SystemExit

        with monkeypatch.context() as patched:
            patched.setattr(collecting, "_register", die)
            with pytest.raises(SystemExit):
                ended.collect()
        assert (ended.run.status, ended.run.products) == (RunStatus.COLLECTING_RESULTS, [])
        ended.complete()

    def test_a_worker_is_not_blocked_by_a_slow_collection_of_another(self, ended: One) -> None:
        with alone(ended.directory.lock):
            assert not ended.collect()
        ended.complete()

    def test_a_disk_in_trouble_leaves_the_run_to_be_collected_later(
        self, ended: One, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_space(self: Path, target: object) -> None:
            raise OSError(28, f"No space left on device: {self} → {target}")

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", no_space)
            assert not ended.collect()
        assert (ended.run.status, ended.run.failure) == (RunStatus.COLLECTING_RESULTS, None)
        assert "its results cannot be collected ([Errno 28] No space left on device" in (ended.run.waiting_for or "")
        ended.complete()
        assert ended.run.waiting_for is None

    def test_a_disk_that_is_not_mounted_repeats_no_payload(self, ended: One) -> None:
        base = ended.works.base
        base.rename(base.with_name("unmounted"))
        base.mkdir()
        assert not ended.collect()
        assert list(base.iterdir()) == []
        base.rmdir()
        base.with_name("unmounted").rename(base)
        assert (ended.run.status, ended.run.retry_count) == (RunStatus.COLLECTING_RESULTS, 0)
        assert "No such file or directory" in (ended.run.waiting_for or "")
        ended.complete()

    def test_a_database_that_is_away_is_no_failure_of_the_software(
        self, ended: One, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lose_connection(*_: object, **__: object) -> None:
            raise DatabaseUnreachable(ended.works.engine.url, OSError("server closed the connection"))

        with monkeypatch.context() as patched:
            patched.setattr(collecting, "collect", lose_connection)
            with pytest.raises(DatabaseUnreachable):
                ended.collect()
        assert (ended.run.status, ended.run.failure) == (RunStatus.COLLECTING_RESULTS, None)
        ended.complete()

    def test_a_defect_of_ours_repeats_no_payload_and_is_told(self, ended: One, monkeypatch: pytest.MonkeyPatch) -> None:
        def stumble(*_: object, **__: object) -> None:
            raise KeyError("media_type")

        with monkeypatch.context() as patched:
            patched.setattr(collecting, "register", stumble)
            assert not ended.collect()
        assert (ended.run.status, ended.run.failure) == (RunStatus.COLLECTING_RESULTS, None)
        told = "its results cannot be collected (unexpected KeyError: 'media_type'; the log of worker has the rest)"
        assert (ended.run.waiting_for or "").startswith(told)
        ended.complete()
