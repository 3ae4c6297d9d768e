import os
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from ccat.stack.redis import RedisAddress
from ccat_ops_db.session import create_engine
from ccat_service.servers import RedisSettings
from tests.service.support import RestartableRedis


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither variables nor a ccat.toml of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("CCAT_") or name == "ENV_FOR_DYNACONF":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def redis_settings(redis_address: RedisAddress) -> Iterator[RedisSettings]:
    """The shared Redis, emptied afterwards."""
    settings = RedisSettings(
        redis_host=redis_address.host,
        redis_port=redis_address.port,
        redis_password=SecretStr(redis_address.password),
    )
    yield settings
    with settings.client("tests") as client:
        client.flushdb()


@pytest.fixture(scope="module")
def database_url(postgresql_url: str, template_database: str) -> Iterator[str]:
    """One migrated database for all tests of a module: none of them writes anything."""
    administrator = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE service TEMPLATE {template_database}"))
        yield administrator.url.set(database="service").render_as_string(hide_password=False)
        connection.execute(sa.text("DROP DATABASE service WITH (FORCE)"))
    administrator.dispose()


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[sa.Engine]:
    """Engine on that database."""
    engine = create_engine(database_url, application_name="tests")
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def restartable_redis() -> Iterator[RestartableRedis]:
    redis = RestartableRedis()
    redis.start()
    yield redis
    redis.close()
