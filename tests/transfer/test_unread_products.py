"""A product that cannot be read keeps no other of its run from the archive, and follows once it can be."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_ops_db import models
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import AlertKind, LocationType, Mover, PhysicalCopyStatus, RouteType, Status
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory
from tests.transfer.test_product_routes import ARCHIVE, BUFFER, FAR, FILES, TREE, check_archived
from tests.transfer.test_troubles import forbidden

MOVING, ARCHIVING = Operation.TRANSFERRING_PRODUCTS, Operation.ARCHIVING_PRODUCTS
BAD, CUBE = "science/map.fits", "science/cube.zarr"
OTHERS = {*FILES, CUBE} - {BAD}


@pytest.fixture
def far_maps(far: Observatory) -> Iterator[Reductions]:
    """Maps that go to their archive over the buffers of two other sites."""
    far.add_location(FAR, LocationType.PROCESSING)
    far.add_location("santiago/buffer", LocationType.BUFFER)
    far.add_route("us", "cologne", RouteType.RELAY, via="santiago", method=Mover.COPY)
    far.add_route("santiago", "cologne", method=Mover.RSYNC)
    made = Reductions(far, FAR)
    yield made
    made.end()


@pytest.fixture
def near_maps(far: Observatory) -> Iterator[Reductions]:
    """Maps that are made where their archive is."""
    made = Reductions(far)
    yield made
    made.end()


def make(maps: Reductions) -> int:
    return maps.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")


def archived(maps: Reductions, run_id: int) -> set[str]:
    copies = maps.copies(run_id, ARCHIVE)
    return {path for path, copy in copies.items() if copy.status is PhysicalCopyStatus.PRESENT}


def read_again(maps: Reductions, *, unread: Path | None = None) -> int:
    """Read what is in doubt, as if its pause was over."""
    with transaction(maps.engine) as session:
        session.execute(sa.update(table_of(models.PhysicalCopy)).values(not_before=None))
        session.execute(sa.update(table_of(models.DataLocation)).values(archive_look_at=None, scrub_days=0))
    with forbidden(unread) if unread else nullcontext():
        return maps.observatory.read_again()


def told(maps: Reductions) -> dict[AlertKind, str]:
    with transaction(maps.engine) as session:
        return {one.kind: one.sentence for one in conditions(session, late=START)}


def do(maps: Reductions, *operations: Operation, unread: Path) -> None:
    """Do what waits for each of these operations, while nobody may read a file."""
    for one in operations:
        with forbidden(unread):
            assert maps.observatory.do(one) == 1


def test_over_buffers_the_others_of_its_run_are_archived_while_one_cannot_be_read(far_maps: Reductions) -> None:
    run_id, observatory = make(far_maps), far_maps.observatory
    bad = far_maps.products(run_id) / BAD
    observatory.aim()
    do(far_maps, MOVING, MOVING, ARCHIVING, unread=bad)
    assert archived(far_maps, run_id) == OTHERS
    observatory.aim()
    do(far_maps, MOVING, unread=bad)
    [waiting] = far_maps.transfers(run_id)
    assert waiting.status is Status.PENDING
    assert f"Run {run_id} waits for its copy at {FAR} to be read again there" in (waiting.failure or "")
    assert [read_again(far_maps, unread=bad) for _ in range(3)] == [1, 1, 1]
    do(far_maps, MOVING, MOVING, MOVING, unread=bad)
    assert "cannot be read at us/hpc" in told(far_maps)[AlertKind.LOST_COPY]
    assert "products of 1 run met trouble 5 times or more" in told(far_maps)[AlertKind.BACKLOG]

    assert read_again(far_maps) == 1
    far_maps.archive()
    check_archived(far_maps, run_id)
    assert told(far_maps) == {}


def test_a_product_that_is_found_unreadable_before_it_is_sent_keeps_no_other(far_maps: Reductions) -> None:
    run_id, observatory = make(far_maps), far_maps.observatory
    bad, home = far_maps.products(run_id) / BAD, far_maps.copies(run_id, FAR)[BAD].id
    with transaction(far_maps.engine) as session:
        doubt = sa.update(models.PhysicalCopy).where(models.PhysicalCopy.id == home)
        session.execute(doubt.values(verified_at=None, failure="It may be bad."))
    observatory.aim()
    do(far_maps, MOVING, unread=bad)
    assert far_maps.copies(run_id, "santiago/buffer") == {}, "it is about to be read"
    assert read_again(far_maps, unread=bad) == 1
    do(far_maps, MOVING, MOVING, ARCHIVING, unread=bad)
    assert archived(far_maps, run_id) == OTHERS
    assert read_again(far_maps) == 1
    far_maps.archive()
    check_archived(far_maps, run_id)


@pytest.mark.parametrize("path", [BAD, "qa/noise.json", "science/cube.zarr/0.0"])
def test_at_one_site_the_others_are_archived_while_one_cannot_be_read(near_maps: Reductions, path: str) -> None:
    run_id = make(near_maps)
    product = CUBE if path.startswith(CUBE) else path
    near_maps.observatory.aim()
    do(near_maps, ARCHIVING, ARCHIVING, unread=near_maps.products(run_id) / path)
    assert archived(near_maps, run_id) == {*FILES, CUBE} - {product}
    [waiting] = near_maps.transfers(run_id)
    assert waiting.status is Status.PENDING
    assert f"Of run {run_id} not everything is archived yet, the others are: " in (waiting.failure or "")
    assert "cannot be read (Permission denied)" in (waiting.failure or "")
    assert near_maps.copies(run_id, "cologne/ramses")[product].verified_at is None
    near_maps.archive()
    check_archived(near_maps, run_id)


def test_what_cannot_be_read_in_a_buffer_and_was_condemned_there_is_sent_again(far_maps: Reductions) -> None:
    run_id, observatory = make(far_maps), far_maps.observatory
    observatory.aim()
    for _ in range(2):
        assert observatory.do(MOVING) == 1
    bad = observatory.directory(BUFFER) / far_maps.copies(run_id, BUFFER)[BAD].path
    do(far_maps, ARCHIVING, unread=bad)
    assert archived(far_maps, run_id) == OTHERS
    assert [read_again(far_maps, unread=bad) for _ in range(3)] == [1, 1, 1]
    assert far_maps.copies(run_id, BUFFER)[BAD].status is PhysicalCopyStatus.CORRUPT
    do(far_maps, ARCHIVING, unread=bad)
    [again] = far_maps.transfers(run_id)
    assert f"Products of run {run_id} have to be sent again from where they were made" in (again.failure or "")
    far_maps.archive()
    check_archived(far_maps, run_id)
