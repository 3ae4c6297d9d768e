"""A file that two register at the same time, each for a scan of its own, is that of the first."""

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.initialization import initialize, reference_data
from ccat_ops_db.verbs.scans import NewFile, OfAnotherScan, add_files, start_scan
from tests.ops_db.rows import DIGEST, START, an_obs_unit

CHAI, PRIMECAM = ("CHAI/LFA", "ccat/chai_raw_data"), ("Prime-Cam/280GHz", "ccat/primecam_raw_data")
_WAITS = sa.text("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
_PATIENCE_S = 20


@pytest.fixture(scope="module", autouse=True)
def planned(shared_engine: sa.Engine) -> None:
    with transaction(shared_engine) as session:
        initialize(session, reference_data(), storage_root=Path("/storage"))
        an_obs_unit(session, "map of M17")


@pytest.fixture
def scans(shared_engine: sa.Engine) -> tuple[uuid.UUID, uuid.UUID]:
    scans = uuid.uuid4(), uuid.uuid4()
    with transaction(shared_engine) as session:
        for one in scans:
            start_scan(session, one, "map of M17", started_at=START)
    return scans


def register(
    session: Session, scan: uuid.UUID, path: str, *, where: tuple[str, str] = CHAI, again: bool = False
) -> int:
    """Register a file under an identifier of its own, as two descriptions of one file have them."""
    file, (module, location) = NewFile(uuid.uuid4(), path, 10, DIGEST), where
    return add_files(session, scan, [file], module=module, location=location, again=again, by="an instrument").new


def until_somebody_waits(engine: sa.Engine) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    with engine.connect() as connection:
        while not connection.scalar(_WAITS):
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.01)


@pytest.mark.parametrize("again", [False, True])
def test_of_two_that_register_a_file_at_once_the_second_is_told_whose_it_is(
    shared_engine: sa.Engine, scans: tuple[uuid.UUID, uuid.UUID], *, again: bool
) -> None:
    first, second = scans
    path = f"chai/{uuid.uuid4()}.fits"

    def meanwhile() -> int:
        with transaction(shared_engine) as session:
            return register(session, second, path)

    with ThreadPoolExecutor(1) as pool:
        with transaction(shared_engine) as session:
            register(session, first, path, again=again)
            other = pool.submit(meanwhile)
            until_somebody_waits(shared_engine)
        with pytest.raises(OfAnotherScan, match=str(first)):
            other.result(_PATIENCE_S)


def test_the_second_registers_it_if_the_first_does_not_after_all(
    shared_engine: sa.Engine, scans: tuple[uuid.UUID, uuid.UUID]
) -> None:
    first, second = scans
    path = f"chai/{uuid.uuid4()}.fits"

    def meanwhile() -> int:
        with transaction(shared_engine) as session:
            return register(session, second, path)

    with ThreadPoolExecutor(1) as pool, Session(shared_engine) as session:
        register(session, first, path)
        other = pool.submit(meanwhile)
        until_somebody_waits(shared_engine)
        session.rollback()
        assert other.result(_PATIENCE_S) == 1


def test_what_lies_elsewhere_is_registered_meanwhile(
    shared_engine: sa.Engine, scans: tuple[uuid.UUID, uuid.UUID]
) -> None:
    first, second = scans
    with transaction(shared_engine) as one, transaction(shared_engine) as other:
        other.execute(sa.text("SET LOCAL lock_timeout = '10s'"))
        assert register(one, first, "night/1.fits") == 1
        assert register(other, second, "night/1.fits", where=PRIMECAM) == 1
