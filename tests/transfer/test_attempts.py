"""What goes wrong around the work of a transfer: databases that go away, errors that nobody foresaw."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Timer

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.attempts import Attempt, Worker, attempt
from ccat_ops_db import models
from ccat_ops_db.session import DatabaseUnreachable, create_engine
from ccat_ops_db.states import PackageState, Status
from tests.transfer.support import Observatory

TRANSFER = models.LongTermArchiveTransfer
AWAY = timedelta(seconds=0.7)


class Road:
    """The way to the database, which can be closed: a link to the directory of its socket."""

    def __init__(self, url: sa.URL, link: Path) -> None:
        self._link, self._sockets = link, Path(str(url.query["host"]))
        link.symlink_to(self._sockets)
        self.engine = create_engine(
            url.update_query_dict({"host": str(link)}).render_as_string(hide_password=False), application_name="tests"
        )

    def close(self) -> None:
        self._link.unlink()
        self.engine.dispose()

    def open(self) -> None:
        self._link.symlink_to(self._sockets)

    def close_for(self, time: timedelta) -> None:
        self.close()
        Timer(time.total_seconds(), self.open).start()


@pytest.fixture
def road(observatory: Observatory, tmp_path: Path) -> Iterator[Road]:
    road = Road(observatory.engine.url, tmp_path / "sockets")
    yield road
    road.engine.dispose()


def scheduled(observatory: Observatory) -> int:
    observatory.observe({"a.fits": b"a"})
    [transfer_id] = observatory.schedule(Operation.PACKING)
    return transfer_id


def test_a_database_that_is_away_for_a_moment_interrupts_no_transfer(observatory: Observatory, road: Road) -> None:
    one = Attempt(Worker(engine=road.engine, name="worker"), TRANSFER, scheduled(observatory))
    road.close_for(AWAY)
    assert one.take()
    road.close_for(AWAY)
    one.transaction(lambda session: one.end(session, Status.COMPLETED, because="it is done"))
    assert observatory.one(TRANSFER).status is Status.COMPLETED


def test_a_database_that_is_away_for_longer_than_the_lease_is_not_waited_for(
    observatory: Observatory, road: Road
) -> None:
    one = Attempt(Worker(engine=road.engine, name="worker", lease=AWAY), TRANSFER, scheduled(observatory))
    assert one.take()
    road.close()
    with pytest.raises(DatabaseUnreachable):
        one.transaction(lambda _: None)


def fail(observatory: Observatory, error: Exception) -> models.LongTermArchiveTransfer:
    def work(_: Attempt) -> None:
        raise error

    def nothing(_session: Session, _one: Attempt, _error: Exception) -> None:
        pass

    attempt(observatory.worker, TRANSFER, scheduled(observatory), work=work, on_failure=nothing)
    return observatory.one(TRANSFER)


def test_an_error_that_nobody_foresaw_fails_its_package_at_once_and_says_where_to_look(
    observatory: Observatory,
) -> None:
    transfer = fail(observatory, KeyError("no such thing"))
    package = observatory.one(models.RawDataPackage)
    assert (transfer.status, package.state) == (Status.FAILED, PackageState.FAILED)
    assert package.failure == (
        "Unexpected KeyError: 'no such thing'. The log of worker has the rest; please report it. "
        f"Once that is mended, `ccat package retry {package.id}` takes it up again."
    )


def test_trouble_that_passes_is_tried_again(observatory: Observatory) -> None:
    transfer = fail(observatory, PoolTimeout("no connection was free"))
    assert (transfer.status, transfer.trouble_count) == (Status.PENDING, 1)
    assert transfer.failure == "Interrupted by trouble that passes (no connection was free). It is tried again."


@pytest.mark.parametrize(
    ("age", "patience"),
    [(timedelta(), 4), (timedelta(seconds=30), 30), (timedelta(days=1), 60)],
    ids=["new", "half a minute old", "old"],
)
def test_a_message_of_a_new_transfer_counts_as_lost_soon_and_that_of_an_older_one_later(
    observatory: Observatory, age: timedelta, patience: int
) -> None:
    observatory.observe({"a.fits": b"a"})
    with observatory.engine.begin() as connection:
        connection.execute(sa.update(TRANSFER).values(created_at=TRANSFER.created_at - age))
        now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    observatory.schedule(Operation.PACKING)
    until = observatory.one(TRANSFER).lease_until
    assert until is not None
    assert (until - now).total_seconds() == pytest.approx(patience, abs=2)
