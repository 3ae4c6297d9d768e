"""An embedded PostgreSQL: no TCP, a socket that only its owner reaches, and a generated password on top."""

import contextlib
import os
import secrets
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from pwd import struct_passwd
from signal import SIGINT
from urllib.parse import quote

import psutil

from ccat.stack.accounts import check_reachable, server_account
from ccat.stack.errors import InitializationFailed, OtherMajorVersion
from ccat.stack.private import PRIVATE, write_private
from ccat.stack.processes import kill, running, working_in
from ccat.stack.programs import postgresql_programs
from ccat.stack.services import ServiceSpec

MAJOR_VERSION = 18
_ROLE = "ccat"
_DATABASE = "ccat_ops_db"
_PORT = 5432
"""Part of the socket's name, whatever PGPORT says."""
_SOCKET_NAME = f".s.PGSQL.{_PORT}"
_LONGEST_SOCKET_PATH = 107

_SOCKET_MEMO = "socket-directory"
"""File that remembers the temporary directory of the socket."""

_HERE = "/proc/self/cwd"
"""The server works in its data directory and calls it by this name, so that an account which may not pass the parent
directories (a data directory of root's in a closed home) can still work in its own."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A PostgreSQL data directory and how to reach the server that runs on it."""

    data: Path
    socket_directory: Path
    password: str
    account: struct_passwd | None

    @property
    def url(self) -> str:
        """For SQLAlchemy with psycopg."""
        address = f"host={quote(str(self.socket_directory))}&port={_PORT}"
        return f"postgresql+psycopg://{_ROLE}:{self.password}@/{_DATABASE}?{address}"


def prepare(directory: Path, *, durable: bool = True) -> Cluster:
    """Make the cluster in `directory`, or open the one that is there."""
    directory = directory.resolve()
    directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    account = server_account()
    check_reachable(postgresql_programs() / "postgres", account)
    data, password = directory / "data", directory / "password"
    if not data.exists():
        write_private(password, secrets.token_urlsafe(32))
        _initialize(data, password=password.read_text(), account=account, durable=durable)
    _check_version(data)
    return Cluster(
        data=data,
        socket_directory=_socket_directory(data, account),
        password=password.read_text(),
        account=account,
    )


def _check_version(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    if found != str(MAJOR_VERSION):
        raise OtherMajorVersion(data, found=found, needed=MAJOR_VERSION)


def _initialize(data: Path, *, password: str, account: struct_passwd | None, durable: bool) -> None:
    draft = data.with_name("data.draft")  # renamed when complete: a killed initdb leaves nothing that looks usable
    kill(_at_work_in(draft))
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=PRIVATE)
    if account:
        os.chown(draft, account.pw_uid, account.pw_gid)
    programs, sync = postgresql_programs(), [] if durable else ["--no-sync"]
    try:
        _run_in(draft, account, command=[f"{programs}/initdb", *_INITDB_OPTIONS, *sync], words=password)
        create = [f"{programs}/postgres", "--single", "-D", _HERE, "postgres"]
        _run_in(draft, account, command=create, words=f"CREATE DATABASE {_DATABASE};\n")
    except subprocess.CalledProcessError as error:
        raise InitializationFailed(data, _reason(error.stderr)) from error
    draft.rename(data)


def _reason(said: str) -> str:
    telling = [line for line in said.splitlines() if any(word in line for word in _TELLING)]
    return " ".join(telling) or said.strip()


_TELLING = ("error:", "FATAL:", "PANIC:", "HINT:")
_INITDB_OPTIONS = [
    *("-D", _HERE),
    f"--username={_ROLE}",
    "--pwfile=/dev/stdin",
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",  # sorts alike on every machine, whatever its C library
    "--builtin-locale=C.UTF-8",
    *("-c", "timezone=UTC"),
    *("-c", "log_timezone=UTC"),
    *("-c", "max_connections=100"),
    *("-c", "shared_buffers=128MB"),
    *("-c", "log_checkpoints=off"),
]


def _run_in(directory: Path, account: struct_passwd | None, *, command: list[str], words: str) -> None:
    read_end, write_end = os.pipe()
    if account:  # opened by name, as /dev/stdin, a pipe obeys its owner
        os.fchown(read_end, account.pw_uid, account.pw_gid)
    with os.fdopen(write_end, "w") as file:
        file.write(words)
    with os.fdopen(read_end) as stdin:
        subprocess.run(
            command,
            stdin=stdin,
            cwd=directory,
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=None if account is None else [],
            check=True,
            capture_output=True,
            text=True,
        )


def _socket_directory(data: Path, account: struct_passwd | None) -> Path:
    if len(os.fsencode(data / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH:
        return data
    known = _temporary_socket_directory(data.parent, account)
    if known:
        return known
    fresh = Path(tempfile.mkdtemp(prefix="ccat-"))
    if account:
        os.chown(fresh, account.pw_uid, account.pw_gid)
    write_private(data.parent / _SOCKET_MEMO, str(fresh))
    return fresh


def _temporary_socket_directory(directory: Path, account: struct_passwd | None) -> Path | None:
    memo = directory / _SOCKET_MEMO
    if not memo.exists():
        return None
    known = Path(memo.read_text())
    return known if _is_private(known, owner=account.pw_uid if account else os.geteuid()) else None


def _is_private(directory: Path, *, owner: int) -> bool:
    """Whether nobody put something of his own in the place of our temporary directory."""
    try:
        found = directory.lstat()
    except FileNotFoundError:
        return False
    return found.st_uid == owner and stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == PRIVATE


def service(cluster: Cluster, *, durable: bool = True) -> ServiceSpec:
    """The server process; not `durable` is faster and loses data with the machine's power: for tests."""
    in_data = cluster.socket_directory == cluster.data
    return ServiceSpec(
        name="postgresql",
        command=[
            f"{postgresql_programs()}/postgres",
            *("-D", _HERE),
            *("-k", "." if in_data else str(cluster.socket_directory)),
            *("-p", str(_PORT)),
            *("-c", "listen_addresses="),
            *("-c", "unix_socket_permissions=0700"),
            *("-c", "autovacuum_naptime=5s"),  # a young database is soon many times as large as it was
            *("-c", "recovery_init_sync_method=syncfs"),  # after a crash: one call, not one for each of 1,700 files
            *([] if durable else ["-F", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]),
        ],
        directory=cluster.data,
        account=cluster.account,
        before_start=lambda: _clear(cluster.data),
        is_ready=lambda pid: is_ready(cluster.data, pid),
        stop_within=timedelta(seconds=60),
        stop_signal=SIGINT,  # "fast": ends open sessions, writes everything, stops
    )


def _clear(data: Path) -> None:
    # Backends outlive a killed postmaster for a moment and hold its shared memory; and a number in postmaster.pid
    # that meanwhile belongs to another program would keep the server from starting.
    kill(_at_work_in(data))
    (data / "postmaster.pid").unlink(missing_ok=True)


def leftovers(directory: Path) -> list[psutil.Process]:
    """Processes of a server, which whoever started it did not stop, on the cluster in `directory`."""
    return _at_work_in(directory / "data")


def _at_work_in(data: Path) -> list[psutil.Process]:
    return working_in(data, "postgres")


def is_ready(data: Path, pid: int) -> bool:
    """Whether the server with this pid says in `postmaster.pid` that it takes connections."""
    try:
        lines = (data / "postmaster.pid").read_text().split()
    except FileNotFoundError:
        return False
    return lines[:1] == [str(pid)] and lines[-1] == "ready"


def release(directory: Path) -> None:
    """Remove what the stopped server of `directory` had elsewhere: the socket's directory, when the path was long."""
    known = _temporary_socket_directory(directory, server_account())
    if known:
        shutil.rmtree(known)
    (directory / _SOCKET_MEMO).unlink(missing_ok=True)


@contextlib.contextmanager
def embedded_postgresql(directory: Path, *, durable: bool = True) -> Iterator[str]:
    """A PostgreSQL of our own while the `with` block lasts, as a URL; it ends with us even if we are killed."""
    cluster = prepare(directory, durable=durable)
    try:
        with running(service(cluster, durable=durable), directory / "postgresql.log"):
            yield cluster.url
    finally:
        release(directory)
