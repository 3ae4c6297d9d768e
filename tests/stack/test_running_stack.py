import json
import os
import signal
import stat
import subprocess
import tomllib
from typing import Any

import psutil
import psycopg
import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from ccat.stack.directory import StackDirectory
from ccat.stack.programs import postgresql_programs
from tests.stack.support import ALL, Stack, eventually, is_alive

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user of the host")


def settings_of(stack: Stack) -> dict[str, dict[str, Any]]:
    return tomllib.loads((stack.directory / "ccat.toml").read_text())


def connect(stack: Stack) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(settings_of(stack)["ops_db"]["url"].replace("+psycopg", ""), autocommit=True)


def redis_of(stack: Stack) -> Redis:
    found = settings_of(stack)["workflow_manager"]
    return Redis(port=found["redis_port"], password=found["redis_password"], decode_responses=True)


def test_status_lists_every_process_and_exits_with_0(stack: Stack) -> None:
    answer = stack.ccat("status")
    assert answer.exit_code == 0, answer.output
    assert "is up (pid" in answer.stdout
    lines = [line.split() for line in answer.stdout.splitlines()]
    assert [line[0] for line in lines if "running" in line] == ALL


def test_status_as_json_gives_pids_restarts_and_since_when(stack: Stack) -> None:
    found = json.loads(stack.ccat("status", "--json").stdout)
    assert found["up"] is True
    assert [service["name"] for service in found["services"]] == ALL
    assert all(is_alive(service["pid"]) for service in found["services"])
    assert set(found["services"][0]) == {"name", "pid", "state", "restarts", "since"}


def test_a_second_up_says_that_it_is_running_and_what_to_do(stack: Stack) -> None:
    answer = stack.ccat("up")
    assert answer.exit_code == 1
    pid = stack.state()["supervisor"]["pid"]
    assert f"already running in {stack.directory} (pid {pid})" in answer.stderr
    assert "ccat status --data-dir" in answer.stderr
    assert "ccat down --data-dir" in answer.stderr


def test_processes_find_both_servers_by_the_settings_file(stack: Stack) -> None:
    with connect(stack) as database:
        shown = [database.execute(f"SHOW {name}").fetchone() for name in ("fsync", "synchronous_commit", "timezone")]
    assert shown == [("on",), ("on",), ("UTC",)]
    with redis_of(stack) as redis:
        assert redis.config_get("append*")["appendonly"] == "yes"
    settings = settings_of(stack)
    assert settings["workflow_manager"]["processing_location_id"] == "7,9"
    assert settings["workflow_manager"]["pipeline_base_dir"] == str(StackDirectory(stack.directory).pipelines)
    assert settings["data_transfer"]["redis_port"] == settings["workflow_manager"]["redis_port"]


def test_preparations_run_once_both_servers_are_ready_and_see_the_settings(stack: Stack) -> None:
    shown = tomllib.loads((stack.directory / "logs" / "show-settings.log").read_text())
    assert shown["ops_db"] == settings_of(stack)["ops_db"]


def test_directories_are_closed_and_files_with_secrets_are_private(stack: Stack) -> None:
    closed = [stack.directory, stack.directory / "run", stack.directory / "redis", stack.directory / "postgresql/data"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in closed} == {0o700}
    secret = ["ccat.toml", "redis/redis.conf", "redis/address.json", "postgresql/password", "run/stack.json"]
    assert {stat.S_IMODE((stack.directory / name).stat().st_mode) for name in secret} == {0o600}


def test_no_command_line_shows_a_password(stack: Stack) -> None:
    found = settings_of(stack)
    secrets = [found["workflow_manager"]["redis_password"], found["ops_db"]["url"].split("@")[0].rpartition(":")[2]]
    assert all(len(secret) > 30 for secret in secrets)
    lines = "\n".join(map(" ".join, stack.command_lines()))
    assert "valkey-server" in lines
    assert not any(secret in lines for secret in secrets)


def test_postgresql_listens_on_no_network_and_redis_on_loopback_only(stack: Stack) -> None:
    listening = {
        (process.name(), connection.laddr.ip)
        for process in stack.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("valkey-server", "127.0.0.1")}


def test_postgresql_refuses_a_wrong_password(stack: Stack) -> None:
    place = settings_of(stack)["ops_db"]["url"].partition("@")[2]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://ccat:guessed@{place}")


@as_root
def test_another_user_of_the_host_can_do_nothing(stack: Stack) -> None:
    settings = settings_of(stack)
    psql = as_nobody(postgresql_programs() / "psql", settings["ops_db"]["url"].replace("+psycopg", ""))
    assert "Permission denied" in psql.stderr
    with Redis(port=settings["data_transfer"]["redis_port"]) as redis, pytest.raises(AuthenticationError):
        redis.keys()
    assert "Permission denied" in as_nobody("cat", stack.directory / "ccat.toml").stderr


def as_nobody(*command: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, user=65534, group=65534, extra_groups=[], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ALL)
def test_what_is_killed_comes_back_and_knows_what_it_knew(stack: Stack, name: str) -> None:
    remember(stack, name)
    before = stack.service(name)
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: stack.service(name)["restarts"] == before["restarts"] + 1 and runs(stack, name))
    assert stack.service(name)["pid"] != before["pid"]
    assert knows(stack, name)


def remember(stack: Stack, what: str) -> None:
    with connect(stack) as database, redis_of(stack) as redis:
        database.execute("CREATE TABLE IF NOT EXISTS known (what text)")
        database.execute("INSERT INTO known VALUES (%s)", [what])
        redis.set(f"known:{what}", "yes")
        eventually(lambda: redis.info("persistence")["aof_pending_bio_fsync"] == 0)


def knows(stack: Stack, what: str) -> bool:
    with connect(stack) as database, redis_of(stack) as redis:
        rows = database.execute("SELECT 1 FROM known WHERE what = %s", [what]).fetchall()
        return bool(rows) and redis.get(f"known:{what}") == "yes"


def runs(stack: Stack, name: str) -> bool:
    return bool(stack.service(name)["state"] == "running")


def test_what_dies_again_and_again_waits_and_status_shows_it(stack: Stack) -> None:
    crash = stack.directory / "crash"
    crash.touch()
    os.kill(stack.service("moody")["pid"], signal.SIGKILL)
    eventually(lambda: stack.service("moody")["state"] == "waiting")
    answer = stack.ccat("status")
    assert answer.exit_code == 1
    assert "waiting" in answer.stdout
    crash.unlink()
    eventually(lambda: runs(stack, "moody"))


def test_a_dead_service_takes_its_helpers_along_but_not_the_jobs_in_sessions_of_their_own(stack: Stack) -> None:
    (helper,) = stack.running("sleep 1002")
    jobs = stack.running("sleep 1001")
    os.kill(stack.service("parent")["pid"], signal.SIGKILL)
    eventually(lambda: runs(stack, "parent") and len(stack.running("sleep 1001")) > len(jobs))
    assert not is_alive(helper.pid)
    assert all(is_alive(job.pid) for job in jobs)


def test_orphans_that_end_are_buried_by_the_supervisor(stack: Stack) -> None:
    orphan = stack.running("sleep 1001")[0]
    orphan.kill()
    eventually(lambda: not psutil.pid_exists(orphan.pid))
