"""An embedded Redis: loopback only, a generated password, everything it was told on disk within a second."""

import contextlib
import json
import random
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from ccat.stack.errors import NotReady
from ccat.stack.private import PRIVATE, write_private
from ccat.stack.processes import kill, running, working_in
from ccat.stack.programs import redis_program
from ccat.stack.services import ServiceSpec

_HOST = "127.0.0.1"
_PORTS = range(20_000, 32_000)
"""Below the range from which Linux serves outgoing connections, so that none takes our port while Redis restarts."""


@dataclass(frozen=True)
class RedisAddress:
    """Where a Redis listens, and its secret."""

    host: str
    port: int
    password: str

    @property
    def url(self) -> str:
        """For clients that take one string."""
        return f"redis://:{self.password}@{self.host}:{self.port}/0"


def prepare(directory: Path) -> RedisAddress:
    """Write the configuration of a Redis in `directory`; password and, where it is still free, port are kept."""
    directory = directory.resolve()
    directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    address = _choose_address(directory / "address.json")
    write_private(directory / "address.json", json.dumps(vars(address)))
    write_private(directory / "redis.conf", configuration(address, directory))
    return address


def _choose_address(remembered: Path) -> RedisAddress:
    if not remembered.exists():
        return RedisAddress(_HOST, _free_port(), secrets.token_urlsafe(32))
    known = RedisAddress(**json.loads(remembered.read_text()))
    return known if _is_free(known.port) else RedisAddress(_HOST, _free_port(), known.password)


def _free_port() -> int:
    candidates = random.sample(_PORTS, len(_PORTS))
    return next(port for port in candidates if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def configuration(address: RedisAddress, directory: Path) -> str:
    """The text of `redis.conf`."""
    return "\n".join(
        [
            f"bind {address.host}",
            f"port {address.port}",
            f"requirepass {address.password}",
            "protected-mode yes",
            f"dir {json.dumps(str(directory), ensure_ascii=False)}",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "",
        ]
    )


def service(address: RedisAddress, directory: Path) -> ServiceSpec:
    """The server process for a prepared directory."""
    directory = directory.resolve()
    return ServiceSpec(
        name="redis",
        command=[str(redis_program()), str(directory / "redis.conf")],
        directory=directory,
        before_start=lambda: kill(leftovers(directory)),
        is_ready=lambda _pid: answers(address),
    )


def leftovers(directory: Path) -> list[psutil.Process]:
    """Processes of a server, which whoever started it did not stop, in `directory`."""
    return working_in(directory, redis_program().name)


def answers(address: RedisAddress) -> bool:
    """Whether the Redis at this address knows our password and has loaded its data."""
    return _ask(address, "PING") == [b"+PONG"]


def has_key(address: RedisAddress, pattern: str) -> bool:
    """Whether a key like this exists; False while Redis does not answer."""
    return _ask(address, f"KEYS {pattern}") not in ([], [b"*0"])


def _ask(address: RedisAddress, command: str) -> list[bytes]:
    """The lines of the answer to a command whose words hold no spaces; none where there is no answer."""
    try:
        with socket.create_connection((address.host, address.port), timeout=1) as connection:
            connection.sendall(f"AUTH {address.password}\r\n{command}\r\nQUIT\r\n".encode())
            welcome, *answer, _goodbye = connection.makefile("rb").read().splitlines()
    except (OSError, ValueError):  # nobody there; somebody who hangs up on us
        return []
    return answer if welcome == b"+OK" else []


def start_on_free_port(directory: Path, start: Callable[[ServiceSpec], object]) -> RedisAddress:
    """Prepare `directory` and start its Redis by `start`, again if somebody took the port before Redis could."""
    while True:
        address = prepare(directory)
        try:
            start(service(address, directory))
        except NotReady:
            if _is_free(address.port):  # it failed for another reason
                raise
        else:
            return address


@contextlib.contextmanager
def embedded_redis(directory: Path) -> Iterator[RedisAddress]:
    """A Redis of our own while the `with` block lasts; it ends with us even if we are killed."""
    with contextlib.ExitStack() as cleanup:
        yield start_on_free_port(directory, lambda spec: cleanup.enter_context(running(spec, directory / "redis.log")))
