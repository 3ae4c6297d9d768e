"""PostgreSQL's own programs for dumps: which ones, and how they are run without a password that anybody sees."""

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

import sqlalchemy as sa
from psycopg import pq
from psycopg.conninfo import make_conninfo

from ccat.backup.errors import ProgramFailed, ProgramTooOld
from ccat.stack.postgresql import MAJOR_VERSION
from ccat.stack.processes import describe_end, start, stop
from ccat.stack.programs import postgresql_programs
from ccat.stack.services import ServiceSpec

Name = Literal["pg_dump", "pg_restore"]
_SECRETS: Final = {"password", "sslpassword"}
_LOOK: Final = timedelta(milliseconds=100)
_TELLING: Final = ("error:", "detail:", "hint:", "fatal:")


def program(name: Name, *, at_least: int) -> Path:
    """The program of this major version or a newer one: ours, else that on PATH; raises ProgramTooOld."""
    if at_least <= MAJOR_VERSION:
        return postgresql_programs() / name
    on_path = shutil.which(name)
    found = major_version(Path(on_path)) if on_path else None
    if on_path is None or found is None or found < at_least:
        raise ProgramTooOld(name, found=found, needed=at_least)
    return Path(on_path)


def major_version(path: Path) -> int | None:
    """Of PostgreSQL, that a program belongs to."""
    said = subprocess.run([path, "--version"], check=False, capture_output=True, text=True).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    return int(found[1]) if found else None


def connection_to(engine: sa.Engine) -> tuple[str, dict[str, str]]:
    """What a program is told on its command line, which everybody can read, and in its environment."""
    _, arguments = engine.dialect.create_connect_args(engine.url)
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    public = {name: arguments[name] for name in arguments.keys() & known - _SECRETS}
    secret = {"PGPASSWORD": str(arguments["password"])} if "password" in arguments else {}
    return make_conninfo(**public), secret


def run(command: Sequence[str], engine: sa.Engine, *, look: Callable[[], None]) -> None:
    """Run a program on a database to its end, with a look every now and then; it ends with us, however that happens.

    Raises ProgramFailed.
    """
    target, secret = connection_to(engine)
    spec = ServiceSpec(name=Path(command[0]).name, command=[*command, f"--dbname={target}"], environment=secret)
    with tempfile.TemporaryDirectory(prefix="ccat-") as directory:
        log = Path(directory) / "said"
        process = start(spec, log)
        try:
            while process.poll() is None:
                look()
                time.sleep(_LOOK.total_seconds())
        finally:
            stop((process, spec))
        if process.returncode:
            raise ProgramFailed(spec.name, how=describe_end(process.returncode), said=_telling(log.read_text()))


def contents(dump: Path, *, version: int) -> str:
    """The table of contents of a dump; raises ProgramFailed where it cannot be read."""
    command = [str(program("pg_restore", at_least=version)), "--list", str(dump)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise ProgramFailed("pg_restore", how=describe_end(done.returncode), said=_telling(done.stderr))
    return done.stdout


def _telling(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line.lower() for word in _TELLING)]
    return " ".join((telling or lines)[:5])
