"""Real servers and processes that tests can cut off, restart and kill."""

import json
import os
import selectors
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import redis
import trustme

from ccat.stack.programs import redis_program
from ccat_service.servers import RedisSettings

Found = TypeVar("Found")

PROGRAMS = Path(__file__).parent / "programs"
LOOPBACK = "127.0.0.1"


def eventually(look: Callable[[], Found], *, within: float = 10) -> Found:
    """What `look` returns as soon as it is true, asked again and again until the deadline."""
    deadline = monotonic() + within
    while not (found := look()):
        assert monotonic() < deadline, f"{look} is still {found!r} after {within} s"
        sleep(0.005)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class RestartableRedis:
    """A Redis that forgets everything when it stops, at an address that stays."""

    def __init__(self) -> None:
        self.settings = RedisSettings(redis_host=LOOPBACK, redis_port=free_port())
        self.client = self.settings.client("tests")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", str(self.settings.redis_port), "--bind", LOOPBACK, "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen([redis_program(), *options], stdout=subprocess.DEVNULL)
        eventually(self._answers)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.client.close()
        self.stop()

    def _answers(self) -> bool:
        with suppress(redis.exceptions.ConnectionError):
            return bool(self.client.ping())
        return False


@dataclass(frozen=True)
class Certificates:
    """A certificate authority of our own, and what it signed for the client."""

    server: ssl.SSLContext
    authority: Path
    client_certificate: Path
    client_key: Path


def make_certificates(directory: Path) -> Certificates:
    """A server that asks for certificates, and a client that has one."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(LOOPBACK).configure_cert(server)
    authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    certificates = Certificates(server, directory / "ca.pem", directory / "client.pem", directory / "client.key")
    client = authority.issue_cert("worker.example")
    authority.cert_pem.write_to_path(str(certificates.authority))
    client.cert_chain_pems[0].write_to_path(str(certificates.client_certificate))
    client.private_key_pem.write_to_path(str(certificates.client_key))
    return certificates


class Proxy:
    """A TCP port in front of a server, which can be cut off and mended; speaks TLS to its clients where told to."""

    def __init__(self, server: tuple[str, int] | str, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self._server = server
        self._tls = tls
        self._sockets: set[socket.socket] = set()
        self._listener: socket.socket | None = None

    def mend(self) -> None:
        self._listener = socket.create_server((LOOPBACK, self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Refuse new connections and break the open ones."""
        if self._listener is not None:
            _shut(self._listener)
            self._listener = None
        while self._sockets:
            _shut(self._sockets.pop())

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            with client, self._connect() as server:
                self._sockets |= {client, server}
                _pump(client, server)

    def _connect(self) -> socket.socket:
        if isinstance(self._server, tuple):
            return socket.create_connection(self._server)
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server)
        return server


def _pump(client: socket.socket, server: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ, server)
        selector.register(server, selectors.EVENT_READ, client)
        while True:
            for key, _ in selector.select():
                source: Any = key.fileobj
                if not (data := source.recv(65536)):
                    return
                while isinstance(source, ssl.SSLSocket) and source.pending():
                    data += source.recv(65536)
                key.data.sendall(data)


def _shut(open_socket: socket.socket) -> None:
    with suppress(OSError):
        open_socket.shutdown(socket.SHUT_RDWR)
    open_socket.close()


class Program:
    """One of our processes, with its log."""

    def __init__(self, name: str, directory: Path, variables: Mapping[str, str]) -> None:
        self._log = directory / f"{name}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CCAT_")}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, PROGRAMS / f"{name}.py"],
                env=inherited | dict(variables) | {"CCAT_LOG": "json"},
                stderr=log,
                stdout=log,
            )

    def events(self, sentence: str = "") -> list[dict[str, Any]]:
        """What it logged, or those of its events that say so."""
        events = [json.loads(line) for line in self._log.read_text().splitlines() if line.endswith("}")]
        return [event for event in events if sentence in event["event"]]

    def log(self) -> str:
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_code(self, *, within: timedelta) -> int:
        return self._process.wait(within.total_seconds())

    def is_running(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        if self.is_running():
            self._process.kill()
        self._process.wait()
