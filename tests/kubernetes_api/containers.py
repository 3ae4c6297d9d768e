"""Containers as the tests have them: real processes in a session of their own, held to the memory of the pod."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

_EXPANDED = re.compile(r"\$(\$|\(([-._a-zA-Z0-9]+)\))")
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Container:
    """A container that was started."""

    process: "subprocess.Popen[bytes]"
    log: Path
    memory_limit: int | None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ran_out_of_memory: bool = False
    killed_at: float | None = None
    """When what is left is killed, on the monotonic clock."""

    @classmethod
    def start(
        cls, command: Sequence[str], environment: Mapping[str, str], *, log: Path, memory: int | None
    ) -> "Container":
        """Start a command with this environment alone. Raises OSError where it cannot be started."""
        words = [expand(word, environment) for word in command]
        with log.open("wb") as output:
            process = subprocess.Popen(
                words,
                env=dict(environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, log, memory)

    def ask_to_end(self, *, grace: float) -> None:
        """Send SIGTERM to the first process, once, and have what is left killed after the grace."""
        if self.killed_at is None:
            self.killed_at = time.monotonic() + grace
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End all its processes by SIGKILL, and wait until they have."""
        deadline = time.monotonic() + 10
        while members := [pid for pid, (session, _) in processes().items() if session == self.process.pid]:
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert time.monotonic() < deadline, f"processes {members} cannot be killed"
            time.sleep(0.001)
        self.process.wait()

    def code(self) -> int | None:
        """The exit code once its first process has ended, which ends the others."""
        if self.killed_at is not None and time.monotonic() > self.killed_at:
            self.kill()
        code = self.process.poll()
        if code is None:
            return None
        self.kill()
        return code if code >= 0 else 128 - code

    def hold_to_memory(self, known: Mapping[int, tuple[int, int]]) -> None:
        """End it, all at once, where its processes together hold more than they may."""
        used = sum(pages for session, pages in known.values() if session == self.process.pid) * _PAGE_SIZE
        if self.memory_limit is not None and used > self.memory_limit:
            self.ran_out_of_memory = True
            self.kill()


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Put in what `$(NAME)` stands for, as Kubernetes does: an unknown name stays as it is, and `$$` is one `$`."""

    def value(found: "re.Match[str]") -> str:
        return "$" if found[1] == "$" else environment.get(found[2], found[0])

    return _EXPANDED.sub(value, text)


def processes() -> dict[int, tuple[int, int]]:
    """Session and resident pages of every living process."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = Path(entry.path, "stat").read_bytes().rpartition(b") ")[2].split()
                if fields[0] not in {b"Z", b"X"}:
                    found[int(entry.name)] = int(fields[3]), int(fields[21])
    return found
