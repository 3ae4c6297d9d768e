"""The public commands, as a person or an instrument would give them: one process each."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

from ccat_ops_db.errors import CcatError
from ccat_ops_db.session import DatabaseUnreachable

_OUR_SETTINGS: Final = ("CCAT_", "ENV_FOR_DYNACONF")
_PATIENCE: Final = timedelta(seconds=60)
"""How long a database that is being restarted is waited for."""
_PAUSE: Final = timedelta(milliseconds=500)


class CommandFailed(CcatError):
    """A command did not do what it should."""

    code = "demo.command_failed"

    def __init__(self, command: list[str], *, exit_code: int, reason: str) -> None:
        super().__init__(f"`{shlex.join(command)}` ended with exit code {exit_code}: {reason}")


class Ccat:
    """The `ccat` command on one stack; no setting from outside reaches another installation through it."""

    def __init__(self, stack: Path) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith(_OUR_SETTINGS)}
        self._environment = {**own, "CCAT_DATA_DIR": str(stack), "CCAT_CONFIG": str(stack / "ccat.toml")}

    def show(self, *arguments: str, on_news: Callable[[str], None] | None = None) -> str:
        """What a command prints for people; what it says on the way goes line by line to `on_news`."""
        command = [sys.executable, "-m", "ccat", *arguments]
        exit_code, output, news = run(command, environment=self._environment, on_news=on_news)
        if exit_code:
            raise CommandFailed(["ccat", *arguments], exit_code=exit_code, reason=_reason(news))
        return output

    def ask(self, *arguments: str, on_news: Callable[[str], None] | None = None) -> Any:
        """What a command answers to programs; all that we ask may be asked again where the database was restarted."""
        command = [sys.executable, "-m", "ccat", *arguments, "--json"]
        deadline = time.monotonic() + _PATIENCE.total_seconds()
        while True:
            exit_code, output, news = run(command, environment=self._environment, on_news=on_news)
            if exit_code == 0:
                return json.loads(output)
            if _error(news).get("code") != DatabaseUnreachable.code or time.monotonic() > deadline:
                raise CommandFailed(["ccat", *arguments], exit_code=exit_code, reason=_reason(news))
            time.sleep(_PAUSE.total_seconds())


def run(
    command: list[str], *, environment: Mapping[str, str] | None = None, on_news: Callable[[str], None] | None = None
) -> tuple[int, str, list[str]]:
    """Exit code, output, and lines on stderr; an interrupt is passed on, so that the command ends in order.

    It runs in a session of its own: Ctrl-C at a terminal reaches it once, from here.
    """
    with (
        TemporaryFile("w+") as output,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            news = _follow(process.stderr, on_news)
            process.wait()
        except KeyboardInterrupt:
            _interrupt(process)
            raise
        output.seek(0)
        return process.returncode, output.read(), news


def _interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_PATIENCE.total_seconds())
    except subprocess.TimeoutExpired:
        process.kill()


def _follow(stream: IO[str] | None, on_news: Callable[[str], None] | None) -> list[str]:
    lines = []
    for line in stream or ():
        lines.append(line.rstrip("\n"))
        if on_news:
            on_news(lines[-1])
    return lines


def _error(news: list[str]) -> dict[str, Any]:
    try:
        error = json.loads(news[-1])
    except (IndexError, json.JSONDecodeError):
        return {}
    return error if isinstance(error, dict) else {}


def _reason(news: list[str]) -> str:
    last = next((line for line in reversed(news) if line.strip()), "it gave no reason")
    return str(_error([last]).get("message", last.removeprefix("error: ")))
