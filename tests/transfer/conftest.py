from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from ccat.stack.redis import RedisAddress
from ccat_data_transfer.managers import TransferContext
from ccat_ops_db import models
from ccat_ops_db.session import create_engine, transaction
from ccat_ops_db.states import LocationType
from ccat_ops_db.verbs.locating import InBucket, add_location
from ccat_service.servers import RedisSettings
from ccat_service.tasks import make_celery_app
from tests.seed import sending_at_once
from tests.transfer.object_store import BUCKET, ENVIRONMENT, ObjectStore, Road
from tests.transfer.support import Observatory


@pytest.fixture(scope="session")
def observatory_url(postgresql_url: str, template_database: str) -> Iterator[str]:
    """URL of one migrated database for all tests here: what costs most is to make one."""
    with copied(postgresql_url, template_database, name="transfer") as url:
        yield url


@contextmanager
def copied(postgresql_url: str, template: str, *, name: str) -> Iterator[str]:
    """URL of a copy of a database."""
    administrator = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        yield administrator.url.set(database=name).render_as_string(hide_password=False)
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    administrator.dispose()


@pytest.fixture(scope="session")
def initialized(observatory_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observatory]:
    engine = create_engine(observatory_url, application_name="tests")
    observatory = Observatory(engine, tmp_path_factory.mktemp("observatory") / "storage")
    observatory.set_up()
    observatory.remember()
    yield observatory
    engine.dispose()


@pytest.fixture(scope="session")
def far_url(postgresql_url: str, template_database: str) -> Iterator[str]:
    """URL of the database of `far`."""
    with copied(postgresql_url, template_database, name="far") as url:
        yield url


@pytest.fixture(scope="session")
def set_up_far(far_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observatory]:
    engine = create_engine(far_url, application_name="tests")
    observatory = Observatory(engine, tmp_path_factory.mktemp("far") / "storage")
    observatory.set_up(sending_at_once)
    observatory.remember()
    yield observatory
    engine.dispose()


@pytest.fixture
def far(set_up_far: Observatory) -> Iterator[Observatory]:
    """An observatory whose archive is in Cologne, behind a buffer."""
    yield set_up_far
    set_up_far.forget()


@pytest.fixture
def two_archives(far: Observatory) -> Observatory:
    """Archives in Cologne and in the US, which is behind Cologne; raw data want two copies."""
    far.add_location("us/buffer", LocationType.BUFFER)
    far.add_location("us/lta", LocationType.LONG_TERM_ARCHIVE)
    far.add_route("cologne", "us")
    far.add_route("us", "cologne")
    with transaction(far.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=2))
    return far


@pytest.fixture
def observatory(initialized: Observatory) -> Iterator[Observatory]:
    """Locations with empty directories, a planned observation, and nothing observed yet."""
    yield initialized
    initialized.forget()


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectStore]:
    server = ObjectStore()
    yield server
    server.stop()


@pytest.fixture
def object_store(object_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """A server with an empty bucket, and its credentials in the environment."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    object_server.make_bucket()
    return object_server


@pytest.fixture
def s3_archive(observatory: Observatory, object_store: ObjectStore) -> Iterator[Road]:
    """The preferred archive is a bucket; the road to it."""
    road = Road(object_store.port)
    place = InBucket(bucket=BUCKET, prefix="fyst", endpoint_url=f"http://127.0.0.1:{road.port}")
    kind = LocationType.LONG_TERM_ARCHIVE
    with transaction(observatory.engine) as session:
        add_location(session, "cologne", "s3", place=place, location_type=kind, priority=10)
    yield road
    road.end()


@pytest.fixture
def redis_settings(redis_address: RedisAddress) -> Iterator[RedisSettings]:
    """The shared Redis, emptied afterwards."""
    password = SecretStr(redis_address.password)
    settings = RedisSettings(redis_host=redis_address.host, redis_port=redis_address.port, redis_password=password)
    yield settings
    with settings.client("tests") as client:
        client.flushdb()


@pytest.fixture
def context(observatory: Observatory, redis_settings: RedisSettings) -> TransferContext:
    """A manager without any worker: its messages wait in Redis."""
    app = make_celery_app(redis_settings, name="tests")
    return TransferContext(engine=observatory.engine, app=app, name="manager", lease=timedelta(milliseconds=20))
