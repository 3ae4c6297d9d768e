from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from ccat_ops_db.session import create_engine
from tests.transfer.support import Observatory


@pytest.fixture(scope="session")
def observatory_url(postgresql_url: str, template_database: str) -> Iterator[str]:
    """URL of one migrated database for all tests here: what costs most is to make one."""
    administrator = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE transfer TEMPLATE {template_database}"))
        yield administrator.url.set(database="transfer").render_as_string(hide_password=False)
        connection.execute(sa.text("DROP DATABASE transfer WITH (FORCE)"))
    administrator.dispose()


@pytest.fixture(scope="session")
def initialized(observatory_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observatory]:
    engine = create_engine(observatory_url, application_name="tests")
    observatory = Observatory(engine, tmp_path_factory.mktemp("observatory") / "storage")
    observatory.set_up()
    yield observatory
    engine.dispose()


@pytest.fixture
def observatory(initialized: Observatory) -> Iterator[Observatory]:
    """Locations with empty directories, a planned observation, and nothing observed yet."""
    yield initialized
    initialized.forget()
