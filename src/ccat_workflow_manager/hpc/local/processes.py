"""Which processes of this host belong to jobs, and how much memory they use."""

import contextlib
import os
import re
import signal
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ccat_service.processes import ProcessIdentity, boot_id
from ccat_workflow_manager.hpc.base import JOB_VARIABLE

_PROC: Final = Path("/proc")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_ENDED: Final = frozenset({b"Z", b"X"})


@dataclass(frozen=True)
class Process:
    """A living process at one look."""

    pid: int
    name: str
    session: int
    start_ticks: int
    resident: int
    """Bytes of memory that it holds, those that it shares with others included."""


def processes_of(jobs: Mapping[Path, ProcessIdentity | None]) -> Mapping[Path, list[Process]]:
    """Return the living processes of jobs, given as directory and first process: one look at the whole host.

    A process belongs to a job if it carries its variable, or carries none and is in the session that the job's first
    process led. A session's number is given to another one only when the last of its processes has ended.
    """
    oldest = min((_started(identity) for identity in jobs.values()), default=0)
    running = {one.pid: one for one in _processes()}
    sessions = {
        identity.pid: directory
        for directory, identity in jobs.items()
        if identity is not None and _may_lead(identity, running.get(identity.pid))
    }
    found: dict[Path, list[Process]] = defaultdict(list)
    for one in running.values():
        if one.start_ticks >= oldest:
            directory = _directory(one.pid) or sessions.get(one.session)
            if directory is not None and directory in jobs:
                found[directory].append(one)
    return found


def signal_all(processes: Iterable[Process], number: signal.Signals) -> None:
    """Send a signal to processes, some of which may have gone meanwhile."""
    for one in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or gone and followed by somebody else's
            os.kill(one.pid, number)


def used_memory(processes: Iterable[Process]) -> int:
    """Return the bytes that processes use together, what they share counted once where the kernel tells; dear."""
    return sum(_kilobytes(one, "smaps_rollup", "Pss") or one.resident for one in processes)


def most_memory(processes: Iterable[Process]) -> int:
    """Return the most bytes that any one of these processes has used so far."""
    return max((_kilobytes(one, "status", "VmHWM") for one in processes), default=0)


def _started(identity: ProcessIdentity | None) -> int:
    return identity.start_ticks if identity is not None and identity.boot_id == boot_id() else 0


def _may_lead(leader: ProcessIdentity, running: Process | None) -> bool:
    """Whether the session that carries the number of this leader is still its own."""
    return leader.boot_id == boot_id() and (running is None or running.start_ticks == leader.start_ticks)


def _processes() -> Iterator[Process]:
    for name in os.listdir(_PROC):  # noqa: PTH208 names are all that is needed, of every process of the host
        if name.isdecimal():
            stat = _read(f"/proc/{name}/stat")
            before, _, rest = stat.rpartition(b") ")  # the name in front may be anything
            state, *fields = rest.split()[:22] or [b"X"]
            if state not in _ENDED:
                called = os.fsdecode(before.partition(b" (")[2])
                yield Process(int(name), called, int(fields[2]), int(fields[18]), int(fields[20]) * _PAGE)


def _directory(pid: int) -> Path | None:
    """The directory of the job of which a process says that it belongs to it."""
    wanted = f"{JOB_VARIABLE}=".encode()
    environment = _read(f"/proc/{pid}/environ")
    value = next((entry for entry in environment.split(b"\0") if entry.startswith(wanted)), None)
    return None if value is None else Path(os.fsdecode(value.removeprefix(wanted)))


def _kilobytes(one: Process, file: str, key: str) -> int:
    found = re.search(rb"^%s:\s+(\d+) kB$" % key.encode(), _read(f"/proc/{one.pid}/{file}"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _read(path: str) -> bytes:
    """Content of a file of the kernel; nothing where its process has gone, or is somebody else's."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return b"".join(iter(lambda: os.read(file, 1 << 16), b""))
    except OSError:
        return b""
    finally:
        os.close(file)
