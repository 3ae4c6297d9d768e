import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from ccat_ops_db.session import create_engine, transaction
from tests.ops_db.rows import World, a_world


@contextmanager
def _database(postgresql_url: str, *, template: str) -> Iterator[sa.Engine]:
    name = f"ops_db_{uuid.uuid4().hex[:12]}"
    administrator = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        url = sa.make_url(postgresql_url).set(database=name).render_as_string(hide_password=False)
        engine = create_engine(url, application_name="tests")
        yield engine
        engine.dispose()
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    administrator.dispose()


@pytest.fixture
def empty_engine(postgresql_url: str) -> Iterator[sa.Engine]:
    """A database without a schema, for this test alone."""
    with _database(postgresql_url, template="template0") as engine:
        yield engine


@pytest.fixture(scope="module")
def shared_engine(postgresql_url: str, template_database: str) -> Iterator[sa.Engine]:
    """A migrated database for all tests of a module, which either roll back or use rows of their own."""
    with _database(postgresql_url, template=template_database) as engine:
        yield engine


@pytest.fixture(scope="module")
def world(shared_engine: sa.Engine) -> World:
    """One of each noun, committed."""
    with transaction(shared_engine) as session:
        return a_world(session)


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither variables nor a ccat.toml of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("CCAT_") or name == "ENV_FOR_DYNACONF":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
