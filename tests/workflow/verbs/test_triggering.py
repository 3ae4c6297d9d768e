"""From the gap to PENDING runs."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, RunReason, RunStatus
from ccat_workflow_manager.managers import create_runs
from ccat_workflow_manager.verbs.triggering import create_wanted_runs, pipelines_to_evaluate
from tests.workflow.verbs.works import Works

CALIBRATE = {"key": "calibrate", "group_by": ["executed_obs_unit"]}
GRID = {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]}


@pytest.fixture
def observed(works: Works) -> Works:
    """An installation with three packages."""
    works.archived("package-0", "package-1", "package-2")
    return works


def test_every_sub_group_that_needs_a_run_gets_one(observed: Works) -> None:
    observed.define(CALIBRATE, GRID, priority=3)
    assert observed.create() == 3
    assert observed.create() == 0
    run = min(observed.runs(), key=lambda run: str(run.sub_group_labels))
    candidate = next(found for found in observed.gap().values() if found.key == run.sub_group_key)
    assert (run.status, run.reason, run.because) == (RunStatus.PENDING, RunReason.MISSING, "no run has completed yet")
    assert (run.priority, run.sub_group_path) == (3, candidate.path)
    assert run.sub_group_labels == {"executed_obs_unit": "2026-04-05 01:01:00+00"}
    assert candidate.step.recipe
    assert run.recipe_digest == candidate.step.recipe.digest
    assert run.input_digest == candidate.input_digest
    [defined] = observed.all(models.PipelineRevision)
    assert run.packages_until == max(defined.created_at, observed.all(models.ReductionSoftwareVersion)[0].created_at)
    assert run.inputs_frozen_at is None


def test_of_two_trigger_managers_that_see_the_same_gap_only_one_creates_its_runs(observed: Works) -> None:
    observed.define(CALIBRATE)
    pipeline_id = observed.all(models.Pipeline)[0].id
    together = threading.Barrier(2, timeout=10)

    def evaluate() -> int:
        with transaction(observed.engine) as session:
            session.execute(sa.text("SELECT 1"))
            together.wait()
            return create_wanted_runs(session, pipeline_id, now=datetime.now(UTC), by="a test").created

    with ThreadPoolExecutor() as pool:
        created = [one.result() for one in [pool.submit(evaluate), pool.submit(evaluate)]]
    assert sum(created) == 3
    assert len(observed.runs()) == 3


def test_only_enabled_pipelines_are_evaluated(observed: Works) -> None:
    observed.define(CALIBRATE, enabled=False)
    assert observed.create() == 0


def test_only_pipelines_of_locations_that_are_served_are_evaluated_the_most_important_first(observed: Works) -> None:
    for name, priority in (("low", 1), ("high", 9), ("middle", 5)):
        observed.define(CALIBRATE, name=name, priority=priority)
    names = {one.id: one.name for one in observed.all(models.Pipeline)}
    with transaction(observed.engine) as session:
        assert pipelines_to_evaluate(session, [], now=datetime.now(UTC)) == []
        found = pipelines_to_evaluate(session, [observed.location_id], now=datetime.now(UTC))
    assert [names[number] for number in found] == ["high", "middle", "low"]


def test_a_pipeline_that_cannot_be_evaluated_does_not_hold_up_the_others(observed: Works) -> None:
    observed.define(CALIBRATE, name="broken", priority=9)
    rule = {"table": "Gone", "column": "x", "operator": "eq", "value": 1}
    observed.execute(sa.update(models.DataGroupingRevision).values(filter_rules=[rule]))
    observed.define(CALIBRATE, name="sound")
    assert observed.create() == 3


def test_the_manager_knows_when_the_first_cooldown_ends(observed: Works) -> None:
    last = datetime.now(UTC)
    observed.execute(sa.update(models.RawDataPackage).values(archived_at=last))
    observed.define({**CALIBRATE, "cooldown_seconds": 60}, {"key": "all", "group_by": [], "cooldown_seconds": 30})
    context = observed.context()
    assert create_runs(context) == 0
    assert context.due is not None
    assert (context.due - last).total_seconds() == 30


def test_a_retry_that_became_pointless_is_given_up_and_what_is_wanted_now_starts_at_once(observed: Works) -> None:
    observed.define({"key": "grid", "group_by": ["source"], "max_retries": 5})
    observed.create()
    observed.start()
    observed.fail(observed.run().id)
    assert observed.run().retry_at
    observed.archived("new")
    assert observed.create() == 1
    run = observed.run()
    assert (run.status, run.retry_at) == (RunStatus.FAILED, None)
    assert run.waiting_for == "outdated: the inputs changed since its last attempt"
    assert observed.create() == 1
    assert [run.status for run in observed.runs()] == [RunStatus.FAILED, RunStatus.PENDING]


def test_a_retry_that_is_still_wanted_is_left_alone(observed: Works) -> None:
    observed.define({**CALIBRATE, "max_retries": 5})
    observed.create()
    observed.start()
    failed = observed.runs()[0]
    observed.fail(failed.id)
    retry_at = observed.run(id=failed.id).retry_at
    observed.archived("new")
    assert observed.create() == 1
    assert observed.run(id=failed.id).retry_at == retry_at is not None


def test_packages_on_their_way_trigger_nothing(observed: Works) -> None:
    observed.define(CALIBRATE)
    values = {"state": PackageState.TRANSFERRING, "archived_at": None}
    observed.execute(
        sa.text("UPDATE raw_data_package SET state = :state, archived_at = :archived_at").bindparams(**values)
    )
    assert observed.create() == 0


def test_a_trigger_manager_that_starts_mends_what_drifted_while_nobody_looked(observed: Works) -> None:
    observed.define(CALIBRATE)
    observed.create()
    observed.execute(sa.delete(models.SubGroup))
    observed.create()
    assert observed.all(models.SubGroup) == []  # nothing is said to have changed
    create_runs(observed.context("a manager that starts"))
    assert len(observed.all(models.SubGroup)) == 3


def test_it_looks_at_everything_once(observed: Works) -> None:
    observed.define(CALIBRATE)
    context = observed.context()
    create_runs(context)
    observed.execute(sa.delete(models.SubGroup))
    create_runs(context)
    assert observed.all(models.SubGroup) == []
