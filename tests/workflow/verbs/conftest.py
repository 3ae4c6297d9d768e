from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from redis import Redis

from ccat.stack.redis import RedisAddress
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_service.database import DatabaseConnection
from ccat_workflow_manager.hpc.local.killing import kill_jobs
from ccat_workflow_manager.verbs.workplace import Workplace
from tests.engine.database import Reference, initialized
from tests.engine.toy import install
from tests.workflow.verbs.works import Works, backend, location_id


@pytest.fixture(scope="session")
def _database(postgresql_url: str, template_database: str) -> Iterator[tuple[sa.Engine, Reference]]:
    with initialized(postgresql_url, template=template_database, storage=Path("/storage")) as engine:
        yield engine, Reference.of(engine)


@pytest.fixture
def works(_database: tuple[sa.Engine, Reference], redis_address: RedisAddress, tmp_path: Path) -> Iterator[Works]:
    """An installation in which nothing was observed or defined yet; its files lie in a directory of this test."""
    engine, reference = _database
    with transaction(engine) as session:
        for location in session.scalars(sa.select(models.DiskDataLocation)):
            location.path = str(tmp_path / location.site.short_name / location.name)
            Path(location.path).mkdir(parents=True)
    install(tmp_path / "env")
    base, here = tmp_path / "cologne/ramses/pipelines", location_id(engine)
    database = DatabaseConnection(engine.url.render_as_string(hide_password=False), "tests")
    with Redis.from_url(redis_address.url) as redis:
        redis.flushdb()
        workplace = Workplace(database, {here: backend(redis, base)}, base, "worker")
        yield Works(engine, tmp_path, database=database, workplace=workplace, location_id=here)
    kill_jobs(base)
    database.close()
    reference.restore(engine)
