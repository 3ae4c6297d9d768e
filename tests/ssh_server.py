"""A real SSH server on loopback, which lets the account of the tests in by a key of its own."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.needs import give_up
from tests.service.support import free_port

_PATH: Final = f"{os.environ['PATH']}:/usr/sbin:/sbin"
"""Where daemons lie also for those who are not root."""
_PROGRAMS: Final = ("sshd", "ssh", "ssh-keygen", "rsync")
_SEPARATED: Final = Path("/run/sshd")
"""What sshd wants to be there when root starts it."""


@dataclass
class SshServer:
    """The server; its files lie in a directory of its own."""

    directory: Path
    port: int = field(default_factory=free_port)
    started_with: Sequence[str] = ()
    """Command that it is started with, as what takes rights away."""
    _daemon: "subprocess.Popen[bytes] | None" = None

    @property
    def shell(self) -> str:
        """What reaches it, as rsync is told it."""
        options = [
            *("-F", "none", "-i", str(self.directory / "key"), "-p", str(self.port)),
            *("-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={self.directory}/known"),
        ]
        return " ".join(["ssh", *options])

    @property
    def host(self) -> str:
        """The account and host that lets us in."""
        return f"{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1"

    def start(self) -> None:
        """Start it, and wait until it lets us in."""
        sshd = shutil.which("sshd", path=_PATH)
        assert sshd
        with (self.directory / "log").open("ab") as log:
            command = [*self.started_with, sshd, "-D", "-e", "-f", str(self.directory / "conf")]
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while subprocess.run([*self.shell.split(), self.host, "true"], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, (self.directory / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """End it; connections that are open live on."""
        if self._daemon:
            self._daemon.terminate()
            self._daemon.wait()
            self._daemon = None

    def write_files(self) -> None:
        """Make its keys and its settings."""
        for name in ("key", "host"):
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / name)]
            subprocess.run(make, check=True)
        public = (self.directory / "host.pub").read_text().split()[:2]
        (self.directory / "known").write_text(f"[127.0.0.1]:{self.port} {' '.join(public)}\n")
        settings = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": self.directory / "host",
            "AuthorizedKeysFile": self.directory / "key.pub",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "PidFile": "none",
        }
        (self.directory / "conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        if os.geteuid() == 0:
            _SEPARATED.mkdir(mode=0o755, exist_ok=True)


@contextmanager
def ssh_server(directory: Path, *, started_with: Sequence[str] = ()) -> Iterator[SshServer]:
    """A running server."""
    if missing := [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]:
        give_up(
            f"{', '.join(missing)} not found; apt-get install openssh-server rsync (tests start a server of their own)"
        )
    server = SshServer(directory, started_with=started_with)
    server.write_files()
    try:
        server.start()
        yield server
    finally:
        server.stop()
