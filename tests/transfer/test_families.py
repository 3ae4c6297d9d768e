"""A celery-worker and a transfer-worker share one Redis, and neither ever does what is the other's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import task_name
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_ops_db.states import Status
from ccat_service.servers import RedisSettings
from ccat_service.tasks import CeleryTask, TaskApp, declare_queue, make_celery_app
from tests.transfer.processes import CCAT, Process, settings_of
from tests.transfer.support import Observatory, eventually

PACK, PACKERS = task_name(Operation.PACKING), "transfer.ccat_chai_raw_data_packing"
OBSERVE, OBSERVERS, STAGERS = (
    "workflow.observe",
    "workflow.cologne_ramses.observation",
    "workflow.cologne_ramses.staging",
)
A_MANAGER = "a manager that asks"
LONG = 40


class Both:
    """One worker of each family, and what they are sent."""

    def __init__(self, observatory: Observatory, redis: RedisSettings, directory: Path) -> None:
        self._world, self._redis = observatory, redis
        self._app: TaskApp = make_celery_app(redis, name="tests")
        self.ramses = observatory.location_id("cologne/ramses")
        url = observatory.engine.url.render_as_string(hide_password=False)
        workflow = settings_of(url, redis, "WORKFLOW_MANAGER")
        workflow |= {"CCAT_WORKFLOW_MANAGER_PROCESSING_LOCATION_ID": str(self.ramses)}
        self.workflow = Process([*CCAT, "celery-worker"], workflow, log=directory / "workflow")
        self.transfer = Process([*CCAT, "transfer-worker"], settings_of(url, redis), log=directory / "transfer")

    def send(self, task: str, number: int, queue: str) -> None:
        CeleryTask[int](self._app, task).send([number], queue=queue)

    def slip_in(self, task: str, number: int, queue: str) -> None:
        """Put a message into a queue by hand, past everything that would refuse it."""
        with self._app.producer_or_acquire() as producer:
            message = self._app.amqp.create_task_message("1", task, args=[[number]])
            self._app.amqp.send_task_message(producer, task, message, queue=declare_queue(queue))

    def waiting(self) -> dict[str, int]:
        """How many messages lie in each queue."""
        with self._redis.client("tests") as client:
            return {queue: int(client.llen(queue)) for queue in (PACKERS, OBSERVERS, STAGERS)}

    def ask(self) -> None:
        """Claim the location, as the manager does before it has it observed: who observed it gives that back."""
        claimed = {"claimed_by": A_MANAGER, "lease_until": sa.func.clock_timestamp() + sa.text("interval '1 hour'")}
        self._set(**claimed)

    def was_observed(self) -> bool:
        location = models.DataLocation
        with transaction(self._world.engine) as session:
            return session.scalars(sa.select(location.claimed_by).where(location.id == self.ramses)).one() is None

    def is_packed(self, transfer_id: int) -> bool:
        return self._world.one(models.LongTermArchiveTransfer, id=transfer_id).status is Status.PENDING

    def _set(self, **values: object) -> None:
        with transaction(self._world.engine) as session:
            session.execute(sa.update(models.DataLocation).where(models.DataLocation.id == self.ramses).values(values))

    def stop(self) -> None:
        self.workflow.stop()
        self.transfer.stop()

    def end(self) -> None:
        self.workflow.end()
        self.transfer.end()
        self._set(claimed_by=None, lease_until=None)


@pytest.fixture
def both(observatory: Observatory, redis_settings: RedisSettings, tmp_path: Path) -> Iterator[Both]:
    both = Both(observatory, redis_settings, tmp_path)
    try:
        for one in (both.workflow, both.transfer):
            eventually(one.has_started, within=LONG)
        yield both
    finally:
        both.end()


def refused(worker: Process, task: str) -> bool:
    """Whether it said that it will not do what came to its queue."""
    return f"Received unregistered task of type '{task}'" in worker.log()


def test_each_worker_does_the_tasks_of_its_family_and_refuses_those_of_the_other_aloud(
    observatory: Observatory, both: Both
) -> None:
    observatory.observe({"a.fits": b"a"})
    [transfer_id] = observatory.schedule(Operation.PACKING)
    both.ask()
    both.slip_in(PACK, transfer_id, STAGERS)
    both.slip_in(PACK, transfer_id, OBSERVERS)
    both.slip_in(OBSERVE, both.ramses, PACKERS)
    eventually(lambda: refused(both.workflow, PACK) and refused(both.transfer, OBSERVE), within=LONG)
    eventually(lambda: not any(both.waiting().values()), within=LONG)
    assert observatory.one(models.LongTermArchiveTransfer).status is Status.SCHEDULED
    assert not both.was_observed()

    both.send(PACK, transfer_id, PACKERS)
    both.send(OBSERVE, both.ramses, OBSERVERS)
    eventually(lambda: both.is_packed(transfer_id) and both.was_observed(), within=LONG)
    both.stop()
    change = models.StatusChange
    with transaction(observatory.engine) as session:
        took = sa.select(change.by).where(
            change.noun == "long_term_archive_transfer", change.to_status == "in_progress"
        )
        assert session.scalars(took).all() == [both.transfer.signs("transfer-worker")]
    assert ("transfer.ccat" in both.workflow.log(), "workflow.cologne" in both.transfer.log()) == (False, False)
