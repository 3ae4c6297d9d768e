"""What people are told with: a command, an address on the web, or both."""

import json
import os
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from http.client import HTTPException
from typing import Final
from urllib.parse import urlsplit

from ccat_ops_db.errors import CcatError
from ccat_service.retries import first_line

_PATIENCE: Final = timedelta(seconds=5)
"""With an address on the web."""
_COMMAND_PATIENCE: Final = timedelta(seconds=20)
_HANDED_ON: Final = ("PATH", "HOME", "LANG")
_OURS: Final = "CCAT_ALERT_"
"""Variables that begin so are for the command; the others, such as passwords, are none of its business."""
Channel = Callable[[Mapping[str, object]], None]
"""Takes a message, or raises HookFailed."""


class HookFailed(CcatError):
    """The hook did not take what it was given."""

    code = "hook_failed"
    transient = True

    def __init__(self, hook: str, problem: str) -> None:
        super().__init__(f"{hook} failed: {problem}")


@dataclass(frozen=True)
class Hook:
    """How to tell people."""

    command: Sequence[str] = ()
    webhook: str | None = None

    def __bool__(self) -> bool:
        return bool(self.command or self.webhook)

    @property
    def channels(self) -> Mapping[str, Channel]:
        """All that is configured, by the name of its setting."""
        found: dict[str, Channel] = {}
        if self.command:
            found["alert_command"] = partial(_run, self.command)
        if self.webhook:
            found["alert_webhook"] = partial(_post, self.webhook)
        return found


def _run(command: Sequence[str], message: Mapping[str, object]) -> None:
    handed_on = {key: value for key, value in os.environ.items() if key in _HANDED_ON or key.startswith(_OURS)}
    environment = {**handed_on, f"{_OURS}TEXT": str(message["text"])}
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=environment, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise HookFailed("alert_command", first_line(error)) from error
        code = _given(process, f"{json.dumps(message)}\n".encode())
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    if code:
        raise HookFailed("alert_command", f"it ended with {code}" + (f", saying {lines[-1]!r}" if lines else ""))


def _given(process: subprocess.Popen[bytes], text: bytes) -> int:
    """Exit code of a command that is given a text; one that takes too long is ended with all that it started."""
    try:
        process.communicate(text, timeout=_COMMAND_PATIENCE.total_seconds())
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        problem = f"it was not done within {_COMMAND_PATIENCE.total_seconds():g} s, and was ended"
        raise HookFailed("alert_command", problem) from None
    return process.returncode


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A message that is sent on becomes a question for a page, which is answered as if it had been heard."""

    def redirect_request(self, *request: object) -> None:
        """Refuse: the last of what is given is the address."""
        host = urlsplit(str(request[-1])).netloc.rpartition("@")[2]
        raise HookFailed("alert_webhook", f"it redirects to {host}; name that address")


def _post(address: str, message: Mapping[str, object]) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "ccat"}
    try:
        # Settings take http and https only.
        request = urllib.request.Request(address, json.dumps(message).encode(), headers)  # noqa: S310 - as said above
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=_PATIENCE.total_seconds()) as answer:
            answer.read(1)
    except (OSError, HTTPException, ValueError) as error:
        raise HookFailed("alert_webhook", first_line(error)) from error
