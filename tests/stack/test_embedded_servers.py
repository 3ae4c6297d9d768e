import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
from redis import Redis

from ccat.stack.errors import NotReady
from ccat.stack.postgresql import embedded_postgresql
from ccat.stack.redis import embedded_redis, has_key
from tests.stack.support import eventually, is_alive

USES_BOTH = """
import sys
from pathlib import Path
from ccat.stack.postgresql import embedded_postgresql
from ccat.stack.redis import embedded_redis
directory = Path(sys.argv[1])
with embedded_postgresql(directory / "pg", durable=False) as url, embedded_redis(directory / "redis"):
    print(url, flush=True)
    sys.stdin.read()
"""


def test_servers_die_with_the_process_that_uses_them_and_keep_its_data(tmp_path: Path) -> None:
    command = [sys.executable, "-c", USES_BOTH, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout
        first_url = user.stdout.readline().strip()
        servers = psutil.Process(user.pid).children(recursive=True)
        assert {"postgres", "valkey-server"} <= {server.name() for server in servers}
        with psycopg.connect(first_url.replace("+psycopg", "")) as database:
            database.execute("CREATE TABLE known AS SELECT 42 AS answer")
        os.kill(user.pid, signal.SIGKILL)
    eventually(lambda: not any(is_alive(server.pid) for server in servers))

    with embedded_postgresql(tmp_path / "pg", durable=False) as url:
        assert url == first_url
        with psycopg.connect(url.replace("+psycopg", "")) as database:
            assert database.execute("SELECT answer FROM known").fetchone() == (42,)


def test_redis_keeps_its_data_and_moves_to_another_port_when_its_own_was_taken(tmp_path: Path) -> None:
    with embedded_redis(tmp_path) as first, Redis(port=first.port, password=first.password) as client:
        client.set("known", "yes")
    with embedded_redis(tmp_path) as second:
        assert second == first
    with socket.create_server(("127.0.0.1", first.port)), embedded_redis(tmp_path) as third:
        assert (third.port != first.port, third.password) == (True, first.password)
        with Redis(port=third.port, password=third.password) as client:
            assert client.get("known") == b"yes"


def test_a_server_that_cannot_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_text("this is no append-only file")
    expected = r"redis ended with exit code 1 before it was ready\. Its last words: .*"
    with pytest.raises(NotReady, match=expected), embedded_redis(tmp_path):
        pass


def test_a_sign_of_life_is_seen_once_it_is_there_and_not_while_redis_is_away(tmp_path: Path) -> None:
    with embedded_redis(tmp_path) as address, Redis(port=address.port, password=address.password) as client:
        assert not has_key(address, "health:*:worker:*-17")
        client.set("health:workflow:worker:host-17", "{}")
        assert has_key(address, "health:*:worker:*-17")
    assert not has_key(address, "health:*:worker:*-17")
