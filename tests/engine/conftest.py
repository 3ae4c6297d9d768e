from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.engine.database import Reference, initialized

OpsDb = Callable[[], AbstractContextManager[sa.Engine]]


@pytest.fixture(scope="session")
def clean_ops_db(postgresql_url: str, template_database: str) -> Iterator[OpsDb]:
    """An initialised operations database that is left as it is found, for one test or for one module at a time."""
    with initialized(postgresql_url, template=template_database, storage=Path("/storage")) as engine:
        reference = Reference.of(engine)

        @contextmanager
        def borrow() -> Iterator[sa.Engine]:
            yield engine
            reference.restore(engine)

        yield borrow


@pytest.fixture
def ops_db(clean_ops_db: OpsDb) -> Iterator[sa.Engine]:
    """An initialised operations database, in which nothing else is."""
    with clean_ops_db() as engine:
        yield engine
