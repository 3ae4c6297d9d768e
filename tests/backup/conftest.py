import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from ccat.backup.manifest import PARTS
from ccat.backup.verifying import measure
from ccat.cli import app
from ccat_ops_db.session import create_engine, transaction
from ccat_ops_db.verbs.initialization import initialize, reference_data

Say = Callable[..., Result]


def url_of(engine: sa.Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture(autouse=True)
def no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither variables nor a ccat.toml of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("CCAT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))


@pytest.fixture(scope="session")
def initialized(postgresql_url: str, template_database: str) -> Iterator[sa.Engine]:
    """A database as `opsdb_init` leaves it, which no test changes."""
    with database(postgresql_url, template=template_database) as engine:
        with transaction(engine) as session:
            initialize(session, reference_data(), storage_root=Path("/data"))
        yield engine


def say_to(engine: sa.Engine, *words: object) -> Result:
    """What a command says to whom the settings name this database."""
    return CliRunner().invoke(app, [*map(str, words)], env={"CCAT_OPS_DB_URL": url_of(engine)})


@pytest.fixture
def say(initialized: sa.Engine) -> Say:
    """The same, of the initialized database."""
    return partial(say_to, initialized)


@pytest.fixture(scope="session")
def pristine(initialized: sa.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the initialized database."""
    return Path(told(say_to(initialized, "backup", tmp_path_factory.mktemp("backups"), "--json"))["path"])


@pytest.fixture
def backup(pristine: Path, tmp_path: Path) -> Path:
    """A copy of it, for this test alone."""
    return shutil.copytree(pristine, tmp_path / "backups" / pristine.name)


@pytest.fixture
def empty(postgresql_url: str) -> Iterator[sa.Engine]:
    """A database without anything in it."""
    with database(postgresql_url, template="template0") as engine:
        yield engine


@contextmanager
def database(postgresql_url: str, *, template: str) -> Iterator[sa.Engine]:
    name = f"backup_{uuid.uuid4().hex[:12]}"
    administrator = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        engine = create_engine(
            administrator.url.set(database=name).render_as_string(hide_password=False), application_name="tests"
        )
        yield engine
        engine.dispose()
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    administrator.dispose()


def told(done: Result) -> Any:
    """What a command that succeeded says to programs."""
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def measured(backup: Path) -> dict[str, dict[str, object]]:
    return {name: measure(backup / name).model_dump() for name in PARTS}


def rewrite(backup: Path, **values: object) -> None:
    """Let the manifest of a backup say something else."""
    path = backup / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
