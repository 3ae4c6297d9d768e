import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from ccat.stack.postgresql import embedded_postgresql
from ccat.stack.redis import RedisAddress, embedded_redis
from ccat_ops_db.migrating import migrate
from ccat_ops_db.session import create_engine
from tests.apptainer import build, make_sandbox, require_apptainer, require_containers

# Machines are noisy: how long an example takes, or its making on a machine that never made any text, says nothing.
settings.register_profile("ccat", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("ccat"), max_examples=20_000)
settings.load_profile("ccat")


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A real PostgreSQL of this test process; no test may leave anything in its default database."""
    with (
        tempfile.TemporaryDirectory(prefix="ccat-pg-") as directory,
        embedded_postgresql(Path(directory) / "pg", durable=False) as url,
    ):
        yield url


@pytest.fixture(scope="session")
def redis_address() -> Iterator[RedisAddress]:
    """A real Redis of this test process."""
    with (
        tempfile.TemporaryDirectory(prefix="ccat-redis-") as directory,
        embedded_redis(Path(directory) / "redis") as address,
    ):
        yield address


@pytest.fixture(scope="session")
def template_database(postgresql_url: str) -> str:
    """Name of a migrated, empty database from which each test gets a copy in milliseconds."""
    _administer(postgresql_url, "CREATE DATABASE migrated")
    engine = create_engine(_database(postgresql_url, "migrated"), application_name="tests")
    migrate(engine)
    engine.dispose()
    return "migrated"


@pytest.fixture(scope="session")
def small_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SIF file with a shell and a few programs; the test ends where there is no Apptainer."""
    require_apptainer()
    directory = tmp_path_factory.mktemp("image")
    return require_containers(build(directory / "small.sif", make_sandbox(directory / "sandbox")))


@pytest.fixture
def database_url(postgresql_url: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database for this test alone."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    _administer(postgresql_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield _database(postgresql_url, name)
    _administer(postgresql_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """Engine on a migrated database for this test alone."""
    engine = create_engine(database_url, application_name="tests")
    yield engine
    engine.dispose()


def _database(url: str, name: str) -> str:
    return sa.make_url(url).set(database=name).render_as_string(hide_password=False)


def _administer(url: str, statement: str) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()
