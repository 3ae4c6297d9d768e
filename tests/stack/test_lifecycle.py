import os
import signal
import tomllib
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.stack.support import Stack, end_of, eventually, is_alive


def database_of(stack: Stack) -> psycopg.Connection[tuple[object, ...]]:
    url = tomllib.loads((stack.directory / "ccat.toml").read_text())["ops_db"]["url"]
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def test_ctrl_c_and_kill_leave_no_process_behind(own_stack: Stack) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        supervisor = own_stack.start_and_wait()
        everything = [*psutil.Process(supervisor.pid).children(recursive=True), *own_stack.processes()]
        assert own_stack.running("sleep 1001")
        supervisor.send_signal(number)
        output = supervisor.communicate(timeout=30)[0]
        assert supervisor.returncode == 0
        assert f"{number.name} received: everything is stopped." in output
        assert [process for process in everything if is_alive(process.pid)] == []
        assert own_stack.processes() == []


def test_under_nohup_a_stack_outlives_its_terminal(own_stack: Stack) -> None:
    own_stack.environment = {"UNDER_NOHUP": "1"}
    supervisor = own_stack.start_and_wait()
    supervisor.send_signal(signal.SIGHUP)
    supervisor.terminate()
    assert "SIGTERM received: everything is stopped." in supervisor.communicate(timeout=30)[0]


def test_a_signal_during_the_start_stops_what_was_started(own_stack: Stack) -> None:
    own_stack.environment = {"LAST_PREPARATION": "sleep 1003"}
    supervisor = own_stack.start()
    eventually(lambda: ["sleep", "1003"] in own_stack.command_lines())
    supervisor.terminate()
    supervisor.communicate(timeout=30)
    assert own_stack.processes() == []


def test_a_killed_supervisor_takes_its_services_along_and_the_next_up_finds_all_data(own_stack: Stack) -> None:
    supervisor = own_stack.start_and_wait()
    with database_of(own_stack) as database:
        database.execute("CREATE TABLE precious AS SELECT 42 AS answer")
    services = own_stack.state()["services"]
    orphan = own_stack.running("sleep 1001")[0]
    supervisor.kill()
    supervisor.communicate()
    eventually(lambda: not any(is_alive(service["pid"]) for service in services))
    assert own_stack.ccat("status").exit_code == 1
    assert is_alive(orphan.pid)

    supervisor = own_stack.start_and_wait()
    assert not is_alive(orphan.pid)
    with database_of(own_stack) as database:
        assert database.execute("SELECT answer FROM precious").fetchone() == (42,)


def test_down_ends_what_a_killed_supervisor_left(own_stack: Stack) -> None:
    supervisor = own_stack.start_and_wait()
    supervisor.kill()
    supervisor.communicate()
    answer = own_stack.ccat("down")
    assert answer.exit_code == 0
    assert "that a killed supervisor had left behind" in answer.stdout
    assert own_stack.processes() == []
    assert "No stack was running" in own_stack.ccat("down").stdout


def test_a_number_that_now_belongs_to_another_program_does_not_keep_postgresql_from_starting(own_stack: Stack) -> None:
    own_stack.start_and_wait().kill()
    own_stack.ccat("down")
    memo = own_stack.directory / "postgresql/data/postmaster.pid"
    memo.write_text(f"{os.getpid()}\n{own_stack.directory}\n1\n5432\n.\n\n1 1\nready\n")
    own_stack.start_and_wait()


def test_detached_it_tells_what_becomes_ready_and_returns(own_stack: Stack) -> None:
    starter = own_stack.start("--detach")
    output = end_of(starter)
    assert starter.returncode == 0
    told = [line.split()[1] for line in output.splitlines() if " ready " in line or " done " in line]
    assert told == ["postgresql", "redis", "show-settings", "last-preparation", "steady", "moody", "parent"]
    assert f"Stop it with Ctrl-C or `ccat down --data-dir {own_stack.directory}`" in output
    assert own_stack.ccat("status").exit_code == 0
    assert "The stack is down." in own_stack.ccat("down").stdout


@pytest.mark.parametrize("options", [[], ["--detach"]])
def test_a_failed_preparation_stops_everything_and_is_quoted(own_stack: Stack, options: list[str]) -> None:
    own_stack.environment = {"LAST_PREPARATION": "echo the schema is too new; exit 4"}
    starter = own_stack.start(*options)
    assert "last-preparation failed with exit code 4. Its last words: the schema is too new" in end_of(starter)
    assert starter.returncode == 1
    assert own_stack.processes() == []


def test_a_long_path_gets_a_short_socket_directory_that_is_removed(tmp_path: Path) -> None:
    stack = Stack(tmp_path.resolve() / ("d" * 100))
    supervisor = stack.start_and_wait()
    socket_directory = Path((stack.directory / "postgresql/socket-directory").read_text())
    with database_of(stack) as database:
        assert database.execute("SELECT 1").fetchone() == (1,)
    assert socket_directory.stat().st_mode & 0o777 == 0o700
    supervisor.terminate()
    supervisor.communicate(timeout=30)
    assert not socket_directory.exists()
    assert stack.processes() == []


def test_two_stacks_run_at_once(own_stack: Stack, tmp_path: Path) -> None:
    other = Stack(tmp_path.resolve() / "other")
    first, second = own_stack.start(), other.start()
    eventually(lambda: own_stack.is_up(first) and other.is_up(second))
    ours, theirs = ({process.pid for process in stack.processes()} for stack in (own_stack, other))
    assert ours
    assert not ours & theirs
    other.close()
    assert own_stack.ccat("status").exit_code == 0
