"""A staged copy that is not what was recorded is taken out of use and made anew; and what becomes of older products."""

import shutil

import pytest

from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.states import FailureClass, PhysicalCopyStatus, ProductState, RunReason, RunStatus
from ccat_workflow_manager.verbs.executing import prepare_attempts
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


@pytest.mark.parametrize("damage", ["a file is gone", "it is a copy of itself"])
def test_a_copy_that_was_tampered_with_is_corrupt_and_staged_anew(staged: Works, damage: str) -> None:
    copy = staged_copy(staged)
    directory = staged.root / "cologne/ramses" / copy.path
    directory.chmod(0o755)
    if damage == "a file is gone":
        next(directory.iterdir()).unlink()
    else:
        shutil.copytree(directory, directory.with_name("copy"))
        shutil.rmtree(directory)
        directory.with_name("copy").rename(directory)
    assert prepare_attempts(staged.workplace, [staged.run().id]) == []
    run = staged.run()
    assert (run.status, run.failure_class) == (RunStatus.FAILED, FailureClass.INFRASTRUCTURE)
    assert (run.failure or "").startswith("the staged copy of package CHAI-LFA-")
    assert (run.failure or "").endswith("it has to be staged anew")
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
    assert (run.failure_class, run.failure) == (FailureClass.INFRASTRUCTURE, "its raw data are no longer staged")
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
