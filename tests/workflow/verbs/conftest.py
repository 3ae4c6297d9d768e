from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from redis import Redis
from typer.testing import CliRunner, Result

from ccat.cli import app
from ccat.stack.redis import RedisAddress
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from ccat_service.database import DatabaseConnection
from ccat_service.retries import Backoff
from ccat_workflow_manager.hpc.local.killing import kill_jobs
from ccat_workflow_manager.plan import retries
from ccat_workflow_manager.verbs.workplace import Workplace
from tests.engine.database import initialized
from tests.reference import keep_rows, restore_rows
from tests.workflow.verbs.works import Works, backend, location_id

OpenWorks = Callable[[Path], AbstractContextManager[Works]]
Say = Callable[..., Result]


@pytest.fixture(scope="session")
def open_works(postgresql_url: str, template_database: str, redis_address: RedisAddress) -> Iterator[OpenWorks]:
    """Makes installations, one at a time, whose files lie in a given directory; what failed waits for `retry_now`."""
    hour = timedelta(hours=1)
    with initialized(postgresql_url, template=template_database, storage=Path("/storage")) as engine:
        keep_rows(engine)
        here = location_id(engine)
        # One for all tests: what costs most is to compile the same statements again for a new engine.
        database = DatabaseConnection(engine.url.render_as_string(hide_password=False), "tests")

        @contextmanager
        def open_in(root: Path) -> Iterator[Works]:
            _put_locations(database.engine, root)
            base = root / "cologne/ramses/pipelines"
            with Redis.from_url(redis_address.url) as redis, pytest.MonkeyPatch.context() as pace:
                pace.setattr(retries, "_BACKOFF", Backoff(first=hour, ceiling=4 * hour))
                redis.flushdb()
                workplace = Workplace(database, {here: backend(redis, base)}, {here: base}, "worker")
                yield Works(root, database=database, workplace=workplace, location_id=here)
            kill_jobs(base)
            restore_rows(database.engine)

        yield open_in
        database.close()


def _put_locations(engine: sa.Engine, root: Path) -> None:
    with transaction(engine) as session:
        for location in session.scalars(sa.select(models.DiskDataLocation)):
            location.path = str(root / location.site.short_name / location.name)
            Path(location.path).mkdir(parents=True)


@pytest.fixture
def works(open_works: OpenWorks, tmp_path: Path) -> Iterator[Works]:
    """An installation in which nothing was observed or defined yet."""
    with open_works(tmp_path) as found:
        yield found


@pytest.fixture
def say(works: Works) -> Say:
    """What a command says."""
    environment = {"CCAT_OPS_DB_URL": works.engine.url.render_as_string(hide_password=False)}
    return lambda *words: CliRunner().invoke(app, [*map(str, words)], env=environment)
