"""What runs take of other runs, and is not where they are, is brought there from wherever it is."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import joinedload

from ccat_data_transfer.verbs.products.aiming import aim
from ccat_data_transfer.verbs.products.repairing import repair
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.retention import Obstacle
from ccat_ops_db.queries.retention import obstacles
from ccat_ops_db.states import FailureClass, LocationType, PhysicalCopyStatus, RunStatus, Status, Verdict
from ccat_ops_db.verbs.retention import set_retention
from ccat_ops_db.verbs.staging import cancel_unwanted, request_products
from ccat_workflow_manager.verbs.executing import hand_in_attempts
from tests.workflow.verbs.conftest import Say
from tests.workflow.verbs.works import Works

FLAT = {"key": "flat", "group_by": ["executed_obs_unit"], "products": "final", "archive": True}
GRID = {"key": "grid", "group_by": ["source"], "depends_on": ["flat"]}
STACK = {"key": "stack", "group_by": ["source"], "depends_on": ["flat"]}
SCRIPTS = {"flat": 'cat $(find -L "$WORKFLOW_INPUT_DIR" -type f) >"$WORKFLOW_OUTPUT_DIR/science/flat.txt"'}
GONE = (
    PhysicalCopyStatus.DELETION_POSSIBLE,
    PhysicalCopyStatus.DELETION_SCHEDULED,
    PhysicalCopyStatus.DELETION_IN_PROGRESS,
    PhysicalCopyStatus.DELETED,
)


@pytest.fixture
def archived(works: Works) -> Works:
    """A run has made a product, which is in the archive too."""
    works.define(FLAT, scripts=SCRIPTS)
    works.observe("one ")
    works.settle()
    works.session(lambda session: aim(session, by="transfer-manager"))
    works.transfer()
    assert len(copies(works)) == 2
    return works


def copies(works: Works) -> list[models.DataProductPhysicalCopy]:
    """Copies of products, also those that were closed."""
    copy = models.DataProductPhysicalCopy
    return works.session(
        lambda session: list(session.scalars(sa.select(copy).options(joinedload(copy.location)).order_by(copy.id)))
    )


def at_home(works: Works) -> models.PhysicalCopy:
    flat = [product.id for run in works.runs() if run.reduction_step.key == "flat" for product in run.products]
    here = [copy for copy in copies(works) if copy.data_location_id == works.location_id]
    return [copy for copy in here if copy.data_product_id in flat][-1]


def in_archive(works: Works) -> models.PhysicalCopy:
    [copy] = [copy for copy in copies(works) if copy.location.location_type is LocationType.LONG_TERM_ARCHIVE]
    return copy


def file_of(works: Works, copy: models.PhysicalCopy) -> Path:
    return works.root / "cologne" / copy.location.name / copy.path


def retain(works: Works) -> None:
    """Delete the product where it was made, as retention does."""
    copy = at_home(works)
    for to in GONE:
        move(works, copy, to)
    file_of(works, copy).unlink()


def move(works: Works, copy: models.PhysicalCopy, to: PhysicalCopyStatus) -> None:
    works.session(lambda session: advance(session, models.PhysicalCopy, [copy.id], to=to, because="it", by="a test"))


def jobs(works: Works) -> list[models.StagingJob]:
    return [job for job in works.all(models.StagingJob) if job.data_product_id is not None]


def grid(works: Works) -> models.ExecutedReductionStep:
    [run] = [run for run in works.runs() if run.reduction_step.key == "grid"]
    return run


def made(works: Works, run: models.ExecutedReductionStep) -> str:
    [product] = works.run(id=run.id).products
    return works.text(product)


def test_a_run_gets_back_what_retention_deleted_and_says_what_it_waits_for(archived: Works, say: Say) -> None:
    retain(archived)
    archived.define(FLAT, GRID, scripts=SCRIPTS)
    archived.create()
    archived.start()
    archived.advance()
    waiting = grid(archived)
    assert (waiting.status, waiting.waiting_for) == (
        RunStatus.STAGING_DATA,
        "waits for 1 of its products to be staged",
    )
    assert "waits for 1 of its products to be staged" in say("run", "why", waiting.id).stdout
    archived.settle()
    done = grid(archived)
    assert (done.status, len(done.attempts), made(archived, done)) == (RunStatus.COMPLETED, 1, "one ")
    assert [job.status for job in jobs(archived)] == [Status.COMPLETED]
    assert at_home(archived).status is PhysicalCopyStatus.PRESENT
    assert [run.reduction_step.key for run in archived.runs()] == ["flat", "grid"]


def test_two_runs_that_take_the_same_product_cause_one_transfer(archived: Works) -> None:
    retain(archived)
    archived.define(FLAT, GRID, STACK, scripts=SCRIPTS)
    archived.settle()
    assert [run.status for run in archived.runs()] == [RunStatus.COMPLETED] * 3
    assert [job.status for job in jobs(archived)] == [Status.COMPLETED]


def test_it_is_cancelled_once_the_last_run_that_wants_it_is(archived: Works) -> None:
    retain(archived)
    archived.define(FLAT, GRID, STACK, scripts=SCRIPTS)
    archived.create()
    archived.start()
    for number, run in enumerate(archived.runs(status=RunStatus.STAGING_DATA)):
        assert archived.session(lambda session: cancel_unwanted(session, by="transfer-manager")) == 0
        archived.execute(sa.update(models.ExecutedReductionStep).filter_by(id=run.id).values(status="cancelled"))
        assert number < 2
    assert archived.session(lambda session: cancel_unwanted(session, by="transfer-manager")) == 1
    assert [job.status for job in jobs(archived)] == [Status.CANCELLED]


def test_what_is_damaged_where_it_was_made_is_taken_from_the_archive_and_not_made_again(archived: Works) -> None:
    file = file_of(archived, at_home(archived))
    file.chmod(0o644)
    file.write_text("damaged")
    archived.define(FLAT, GRID, scripts=SCRIPTS)
    archived.create()
    archived.start()
    assert hand_in_attempts(archived.workplace, [grid(archived).id]) == []
    assert at_home(archived).status is PhysicalCopyStatus.CORRUPT
    [flat] = [one for name, one in archived.gap().items() if name.startswith("flat")]
    assert flat.verdict is Verdict.UP_TO_DATE
    archived.retry_now()
    archived.settle()
    assert (grid(archived).status, made(archived, grid(archived))) == (RunStatus.COMPLETED, "one ")
    assert [run.reduction_step.key for run in archived.runs()] == ["flat", "grid"]
    assert file.read_text() == "one "


def test_what_nobody_takes_is_mended_all_the_same(archived: Works) -> None:
    file_of(archived, at_home(archived)).unlink()
    move(archived, at_home(archived), PhysicalCopyStatus.MISSING)
    assert archived.create() == 0
    assert archived.session(repair) == 1
    archived.transfer()
    assert file_of(archived, at_home(archived)).read_text() == "one "
    assert archived.create() == 0
    assert len(archived.runs()) == 1


def test_what_no_copy_is_left_of_is_made_again(archived: Works) -> None:
    file_of(archived, at_home(archived)).unlink()
    move(archived, at_home(archived), PhysicalCopyStatus.MISSING)
    archive = file_of(archived, in_archive(archived))
    archive.chmod(0o644)
    archive.write_text("rot!")
    archived.define(FLAT, GRID, scripts=SCRIPTS)
    archived.create()
    failed = archived.until(RunStatus.FAILED, grid(archived).id)
    assert (failed.status, failed.failure_class) == (RunStatus.FAILED, FailureClass.INFRASTRUCTURE)
    assert in_archive(archived).status is PhysicalCopyStatus.CORRUPT
    assert "that at cologne/lta is corrupt" in (failed.failure or "")
    archived.retry_now()
    archived.settle()
    assert (grid(archived).status, made(archived, grid(archived))) == (RunStatus.COMPLETED, "one ")
    assert [run.reduction_step.key for run in archived.runs()] == ["flat", "grid", "flat"]


def test_what_was_made_at_another_location_is_brought_along(archived: Works) -> None:
    """As where a pipeline is moved, or takes calibrations of one that runs elsewhere."""
    second, home = archived.add_location("second"), at_home(archived)
    place = archived.root / "cologne/second" / home.path
    place.parent.mkdir(parents=True)
    file_of(archived, home).rename(place)
    archived.execute(sa.update(models.PhysicalCopy).filter_by(id=home.id).values(data_location_id=second))
    archived.execute(sa.update(models.ExecutedReductionStep).values(data_location_id=second))
    archived.define(FLAT, GRID, scripts=SCRIPTS)
    archived.settle()
    assert (grid(archived).status, made(archived, grid(archived))) == (RunStatus.COMPLETED, "one ")
    [flat] = [run for run in archived.runs() if run.reduction_step.key == "flat"]
    path = f"products/toy/flat/{flat.sub_group_path}/{flat.id}/science/flat.txt"
    assert (at_home(archived).path, file_of(archived, at_home(archived)).read_text()) == (path, "one ")
    assert place.read_text() == "one "


def test_what_was_brought_goes_when_no_run_takes_it_any_more_and_what_is_read_stays(archived: Works) -> None:
    second = archived.add_location("second")
    archived.session(lambda session: set_retention(session, "cologne/second", days=0, high=None, low=None, by="Ann"))
    [product] = archived.run().products
    archived.session(lambda session: request_products(session, [product.id], second))
    assert obstacle(archived, at_home(archived)) is Obstacle.BEING_READ
    archived.transfer()
    [brought] = [copy for copy in copies(archived) if copy.data_location_id == second]
    assert obstacle(archived, brought) is None
    for copy in (at_home(archived), in_archive(archived)):
        move(archived, copy, PhysicalCopyStatus.CORRUPT)
    assert obstacle(archived, brought) is Obstacle.LAST_SOUND_COPY


def obstacle(works: Works, copy: models.PhysicalCopy) -> Obstacle | None:
    return works.session(lambda session: obstacles(session, [copy.id])).get(copy.id)
