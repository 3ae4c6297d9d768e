from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_ops_db import session as ops_db_session
from ccat_ops_db.session import create_engine
from tests.engine.database import initialized
from tests.engine.history import History
from tests.reference import keep_rows, restore_rows

OpsDb = Callable[[], AbstractContextManager[sa.Engine]]


create_engine_once = cache(create_engine)


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """Have all commands that these tests invoke on one database compile their statements once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops_db_session, "create_engine", create_engine_once)
        yield


@pytest.fixture(scope="session")
def clean_ops_db(postgresql_url: str, template_database: str) -> Iterator[OpsDb]:
    """An initialised operations database that is left as it is found, for one test or for one module at a time."""
    with initialized(postgresql_url, template=template_database, storage=Path("/storage")) as engine:
        keep_rows(engine)

        @contextmanager
        def borrow() -> Iterator[sa.Engine]:
            yield engine
            restore_rows(engine)

        yield borrow


@pytest.fixture
def ops_db(clean_ops_db: OpsDb) -> Iterator[sa.Engine]:
    """An initialised operations database, in which nothing else is."""
    with clean_ops_db() as engine:
        yield engine


@pytest.fixture(scope="module")
def fresh_history(clean_ops_db: OpsDb) -> Iterator[Callable[[], History]]:
    """Makes histories, one after the other, of each of which nothing is left."""
    with clean_ops_db() as engine, engine.connect() as connection:

        def make() -> History:
            connection.rollback()
            connection.begin()
            return History(engine, connection)

        yield make
        connection.rollback()
        connection.invalidate()


@pytest.fixture
def history(fresh_history: Callable[[], History]) -> History:
    """An installation to which nothing happened yet."""
    return fresh_history()
