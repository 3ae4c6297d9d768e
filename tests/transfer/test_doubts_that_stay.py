"""A copy that may be bad is not trusted because it was to be deleted meanwhile, and stays after all."""

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, Mover, Status
from tests.transfer.reductions import Reductions
from tests.transfer.support import Observatory
from tests.transfer.test_brought_in_vain import FAR, in_doubt, on_bad_disk
from tests.transfer.test_fetching import FILES, archived, ask, check, fetch
from tests.transfer.test_given_up import cancel

THIRD = "de/gpu"
NUMBER = len(FILES) + 1


@pytest.fixture
def sites(far: Observatory) -> Iterator[Reductions]:
    """Products of Cologne are in the US too, as a run took them, and are wanted at a site that only the US leads to."""
    for name in (FAR, THIRD):
        far.add_location(name, LocationType.PROCESSING)
    made = Reductions(far)
    far.add_route("cologne", "us", method=Mover.RSYNC)
    far.add_route("us", "de", method=Mover.RSYNC)
    yield made
    made.end()


@pytest.fixture
def doubted(sites: Reductions) -> int:
    """A run of which they arrived damaged from there."""
    run_id = archived(sites)
    fetch(sites, run_id, FAR)
    ask(sites, run_id, THIRD)
    on_bad_disk(sites.observatory, Operation.STAGING)
    assert in_doubt(sites, run_id, FAR) == {True}
    return run_id


def reasons(sites: Reductions, run_id: int) -> set[bool]:
    """Whether the copies in the US say why they are in doubt."""
    return {"found that" in (copy.failure or "") for copy in sites.copies(run_id, FAR).values()}


def wait(sites: Reductions) -> set[str]:
    """What the jobs for the third site say that wait."""
    sites.observatory.do(Operation.STAGING)
    with transaction(sites.engine) as session:
        waiting = sa.select(models.StagingJob.failure).filter_by(status=Status.PENDING)
        return {(one or "").partition(")")[2] for one in session.scalars(waiting)}


def test_what_was_to_go_and_is_wanted_again_is_read_before_it_is_sent(sites: Reductions, doubted: int) -> None:
    far = sites.observatory
    cancel(far)
    far.keep(FAR, days=0)
    assert far.mark(FAR) == NUMBER
    assert reasons(sites, doubted) == {True}
    ask(sites, doubted, THIRD)
    delete_copies(far.worker, far.schedule_deletions(FAR))
    assert in_doubt(sites, doubted, FAR) == {True}
    assert reasons(sites, doubted) == {True}
    [said] = wait(sites)
    assert said.startswith(f" waits for its copy at {FAR} to be read again there")
    assert far.read_again() == NUMBER
    assert wait(sites) == set()
    check(sites, doubted, THIRD)


def test_what_was_never_doubted_is_not_because_it_was_to_go(sites: Reductions, doubted: int) -> None:
    far = sites.observatory
    cancel(far)
    assert far.read_again() == NUMBER
    far.keep(FAR, days=0)
    assert far.mark(FAR) == NUMBER
    with transaction(sites.engine) as session:
        session.execute(sa.update(models.PhysicalCopy).values(failure="it could not be removed"))
    ask(sites, doubted, THIRD)
    delete_copies(far.worker, far.schedule_deletions(FAR))
    assert {copy.failure for copy in sites.copies(doubted, FAR).values()} == {None}
    assert wait(sites) == set()
