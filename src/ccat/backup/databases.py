"""Which database is meant, and how it is reached whether its stack is up or not."""

import os
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from ccat.stack.directory import StackDirectory, exclusive, existing_directory, open_directory
from ccat.stack.errors import AlreadyRunning
from ccat.stack.postgresql import embedded_postgresql
from ccat.wiring import default_data_dir
from ccat_service.servers import OpsDbSettings


@dataclass(frozen=True)
class Database:
    """A database that can be reached."""

    url: str
    """With the password: not for printing."""
    stack: StackDirectory | None
    """The embedded stack that it is of."""


@contextmanager
def existing_database(data_dir: Path | None) -> Iterator[Database]:
    """The database of the embedded stack that is meant, be it up or down, or the one that the settings name."""
    root = _stack_that_is_meant(data_dir)
    if root is None:
        yield Database(OpsDbSettings.load().database_url(), None)
        return
    directory = existing_directory(root)
    with ExitStack() as until_done:
        try:
            until_done.enter_context(exclusive(directory))
        except AlreadyRunning:
            url = _url_in(directory.settings)
            if url is None:
                raise
        else:
            url = until_done.enter_context(embedded_postgresql(directory.postgresql))
        yield Database(url, directory)


@contextmanager
def database_for_restoring(data_dir: Path | None) -> Iterator[Database]:
    """The same, for something new: its data directory is made, and no stack is up in it."""
    root = _stack_that_is_meant(data_dir)
    if root is None:
        yield Database(OpsDbSettings.load().database_url(), None)
        return
    directory = open_directory(root)
    with exclusive(directory), embedded_postgresql(directory.postgresql) as url:
        yield Database(url, directory)


def _stack_that_is_meant(data_dir: Path | None) -> Path | None:
    """Data directory of an embedded stack; None where the settings name another database."""
    if data_dir is not None:
        return data_dir
    settings = OpsDbSettings.load()
    if settings.url is None and settings.database_postgresql_host is None:
        return default_data_dir()
    file = Path(os.environ.get("CCAT_CONFIG") or "ccat.toml").absolute()
    is_of_a_stack = StackDirectory(file.parent).lock.exists() and _names(file, settings.database_url())
    return file.parent if is_of_a_stack else None


def _names(settings: Path, url: str) -> bool:
    """Whether a file of settings names this database, however it is spelt there."""
    named = _url_in(settings)
    return named is not None and sa.make_url(named) == sa.make_url(url)


def _url_in(settings: Path) -> str | None:
    try:
        url: str | None = tomllib.loads(settings.read_text()).get("ops_db", {}).get("url")
    except FileNotFoundError:
        return None
    return url
