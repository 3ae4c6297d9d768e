"""Products that the database keeps are kept by the plan too; and what it keeps for another reason holds up no other."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_data_transfer.verbs.scrubbing import scrub
from ccat_ops_db import models
from ccat_ops_db.plan.retention import Obstacle
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import AlertKind, PhysicalCopyStatus
from ccat_ops_db.verbs.restoring import trust_no_archive
from ccat_ops_db.verbs.retention import retry_deletions
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory
from tests.transfer.test_retention import ARCHIVE, SOURCE, STAGED, archived, change, staged, told

HOME = STAGED
"""Where runs are, and what is staged for them."""


@pytest.fixture
def reductions(observatory: Observatory) -> Iterator[Reductions]:
    made = Reductions(observatory)
    yield made
    made.end()


def keep_no_products(observatory: Observatory) -> None:
    observatory.keep(HOME, days=0)
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.ReductionStepRevision).values(retention_days=0))


def status(observatory: Observatory, copy_id: int) -> PhysicalCopyStatus:
    return observatory.one(models.PhysicalCopy, id=copy_id).status


def test_after_a_restore_products_stay_where_they_were_made_until_their_archive_has_read_them_and_hold_up_no_other(
    reductions: Reductions,
) -> None:
    observatory = reductions.observatory
    run_id = reductions.make({"science/map.fits": b"map"})
    reductions.archive()
    package = observatory.copies(staged(observatory))
    with transaction(observatory.engine) as session:
        trust_no_archive(session)
    change(observatory, models.PhysicalCopy, {"id": package[ARCHIVE].id}, verified_at=START)
    keep_no_products(observatory)
    home, safe = (reductions.copies(run_id, where)["science/map.fits"] for where in (HOME, ARCHIVE))

    assert observatory.make_room(HOME) == 1
    assert status(observatory, package[STAGED].id) is PhysicalCopyStatus.DELETED
    assert status(observatory, home.id) is PhysicalCopyStatus.PRESENT
    assert Obstacle.LAST_SOUND_COPY in {one.obstacle for one in told(observatory, HOME)}
    scrub(observatory.worker, [safe.id])
    assert observatory.make_room(HOME) == 1
    assert status(observatory, home.id) is PhysicalCopyStatus.DELETED


def test_what_a_step_had_archived_stays_where_it_is_if_it_never_was_though_the_step_asks_for_it_no_longer(
    reductions: Reductions,
) -> None:
    observatory = reductions.observatory
    run_id = reductions.make({"science/map.fits": b"map"})
    change(observatory, models.ProductArchiveTransfer, {"run_id": run_id}, status="cancelled")
    reductions.define(archive=False)
    keep_no_products(observatory)
    assert observatory.make_room(HOME) == 0
    assert [one.obstacle for one in told(observatory, HOME)] == [Obstacle.LAST_SOUND_COPY]


@contextmanager
def keeping(observatory: Observatory, copy_id: int) -> Iterator[None]:
    """Have the database keep a copy, for a reason that nobody else knows of."""
    rule = f"CHECK (id <> {copy_id} OR status <> 'deletion_in_progress')"
    with observatory.engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE physical_copy ADD CONSTRAINT keep_one {rule}"))
    try:
        yield
    finally:
        with observatory.engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE physical_copy DROP CONSTRAINT keep_one"))


def test_a_copy_that_the_database_keeps_holds_up_no_other_and_is_told_of_when_it_is_refused_again_and_again(
    observatory: Observatory,
) -> None:
    archived(observatory)
    observatory.keep(SOURCE, days=0)
    kept = observatory.one(models.PhysicalCopy, path="2026-04-01/a-1.fits").id
    with keeping(observatory, kept):
        assert observatory.make_room(SOURCE) == 2
        assert observatory.one(models.PhysicalCopy, path="2026-04-01/a-2.fits").status is PhysicalCopyStatus.DELETED
        copy = observatory.one(models.PhysicalCopy, id=kept)
        assert (copy.status, copy.trouble_count) == (PhysicalCopyStatus.DELETION_SCHEDULED, 1)
        assert copy.not_before is not None
        assert copy.lease_until is None
        assert 'violates check constraint "keep_one"' in (copy.failure or "")
        for _ in range(4):
            change(observatory, models.PhysicalCopy, {"id": kept}, not_before=None)
            delete_copies(observatory.worker, observatory.schedule_deletions(SOURCE))
        with transaction(observatory.engine) as session:
            [one] = [one for one in conditions(session, late=START) if one.kind is AlertKind.FAILED_FOR_GOOD]
        assert one.sentence.startswith(f"1 copy cannot be deleted at {SOURCE}: new row for relation ")

    with transaction(observatory.engine) as session:
        assert retry_deletions(session, SOURCE) == 1
    assert observatory.make_room(SOURCE) == 1
    assert status(observatory, kept) is PhysicalCopyStatus.DELETED
