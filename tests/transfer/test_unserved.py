"""What waits where no transfer-worker takes anything: it is said what to start, and nobody is told where one is."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.managers import TransferContext, tick
from ccat_data_transfer.queues import Operation, operations_at
from ccat_ops_db import models
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import Status
from ccat_ops_db.verbs.spaces import record_served
from ccat_service.servers import RedisSettings
from ccat_service.tasks import make_celery_app
from tests.transfer.processes import CCAT, Process, settings_of
from tests.transfer.support import Observatory, eventually, say

FILES = {"a.fits": b"a" * 1000}
ARCHIVING = models.LongTermArchiveTransfer
SAID = (
    "No transfer-worker serves ccat/chai_raw_data, where this waits for packing: "
    "start `ccat transfer-worker --location ccat/chai_raw_data` on a host that has it."
)


@pytest.fixture
def manager(far: Observatory, redis_settings: RedisSettings) -> TransferContext:
    """A manager whose messages wait in Redis."""
    return TransferContext(engine=far.engine, app=make_celery_app(redis_settings, name="tests"), name="manager")


def wait(observatory: Observatory, *, minutes: float = 3) -> None:
    """So much time passes, in which nobody works."""
    ago = timedelta(minutes=minutes)
    with transaction(observatory.engine) as session:
        for noun in (ARCHIVING, models.DataTransfer, models.StagingJob, models.ProductArchiveTransfer):
            session.execute(sa.update(noun).values(created_at=noun.created_at - ago))
        location = models.DataLocation
        session.execute(sa.update(location).values(served_at=location.served_at - ago))


def serve(observatory: Observatory, *locations: str) -> None:
    with transaction(observatory.engine) as session:
        record_served(session, [observatory.location_id(one) for one in locations])


def told(observatory: Observatory) -> Sequence[str]:
    with transaction(observatory.engine) as session:
        late = datetime.now(UTC) - timedelta(days=1)
        return [one.sentence.partition(", noticed at")[0] for one in conditions(session, late=late)]


def test_what_waits_where_no_worker_serves_says_so_until_one_does(far: Observatory, manager: TransferContext) -> None:
    far.observe(FILES)
    tick(manager)
    assert told(far) == []
    assert far.one(ARCHIVING).failure is None
    wait(far)
    tick(manager)
    assert told(far) == [f"{SAID} 1 transfer waits for that"]
    [listed] = json.loads(say(far, "packages", "--json"))
    assert listed["failure"] == SAID
    serve(far, "ccat/chai_raw_data")
    tick(manager)
    assert told(far) == []
    assert (far.one(ARCHIVING).failure, far.one(ARCHIVING).unserved_since) == (None, None)


def test_workers_that_are_busy_are_not_said_to_be_missing(far: Observatory, manager: TransferContext) -> None:
    far.observe(FILES)
    wait(far)
    serve(far, "ccat/chai_raw_data")
    tick(manager)
    assert far.one(ARCHIVING).status is Status.SCHEDULED
    assert told(far) == []


def test_what_goes_on_to_where_somebody_serves_says_nothing_of_where_it_was(
    far: Observatory, manager: TransferContext
) -> None:
    far.observe(FILES)
    wait(far)
    tick(manager)
    assert len(told(far)) == 1
    with transaction(far.engine) as session:
        session.execute(sa.update(ARCHIVING).values(lease_until=sa.func.now()))
    far.recover()
    assert far.do(Operation.PACKING) == 1
    assert far.ship() == 1
    tick(manager)
    assert told(far) == []
    wait(far)
    tick(manager)
    [sentence] = told(far)
    assert sentence.startswith("No transfer-worker serves cologne/buffer, where this waits for transferring: ")
    [listed] = json.loads(say(far, "packages", "--json"))
    assert sentence.startswith(listed["failure"])


def test_a_trouble_that_is_met_since_is_not_forgotten_when_a_worker_serves(
    far: Observatory, manager: TransferContext
) -> None:
    far.observe(FILES)
    wait(far)
    tick(manager)
    with transaction(far.engine) as session:
        session.execute(sa.update(ARCHIVING).values(failure="the disk is ill"))
    serve(far, "ccat/chai_raw_data")
    tick(manager)
    assert (far.one(ARCHIVING).failure, far.one(ARCHIVING).unserved_since) == ("the disk is ill", None)


@pytest.fixture
def worker(far_url: str, redis_settings: RedisSettings, tmp_path: Path) -> Iterator[Process]:
    command = [*CCAT, "transfer-worker", "--location", "cologne"]
    process = Process(command, settings_of(far_url, redis_settings), log=tmp_path / "worker")
    yield process
    process.end()


def test_a_transfer_worker_says_which_locations_it_serves(far: Observatory, worker: Process) -> None:
    eventually(worker.has_started, within=30)
    with transaction(far.engine) as session:
        served = session.scalars(sa.select(models.DataLocation.name).where(models.DataLocation.served_at.is_not(None)))
        assert set(served) == {"buffer", "lta", "ramses"}
        taken = session.scalars(sa.select(models.ServedOperation)).all()
        places = session.scalars(sa.select(models.DataLocation).where(models.DataLocation.served_at.is_not(None))).all()
        said = {(one.data_location_id, one.operation) for one in taken}
        assert said == {(one.id, operation) for one in places for operation in operations_at(one)}
    worker.stop()
