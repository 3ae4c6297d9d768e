"""What nobody takes where somebody serves, and what is to be deleted or read again where nobody does."""

from collections.abc import Collection, Sequence
from datetime import timedelta

import pytest
import sqlalchemy as sa

from ccat_data_transfer.managers import TransferContext, tick
from ccat_data_transfer.queues import Operation, operations_at
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.queries import serving
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.pausing import pause
from ccat_ops_db.verbs.spaces import record_operations
from ccat_service.servers import RedisSettings
from ccat_service.tasks import make_celery_app
from tests.transfer.support import Observatory
from tests.transfer.test_replication import make_old
from tests.transfer.test_unserved import serve, told, wait

FILES = {"a.fits": b"a" * 1000}
SOURCE, ARCHIVE, BUFFER = "ccat/chai_raw_data", "cologne/lta", "cologne/buffer"
SAID = (
    f"No transfer-worker serves {SOURCE} for packing, which this waits for, though some do other work there: "
    "they are of another version, start them anew."
)


@pytest.fixture
def manager(far: Observatory, redis_settings: RedisSettings) -> TransferContext:
    """A manager whose messages wait in Redis."""
    return TransferContext(engine=far.engine, app=make_celery_app(redis_settings, name="tests"), name="manager")


def take(observatory: Observatory, location: str, *but: Operation) -> None:
    """A worker says that it serves a location, and takes all that is done there but this."""
    serve(observatory, location)
    with transaction(observatory.engine) as session:
        place = find(session, LOCATION, location)
        record_operations(session, {place.id: set(operations_at(place)) - set(but)})


def forget(observatory: Observatory) -> None:
    """So much time passes that nobody who said something serves any more."""
    ago = timedelta(minutes=3)
    with transaction(observatory.engine) as session:
        for noun in (models.DataLocation, models.ServedOperation):
            session.execute(sa.update(noun).values(served_at=noun.served_at - ago))


def about(observatory: Observatory, location: str) -> Sequence[str]:
    return [one for one in told(observatory) if f" at {location}" in one]


def test_what_no_worker_takes_where_others_do_other_work_says_so_until_one_does(
    far: Observatory, manager: TransferContext
) -> None:
    far.observe(FILES)
    wait(far)
    take(far, SOURCE, Operation.PACKING)
    tick(manager)
    assert told(far) == [f"{SAID} 1 transfer waits for that"]
    assert far.one(models.LongTermArchiveTransfer).failure == SAID
    forget(far)
    take(far, SOURCE, Operation.DELETION)
    tick(manager)
    assert told(far) == []
    assert far.one(models.LongTermArchiveTransfer).failure is None


def test_of_several_workers_one_that_takes_it_is_enough(far: Observatory, manager: TransferContext) -> None:
    far.observe(FILES)
    wait(far)
    take(far, SOURCE, Operation.PACKING)
    take(far, SOURCE)
    tick(manager)
    assert told(far) == []


@pytest.mark.parametrize("others", [{Operation.DELETION}, set(Operation)], ids=["of another version", "nobody"])
def test_copies_that_are_to_be_deleted_where_nobody_would_are_told_of(
    far: Observatory, others: Collection[Operation]
) -> None:
    far.observe(FILES)
    far.do_all()
    far.keep(BUFFER, days=0)
    assert far.mark(BUFFER) == 1
    if others != set(Operation):
        take(far, BUFFER, *others)
    [sentence] = about(far, BUFFER)
    assert sentence == (
        f"1 copy is to be deleted at {BUFFER}, and no transfer-worker does that there: start `ccat transfer-worker "
        f"--location {BUFFER}` on a host that has it, also in place of one that runs already"
    )
    take(far, BUFFER)
    assert about(far, BUFFER) == []
    forget(far)
    assert len(about(far, BUFFER)) == 1
    assert far.make_room(BUFFER) == 1
    assert about(far, BUFFER) == []


def test_archives_that_nobody_would_read_again_are_told_of_once_something_is_due(far: Observatory) -> None:
    far.observe(FILES)
    far.do_all()
    assert about(far, ARCHIVE) == []
    make_old(far, 181)
    [sentence] = about(far, ARCHIVE)
    assert sentence == (
        f"some of what lies at {ARCHIVE} is to be read again, and no transfer-worker does that there: start "
        f"`ccat transfer-worker --location {ARCHIVE}` on a host that has it, also in place of one that runs already"
    )
    take(far, ARCHIVE, Operation.SCRUBBING)
    assert len(about(far, ARCHIVE)) == 1
    take(far, ARCHIVE)
    assert about(far, ARCHIVE) == []
    forget(far)
    assert len(about(far, ARCHIVE)) == 1
    with transaction(far.engine) as session:
        pause(session, pipeline=None, location=ARCHIVE, because="its disk is exchanged", by="Ann")
    assert about(far, ARCHIVE) == []


def test_operations_are_called_alike_by_those_who_do_them_and_those_who_tell_of_them() -> None:
    assert (serving.DELETION, serving.SCRUBBING) == (Operation.DELETION, Operation.SCRUBBING)
