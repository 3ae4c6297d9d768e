"""PENDING → STAGING_DATA: what is fixed, what is dropped, what waits."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.states import FailureClass, InputRole, RunStatus, VersionState
from ccat_workflow_manager import managers
from tests.workflow.verbs.works import Works

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}


def test_inputs_are_fixed_and_an_attempt_is_made(works: Works) -> None:
    works.define({"key": "grid", "group_by": ["source"]})
    packages = works.archived("one", "two")
    works.create()
    assert works.start(works.run().id).started == (works.run().id,)
    run = works.run()
    assert (run.status, run.waiting_for, run.lease_until) == (RunStatus.STAGING_DATA, None, None)
    assert run.inputs_frozen_at is not None
    inputs = works.all(models.RunInput, run_id=run.id)
    assert {(one.role, one.raw_data_package_id) for one in inputs} == {(InputRole.RAW, number) for number in packages}
    [attempt] = run.attempts
    installation = works.all(models.Installation)[0].installation_id.hex[:8]
    assert attempt.job_name == f"ccat-{installation}-{run.id}-1"
    assert attempt.directory == f"{run.pipeline_id}/{run.sub_group_path}/grid/{run.id}/attempt-1"


def test_staging_is_requested_once_for_two_runs(works: Works) -> None:
    works.define(CALIBRATE, name="first")
    works.define(CALIBRATE, name="second")
    [package] = works.archived("one")
    works.create()
    assert works.advance() >= 2
    assert {run.status for run in works.runs()} == {RunStatus.STAGING_DATA}
    assert [job.raw_data_package_id for job in works.all(models.StagingJob)] == [package]


def test_a_run_that_nothing_needs_any_more_is_cancelled_as_not_needed_and_blocks_nothing(works: Works) -> None:
    works.define(CALIBRATE)
    [package] = works.archived("one")
    works.create()
    works.exclude(package)
    run = works.run()
    assert works.start(run.id).not_needed == (run.id,)
    run = works.run()
    assert (run.status, run.not_needed) == (RunStatus.CANCELLED, True)
    assert run.finished_at is not None
    assert works.all(models.StatusChange, object_id=run.id)[-1].because == "its sub-group is gone"
    unexcluded = sa.update(models.RawDataPackage).values(excluded_at=None, excluded_because=None)
    works.execute(unexcluded)
    assert works.create() == 1


def test_a_run_starts_with_what_is_wanted_at_its_start(works: Works) -> None:
    works.define({"key": "grid", "group_by": ["source"]})
    works.archived("one")
    works.create()
    created = works.run()
    two = works.archived("two")
    works.apply({"software": [{"name": "toy-grid", "versions": [works.version(), works.version(version="1.1")]}]})
    works.start(created.id)
    started = works.run()
    assert started.recipe_digest != created.recipe_digest
    assert started.input_digest != created.input_digest
    assert two[0] in {one.raw_data_package_id for one in works.all(models.RunInput, run_id=started.id)}
    version = works.all(models.ReductionSoftwareVersion, id=started.software_version_id)[0]
    assert version.version == "1.1"


def test_a_run_that_is_not_ready_any_more_stays_with_the_reason(works: Works) -> None:
    works.define(CALIBRATE, GRID)
    works.observe("one ")
    works.until(RunStatus.COMPLETED)
    works.create()
    waiting = works.runs(status=RunStatus.PENDING)[-1]
    works.apply({"software": [{"name": "toy-calibrate", "versions": [works.version(version="2.0", series="2")]}]})
    assert works.start(waiting.id).waiting == (waiting.id,)
    waiting = works.run(id=waiting.id)
    assert waiting.status is RunStatus.PENDING
    assert (waiting.waiting_for or "").startswith("waits for calibrate 2026-04-05-01-01-00")
    works.settle()
    done = works.run(id=waiting.id)
    assert (done.status, done.waiting_for) == (RunStatus.COMPLETED, None)
    assert [run.reduction_step.key for run in works.runs()] == ["calibrate", "grid", "calibrate"]


def test_runs_that_wait_do_not_keep_others_from_starting(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(managers, "_BATCH", 2)
    works.define(CALIBRATE, name="waits", priority=9)
    works.archived("one", "two", "three")
    works.create()
    retire = {"name": "waits-calibrate", "versions": [works.version(state=VersionState.RETIRED)]}
    works.apply({"software": [retire]})
    works.define(CALIBRATE, name="starts")
    works.create()
    context = works.context()
    for _ in range(4):
        managers.advance_runs(context)
    by_pipeline = {
        name: {run.status for run in works.runs(pipeline_id=works.all(models.Pipeline, name=name)[0].id)}
        for name in ("waits", "starts")
    }
    assert by_pipeline == {"waits": {RunStatus.PENDING}, "starts": {RunStatus.STAGING_DATA}}
    assert context.due is not None
    assert (context.due - datetime.now(UTC)).total_seconds() <= 2


def test_one_bad_run_does_not_hold_up_the_others_of_its_batch(works: Works) -> None:
    works.define(CALIBRATE, name="bad")
    works.define(CALIBRATE, name="good")
    works.archived("one")
    works.create()
    bad = works.all(models.DataGrouping, name="bad-grouping")[0].id
    rule = {"table": "Gone", "column": "x", "operator": "eq", "value": 1}
    revision = models.DataGroupingRevision
    works.execute(sa.update(revision).where(revision.data_grouping_id == bad).values(filter_rules=[rule]))
    works.advance()
    assert sorted(run.status for run in works.runs()) == [RunStatus.PENDING, RunStatus.STAGING_DATA]


def test_of_two_that_start_the_same_run_one_does_it(works: Works) -> None:
    works.define(CALIBRATE)
    works.archived("one")
    works.create()
    run_id = works.run().id
    together = threading.Barrier(2, timeout=10)

    def begin() -> int:
        together.wait()
        return len(works.start(run_id).started)

    with ThreadPoolExecutor() as pool:
        started = [one.result() for one in [pool.submit(begin), pool.submit(begin)]]
    assert sorted(started) == [0, 1]
    assert len(works.run().attempts) == 1


class TestRetry:
    @pytest.fixture
    def failed(self, works: Works) -> Works:
        """A run over two packages that failed for the first time."""
        works.define({"key": "grid", "group_by": ["source"], "max_retries": 5})
        works.archived("one", "two")
        works.create()
        works.start()
        works.fail(works.run().id)
        return works

    def test_it_has_the_same_inputs_and_the_next_number(self, failed: Works) -> None:
        before = failed.all(models.RunInput)
        failed.retry_now()
        started = failed.start(failed.run().id)
        run = failed.run()
        assert started.started == (run.id,)
        assert [one.id for one in failed.all(models.RunInput)] == [one.id for one in before]
        assert [attempt.number for attempt in run.attempts] == [1, 2]
        assert failed.all(models.StatusChange, object_id=run.id)[-1].because == "tried again with the same inputs"

    @pytest.mark.parametrize("change", ["inputs", "recipe", "sub-group"])
    def test_it_is_dropped_where_it_is_outdated(self, failed: Works, change: str) -> None:
        match change:
            case "inputs":
                failed.archived("three")
            case "recipe":
                failed.apply({"software": [{"name": "toy-grid", "versions": [failed.version(version="1.1")]}]})
            case _:
                for package in failed.all(models.RawDataPackage):
                    failed.exclude(package.id)
        failed.retry_now()
        run = failed.run()
        assert failed.start(run.id).not_needed == (run.id,)
        assert failed.run().not_needed
        assert len(failed.run().attempts) == 1
        if change != "sub-group":
            assert failed.create() == 1

    def test_it_waits_where_its_software_is_not_released(self, failed: Works) -> None:
        [version] = failed.all(models.ReductionSoftwareVersion)
        retired = failed.version(state=VersionState.RETIRED)
        failed.apply({"software": [{"name": "toy-grid", "versions": [retired]}]})
        failed.retry_now()
        assert failed.start(failed.run().id).waiting == (failed.run().id,)
        assert failed.run().waiting_for == "waits for a version of toy-grid to be released"
        assert version.state is VersionState.RELEASED

    def test_a_given_up_run_blocks_nothing_once_its_inputs_changed(self, failed: Works) -> None:
        give_up = sa.update(models.ExecutedReductionStep).values(retry_at=None)
        failed.execute(give_up)
        assert failed.create() == 0
        failed.archived("three")
        assert failed.create() == 1
        assert failed.runs()[0].failure_class is FailureClass.PAYLOAD


def test_what_a_disabled_pipeline_has_pending_waits_until_it_is_enabled_and_nobody_waits_for_it(works: Works) -> None:
    works.define(CALIBRATE)
    works.archived("one")
    works.create()
    works.define(CALIBRATE, enabled=False)
    works.advance()
    run = works.run()
    assert (run.status, run.waiting_for) == (RunStatus.PENDING, "its pipeline is disabled")
    assert works.activity().is_over
    works.define(CALIBRATE)
    works.let_leases_end()
    works.advance()
    assert works.run().status is RunStatus.STAGING_DATA
