"""What is given up as its workers are lost is what may kill them, and nothing that gets on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS
from ccat_data_transfer.verbs.attempts import Attempt, attempt
from ccat_data_transfer.verbs.outcomes import TRIES
from ccat_ops_db import models
from ccat_ops_db.errors import CcatError
from ccat_ops_db.states import Status
from tests.transfer.fates import Died
from tests.transfer.support import Observatory, eventually
from tests.transfer.test_attempts import Road
from tests.transfer.test_sites import check_archived

TRANSFER = models.LongTermArchiveTransfer
A_MOMENT = timedelta(milliseconds=50)
CHUNKS = 40


@pytest.fixture
def road(observatory: Observatory, tmp_path: Path) -> Iterator[Road]:
    road = Road(observatory.engine.url, tmp_path / "sockets")
    yield road
    road.engine.dispose()


def nothing(_session: Session, _one: Attempt, _error: CcatError) -> None:
    """No other row is concerned."""


def test_a_worker_that_was_only_cut_off_from_the_database_is_not_counted_as_lost(
    observatory: Observatory, road: Road
) -> None:
    package_id = observatory.observe({"a.fits": b"a"})
    worker = replace(observatory.worker, engine=road.engine, lease=A_MOMENT)

    def copy_on(one: Attempt) -> None:
        road.close()
        assert eventually(observatory.recover) == 1
        one.keep_lease()
        road.open()
        while True:
            sleep(A_MOMENT.total_seconds())
            one.keep_lease()

    for _ in range(TRIES + 1):
        [transfer_id] = observatory.schedule(Operation.PACKING)
        attempt(worker, TRANSFER, transfer_id, work=copy_on, on_failure=nothing)
        transfer = observatory.one(TRANSFER)
        assert (transfer.status, transfer.retry_count) == (Status.PENDING, 0)
    observatory.do_all()
    check_archived(observatory, package_id)


@contextmanager
def dying_at_commit(engine: sa.Engine, number: int) -> Iterator[None]:
    """A worker of this process dies before one of its commits."""
    left = number

    def count(_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Died

    sa.event.listen(engine, "commit", count)
    try:
        yield
    finally:
        sa.event.remove(engine, "commit", count)


def test_what_comes_further_with_each_worker_is_not_given_up_though_all_of_them_are_lost(far: Observatory) -> None:
    package_id = far.observe({"a.fits": bytes(CHUNKS << 20)})
    far.do(Operation.PACKING)
    far.ship()
    worker, missing = replace(far.worker, lease=timedelta(milliseconds=1)), list[int]()
    for _ in range(TRIES + 2):
        [transfer_id] = far.schedule(Operation.TRANSFERRING)
        with pytest.raises(Died), dying_at_commit(far.engine, 6):
            VERBS[Operation.TRANSFERRING](worker, transfer_id)
        missing.append(far.one(models.DataTransfer).missing_bytes or 0)
        eventually(far.recover)
    assert missing == sorted(missing, reverse=True)
    assert len(set(missing)) == len(missing)
    far.do_all()
    check_archived(far, package_id)


def test_what_comes_no_further_is_given_up(far: Observatory) -> None:
    far.observe({"a.fits": bytes(CHUNKS << 20)})
    far.do(Operation.PACKING)
    far.ship()
    worker = replace(far.worker, lease=timedelta(milliseconds=1))
    for _ in range(TRIES):
        [transfer_id] = far.schedule(Operation.TRANSFERRING)
        with pytest.raises(Died), dying_at_commit(far.engine, 3):
            VERBS[Operation.TRANSFERRING](worker, transfer_id)
        eventually(far.recover)
    trip = far.one(models.DataTransfer)
    assert trip.status is Status.FAILED
    assert f"ended unexpectedly {TRIES} times" in (trip.failure or "")
