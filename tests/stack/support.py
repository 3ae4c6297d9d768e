"""Real stacks in data directories, and what tests ask about them."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import typer
from typer.testing import CliRunner, Result

from ccat.cli import stack as cli

Found = TypeVar("Found")

_PROGRAM = Path(__file__).parent / "programs" / "small_stack.py"
ALL = ["postgresql", "redis", "steady", "moody", "parent"]


def eventually(look: Callable[[], Found], *, within: float = 60) -> Found:
    """What `look` returns as soon as it is true, asked again and again until the deadline."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"{look} is still {found!r} after {within} s"
        time.sleep(0.01)
    return found


_commands = typer.Typer()
for _command in (cli.up, cli.down, cli.status):
    _commands.command()(_command)


@dataclass
class Stack:
    """A data directory, what is started in it, and the command line run on it."""

    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    supervisors: list[subprocess.Popen[str]] = field(default_factory=list)

    def ccat(self, verb: str, *options: str) -> Result:
        """`ccat VERB --data-dir DIRECTORY …`, not for an `up` that would succeed: that is `start`."""
        return CliRunner().invoke(_commands, [verb, "--data-dir", str(self.directory), *options])

    def start(self, *options: str) -> subprocess.Popen[str]:
        """A stack of small services, its output in a pipe."""
        command = [sys.executable, str(_PROGRAM), str(self.directory), *options]
        supervisor = subprocess.Popen(
            command,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.supervisors.append(supervisor)
        return supervisor

    def start_and_wait(self) -> subprocess.Popen[str]:
        supervisor = self.start()
        eventually(lambda: self.is_up(supervisor) or supervisor.poll() is not None)
        assert supervisor.poll() is None, supervisor.communicate()[0]
        return supervisor

    def is_up(self, supervisor: subprocess.Popen[str]) -> bool:
        state = self.state()
        return bool(state) and state["supervisor"]["pid"] == supervisor.pid and state["phase"] == "up"

    def close(self) -> None:
        """Stop what still runs."""
        for supervisor in self.supervisors:
            supervisor.terminate()
            end_of(supervisor)
        if self.processes():
            self.ccat("down")

    def state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads((self.directory / "run" / "stack.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def service(self, name: str) -> dict[str, Any]:
        return next(service for service in self.state()["services"] if service["name"] == name)

    def processes(self) -> list[psutil.Process]:
        """Living processes that carry the stack's mark, or work in its directory as the servers do."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def command_lines(self) -> list[list[str]]:
        """Of the same."""
        return [line for _, line in self._lines()]

    def running(self, command: str) -> list[psutil.Process]:
        """Those of the same that have this command line."""
        return [process for process, line in self._lines() if line == command.split()]

    def _lines(self) -> Iterator[tuple[psutil.Process, list[str]]]:
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                yield process, process.cmdline()

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            is_marked = process.environ().get("CCAT_STACK") == str(self.directory)
            return is_marked or self.directory in Path(process.cwd()).parents
        except (psutil.Error, OSError):
            return False


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def end_of(supervisor: subprocess.Popen[str]) -> str:
    """What it printed until its end; nothing when that was asked before."""
    return "" if supervisor.stdout and supervisor.stdout.closed else supervisor.communicate(timeout=60)[0]
