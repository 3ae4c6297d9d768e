"""A staged copy that is not what was recorded is taken out of use and made anew; and what becomes of older products."""

import shutil

import pytest
import sqlalchemy as sa

from ccat_data_transfer.verbs.retrying import retry_package
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.states import FailureClass, PhysicalCopyStatus, ProductState, RunReason, RunStatus, Verdict
from ccat_workflow_manager.verbs.executing import hand_in_attempts
from tests.workflow.verbs.works import Works


@pytest.fixture
def staged(works: Works) -> Works:
    """A run in STAGING_DATA whose data are there."""
    works.define({"key": "grid", "group_by": ["source"]})
    works.observe("one ")
    works.create()
    works.start()
    works.transfer()
    return works


def staged_copy(works: Works) -> models.PhysicalCopy:
    [copy] = works.all(models.PhysicalCopy, data_location_id=works.location_id, status=PhysicalCopyStatus.STAGED)
    return copy


@pytest.mark.parametrize("damage", ["a file is gone", "a file has other bytes", "it is a copy of itself"])
def test_a_copy_that_was_tampered_with_is_corrupt_and_staged_anew(staged: Works, damage: str) -> None:
    copy = staged_copy(staged)
    directory = staged.root / "cologne/ramses" / copy.path
    directory.chmod(0o755)
    if damage == "a file is gone":
        next(directory.iterdir()).unlink()
    elif damage == "a file has other bytes":
        file = next(directory.iterdir())
        file.chmod(0o644)
        file.write_text("two ")
    else:
        shutil.copytree(directory, directory.with_name("copy"))
        shutil.rmtree(directory)
        directory.with_name("copy").rename(directory)
    assert hand_in_attempts(staged.workplace, [staged.run().id]) == []
    run = staged.run()
    assert (run.status, run.failure_class) == (RunStatus.FAILED, FailureClass.INFRASTRUCTURE)
    assert (run.failure or "").startswith("package CHAI-LFA-")
    assert (run.failure or "").endswith("it has to be brought there anew")
    assert staged.all(models.PhysicalCopy, id=copy.id)[0].status is PhysicalCopyStatus.CORRUPT
    staged.retry_now()
    staged.settle()
    run = staged.run()
    assert (run.status, staged.text(run.products[0])) == (RunStatus.COMPLETED, "one ")
    assert len(staged.all(models.StagingJob)) == 2
    assert staged_copy(staged).id != copy.id


def test_a_run_whose_data_nobody_brings_fails_and_its_retry_asks_anew(staged: Works) -> None:
    copy, missing = staged_copy(staged), PhysicalCopyStatus.MISSING
    staged.session(
        lambda session: advance(session, models.PhysicalCopy, [copy.id], to=missing, because="a test", by="a test")
    )
    assert staged.advance() == 1
    run = staged.run()
    assert (run.failure_class, run.failure) == (FailureClass.INFRASTRUCTURE, "its data are no longer staged")
    staged.retry_now()
    staged.settle()
    assert staged.run().status is RunStatus.COMPLETED


def test_a_new_scan_makes_the_old_products_superseded_and_keeps_them(staged: Works) -> None:
    staged.settle()
    staged.observe("two ")
    staged.settle()
    first, second = staged.runs()
    states = [[product.state for product in run.products] for run in (first, second)]
    assert states == [[ProductState.SUPERSEDED], [ProductState.CURRENT]]
    assert second.reason is RunReason.INPUTS_CHANGED
    assert second.because.startswith(f"new since run {first.id}: CHAI-LFA-")
    assert staged.text(first.products[0]) == "one "
    assert len(staged.text(second.products[0])) == len("one two ")
    change = staged.all(models.StatusChange, noun="data_product", object_id=first.products[0].id)[-1]
    assert change.because == f"by run {second.id}"


def test_a_product_that_is_damaged_is_made_again_before_it_is_taken(works: Works) -> None:
    works.define(
        {"key": "calibrate", "group_by": ["executed_obs_unit"]},
        {"key": "grid", "group_by": ["source"], "depends_on": ["calibrate"]},
    )
    works.observe("one ")
    works.until(RunStatus.COMPLETED)
    works.create()
    works.start()
    [grid] = works.runs(status=RunStatus.STAGING_DATA)
    [calibrate] = works.runs(status=RunStatus.COMPLETED)
    [product] = calibrate.products
    file = next(works.base.rglob("products/*.txt"))
    file.chmod(0o644)
    file.write_text("damaged")

    assert hand_in_attempts(works.workplace, [grid.id]) == []
    assert "has changed: bytes: 4 recorded, 7 found" in (works.run(id=grid.id).failure or "")
    found = works.gap()
    assert [one.verdict for one in found.values()] == [Verdict.WANTED, Verdict.BLOCKED]
    decision = next(iter(found.values()))
    assert decision.reason is RunReason.INVALIDATED
    assert decision.because == f"products of run {calibrate.id} are damaged or lost: {product.relative_path}"

    works.retry_now()
    works.advance()
    waiting = works.run(id=grid.id)
    assert (waiting.status, waiting.waiting_for) == (
        RunStatus.PENDING,
        "waits for what it takes to be made again: it is damaged or lost",
    )
    works.settle()
    done = works.run(id=grid.id)
    assert (done.status, len(done.attempts), works.text(done.products[0])) == (RunStatus.COMPLETED, 2, "one ")
    [taken] = works.all(models.RunInput, run_id=grid.id)
    assert taken.data_product_id != product.id
    assert [run.reduction_step.key for run in works.runs()] == ["calibrate", "grid", "calibrate"]


def test_runs_that_gave_up_for_want_of_an_archive_copy_go_on_when_it_is_restored(staged: Works) -> None:
    copy, run = staged_copy(staged), staged.run()
    lost, to = [copy.id, *(one.id for one in archive_copies(staged))], PhysicalCopyStatus.MISSING
    staged.session(lambda session: advance(session, models.PhysicalCopy, lost, to=to, because="a test", by="a test"))
    staged.execute(sa.update(models.ExecutedReductionStep).values(trouble_count=10))
    staged.advance()
    gave_up = staged.run()
    assert (gave_up.status, gave_up.retry_at) == (RunStatus.FAILED, None)
    assert staged.create() == 0
    [package] = staged.all(models.RawDataPackage)
    staged.session(lambda session: retry_package(session, package.id, by="an operator"))
    staged.settle()
    assert (staged.run().id, staged.run().status) == (run.id, RunStatus.COMPLETED)


def archive_copies(works: Works) -> list[models.PhysicalCopy]:
    found = works.all(models.PhysicalCopy, type="raw_data_package", status=PhysicalCopyStatus.PRESENT)
    return [one for one in found if one.path.endswith(".tar")]
