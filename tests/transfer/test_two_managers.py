"""Two managers that look at once for what is to be sent: each raw package travels in one transfer package."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.shipping import ship
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from tests.transfer.support import Observatory, eventually
from tests.transfer.test_sites import check_archived, trips

_HELD = 2206
_SLOW = """
CREATE SCHEMA slow;
CREATE FUNCTION slow.wait() RETURNS boolean VOLATILE LANGUAGE plpgsql AS $$ BEGIN
    IF current_query() LIKE '%%SKIP LOCKED%%' THEN PERFORM pg_advisory_xact_lock_shared(2206); END IF;
    RETURN true;
END $$;
CREATE VIEW slow.physical_copy AS SELECT * FROM public.physical_copy WHERE slow.wait()
"""
"""Who sees these copies stops in the middle of the statement that chooses what is sent, while somebody holds a lock."""
_WAITS = sa.text("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")


@pytest.fixture
def slow(far: Observatory) -> Iterator[sa.Engine]:
    """The database as a manager sees it that takes its time."""
    with transaction(far.engine) as session:
        session.connection().exec_driver_sql(_SLOW)
    engine = sa.create_engine(far.engine.url, connect_args={"options": "-c search_path=slow,public"})
    yield engine
    engine.dispose()
    with transaction(far.engine) as session:
        session.execute(sa.text("DROP SCHEMA slow CASCADE"))


def test_what_another_manager_sent_meanwhile_is_not_sent_again(far: Observatory, slow: sa.Engine) -> None:
    package_id = far.observe({"a.fits": b"a"})
    assert far.do(Operation.PACKING) == 1

    def send() -> int:
        with transaction(slow) as session:
            return ship(session, by="slow manager")

    with far.engine.connect() as holder, far.engine.connect() as looker, ThreadPoolExecutor(1) as threads:
        holder.execute(sa.select(sa.func.pg_advisory_lock(_HELD)))
        sent = threads.submit(send)
        try:
            eventually(lambda: sent.done() or looker.scalar(_WAITS))
            assert far.ship() == 1
        finally:
            holder.execute(sa.select(sa.func.pg_advisory_unlock(_HELD)))
        assert sent.result() == 0
    with transaction(far.engine) as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(models.DataTransferPackage)) == 1
    far.do_all()
    check_archived(far, package_id)
    assert len(trips(far)) == 1
