"""The processes of data transfer, as `ccat` starts them, each with a log of its own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ccat_service.servers import RedisSettings

CCAT = (sys.executable, "-m", "ccat")


class Process:
    """A command that runs until it is told to end."""

    def __init__(self, command: Sequence[str | Path], variables: Mapping[str, str], *, log: Path) -> None:
        self._log = log
        self._begin = log.stat().st_size if log.exists() else 0
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("CCAT_", "AWS_"))}
        with log.open("a") as output:
            self._process = subprocess.Popen(
                command, env=inherited | dict(variables), stdout=output, stderr=output, cwd=log.parent
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def signs(self, name: str) -> str:
        """What it signs moves with, where it runs under this name."""
        return f"{name}@{socket.gethostname()}:{self.pid}"

    def has_started(self) -> bool:
        assert self._process.poll() is None, self.log()
        return "started" in self.log()

    def log(self) -> str:
        """What it wrote, without what others did before it under the same name."""
        return self._log.read_bytes()[self._begin :].decode()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """End it as an operator does."""
        self._process.terminate()
        assert self._process.wait(15) == 0, self.log()

    def end(self) -> None:
        """Whatever became of it, it runs no more."""
        if self._process.poll() is None:
            self.kill()


def settings_of(url: str, redis: RedisSettings, component: str = "DATA_TRANSFER") -> dict[str, str]:
    """Variables that tell a component where the operations database and Redis are."""
    password = redis.redis_password.get_secret_value() if redis.redis_password else ""
    prefix = f"CCAT_{component}_REDIS"
    where = {f"{prefix}_HOST": redis.redis_host, f"{prefix}_PORT": str(redis.redis_port)}
    return {"CCAT_OPS_DB_URL": url, "CCAT_LOG": "json", f"{prefix}_PASSWORD": password, **where}
