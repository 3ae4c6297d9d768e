"""Which process of which host it was, so that whoever comes after can tell for certain that it is gone."""

import ctypes
import os
import re
import signal
import socket
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

_PROC: Final = Path("/proc")
_ENDED: Final = frozenset({b"Z", b"X"})
_CLAIMANT: Final = re.compile(r"\[(?P<pid>\d+)\.(?P<start_ticks>\d+)\.(?P<world>[0-9a-f]{8})\]")
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_PR_SET_PDEATHSIG: Final = 1


class ProcessIdentity(BaseModel):
    """One process for certain: a pid alone is given to another process sooner or later."""

    model_config = ConfigDict(frozen=True)

    pid: int
    start_ticks: int
    """Clock ticks between the start of the machine and that of the process."""
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The identity of a living process of this host; a zombie is none."""
        ticks = _start_ticks(pid)
        return None if ticks is None else cls(pid=pid, start_ticks=ticks, boot_id=boot_id())

    def is_alive(self) -> bool:
        """Whether exactly this process still runs."""
        return self.boot_id == boot_id() and _start_ticks(self.pid) == self.start_ticks


@cache
def boot_id() -> str:
    """Id of this boot of the host."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def claimant(name: str) -> str:
    """`name`, and which process it is: what a claim is signed with."""
    pid = os.getpid()
    return f"{name} [{pid}.{_start_ticks(pid)}.{_world()}]"


def is_gone(claimed_by: str) -> bool:
    """Whether the process that signed a claim is certainly dead; of another host or container nobody can tell."""
    found = _CLAIMANT.search(claimed_by)
    if found is None or found["world"] != _world():
        return False
    return _start_ticks(int(found["pid"])) != int(found["start_ticks"])


def dying_with(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    """What a child of `parent` does before it becomes a program, so that it ends with the thread that started it.

    The kernel sends it `death_signal` then, whatever that thread ended of.
    """

    def set_up_child() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return set_up_child


def _world() -> str:
    """Digest of where pids mean what they mean to us: this boot of this host, and this container of it."""
    namespace = Path("/proc/self/ns/pid").readlink()
    return sha256(f"{socket.gethostname()} {boot_id()} {namespace}".encode()).hexdigest()[:8]


def _start_ticks(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 asked for every running job, ten times a second
            stat = file.read()
    except OSError:
        return None
    state, *fields = stat.rpartition(b") ")[2].split()  # the name in front may contain anything
    return None if state in _ENDED else int(fields[18])
