"""An archive copy that comes while somebody looks whether there is one: it is there, or it is coming."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.archiving import archive
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.replicating import replicate
from ccat_data_transfer.verbs.staging import stage
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.session import create_engine, transaction
from ccat_ops_db.states import PhysicalCopyStatus, Status
from tests.transfer.support import Observatory
from tests.transfer.test_replication import FILES

ARCHIVE = "cologne/lta"
ABOUT_COPIES = ("physical_copy", "long_term_archive_transfer")


@pytest.fixture
def other_worker(observatory: Observatory) -> Iterator[Worker]:
    """Who never waits for long for the one who asks: both are in one thread here."""
    url = observatory.engine.url.update_query_dict({"options": "-c lock_timeout=2s"})
    engine = create_engine(url.render_as_string(hide_password=False), application_name="another worker")
    yield replace(observatory.worker, engine=engine)
    engine.dispose()


@contextmanager
def after_question(engine: sa.Engine, number: int, do: Callable[[], object]) -> Iterator[None]:
    """Have something done by others once somebody has asked so many questions about copies."""
    asked = 0

    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal asked
        asked += statement.startswith("SELECT") and any(one in statement for one in ABOUT_COPIES)
        if asked == number:
            asked += 1
            do()

    sa.event.listen(engine, "after_cursor_execute", count)
    try:
        yield
    finally:
        sa.event.remove(engine, "after_cursor_execute", count)


def lose(observatory: Observatory, package_id: int) -> int:
    """The transfer, scheduled, that makes the one archive copy anew, which is damaged."""
    here = [observatory.copies(package_id)[ARCHIVE].id]
    with transaction(observatory.engine) as session:
        advance(session, models.PhysicalCopy, here, to=PhysicalCopyStatus.CORRUPT, because="a test", by="a test")
        assert replicate(session, [package_id], by="manager") == 1
    observatory.do(Operation.PACKING)
    [transfer_id] = observatory.schedule(Operation.ARCHIVING)
    return transfer_id


@pytest.mark.parametrize("number", range(1, 4))
def test_a_staging_does_not_fail_for_good_at_the_moment_when_its_archive_copy_is_made_anew(
    observatory: Observatory, other_worker: Worker, number: int
) -> None:
    package_id = observatory.observe(FILES)
    observatory.do_all()
    transfer_id = lose(observatory, package_id)
    [job_id] = observatory.request_staging([package_id])
    assert observatory.schedule(Operation.STAGING) == [job_id]
    with after_question(observatory.engine, number, lambda: archive(other_worker, transfer_id)):
        stage(observatory.worker, job_id)
    assert observatory.one(models.StagingJob, id=job_id).status in {Status.PENDING, Status.COMPLETED}
    observatory.do_all()
    assert observatory.one(models.StagingJob, id=job_id).status is Status.COMPLETED
    assert observatory.copies(package_id)[ARCHIVE].status is PhysicalCopyStatus.PRESENT
