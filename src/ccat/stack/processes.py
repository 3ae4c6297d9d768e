"""Start and stop child processes so that none outlives its parent."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import psutil

from ccat.stack.errors import NotReady
from ccat.stack.forked import Life, fork
from ccat.stack.services import ServiceSpec
from ccat_service.processes import dying_with

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_PR_SET_CHILD_SUBREAPER = 36
_POLL = timedelta(milliseconds=20)
_KILL_PATIENCE = timedelta(seconds=10)


class Child(Protocol):
    """A child process, exec'ed or forked."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Exit code; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Exit code once it has ended; raises subprocess.TimeoutExpired."""

    def send_signal(self, number: int, /) -> None:
        """Send a signal, unless it has ended."""

    def kill(self) -> None:
        """End it at once."""


def start(spec: ServiceSpec, log: Path) -> Child:
    """Start a service in a session of its own, its output appended to `log`.

    The kernel sends it its stop signal when the calling thread ends, however that happens.
    """
    spec.before_start()
    if spec.call is not None:
        with log.open("a") as text:
            life = Life(
                call=spec.call,
                title=f"ccat {spec.name}",
                directory=spec.directory,
                environment={**_inherited(spec), **spec.environment},
                output=text,
                set_up=dying_with(os.getpid(), spec.stop_signal),
            )
            return fork(life)
    account = spec.account
    with log.open("ab") as output:
        return subprocess.Popen(
            spec.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=spec.directory,
            env={**_inherited(spec), **spec.environment},
            user=account and account.pw_uid,
            group=account and account.pw_gid,
            extra_groups=None if account is None else [],
            start_new_session=True,
            preexec_fn=dying_with(os.getpid(), spec.stop_signal),  # noqa: PLW1509 a death signal is set after fork and change of user
        )


def _inherited(spec: ServiceSpec) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(spec.forgets)}


def stop(*services: tuple[Child, ServiceSpec]) -> None:
    """End services together: each gets its stop signal, and SIGKILL when its patience is over."""
    begin = time.monotonic()
    for process, spec in services:
        process.send_signal(spec.stop_signal)
    for process, spec in services:
        left = begin + spec.stop_within.total_seconds() - time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(left, 0))
        process.kill()
        process.wait()


def kill_group(leader: int) -> None:
    """Kill the helpers of a service that died, before they meet its successor; what has its own session lives on."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def wait_until_ready(process: Child, spec: ServiceSpec, log: Path) -> None:
    """Return when the service serves; raise NotReady when it ends or takes too long."""
    deadline = time.monotonic() + spec.ready_within.total_seconds()
    while not spec.is_ready(process.pid):
        if (code := process.poll()) is not None:
            raise NotReady(spec.name, what=describe_end(code), log=log)
        if time.monotonic() > deadline:
            raise NotReady(spec.name, what=f"took more than {spec.ready_within.total_seconds():g} s", log=log)
        time.sleep(_POLL.total_seconds())


@contextlib.contextmanager
def running(spec: ServiceSpec, log: Path) -> Iterator[Child]:
    """A service that is ready inside the `with` block and gone after it."""
    process = start(spec, log)
    try:
        wait_until_ready(process, spec, log)
        yield process
    finally:
        stop((process, spec))


def describe_end(returncode: int) -> str:
    """An exit code in words."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    return f"was killed by {signal.Signals(-returncode).name}"


def adopt_orphans() -> None:
    """From now on a process whose parent dies becomes our child if it descends from us, even from its own session."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def bury_orphans(ours: set[int]) -> None:
    """Collect the exit codes of ended children that we adopted; those of `ours` wait for who started them."""
    while ended := _next_ended():
        if ended in ours:
            return  # its owner collects it first; the next call sees what is behind it
        os.waitpid(ended, 0)


def _next_ended() -> int | None:
    with contextlib.suppress(ChildProcessError):
        result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return result.si_pid if result else None
    return None


def kill_descendants() -> None:
    """Leave no child, adopted ones included, nor what they start while we are at it."""
    deadline = time.monotonic() + _KILL_PATIENCE.total_seconds()
    while (descendants := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        kill(descendants)
        bury_orphans(set())


def working_in(directory: Path, program: str) -> list[psutil.Process]:
    """Processes of this program whose working directory this is."""
    return [process for process in psutil.process_iter() if _works_in(process, directory, program)]


def _works_in(process: psutil.Process, directory: Path, program: str) -> bool:
    try:
        return process.name() == program and Path(process.cwd()) == directory
    except psutil.Error:
        return False


def forked_in(directory: Path) -> list[psutil.Process]:
    """Processes of ours that were forked and work in this directory."""
    return [process for process in psutil.process_iter() if _is_forked_in(process, directory)]


def _is_forked_in(process: psutil.Process, directory: Path) -> bool:
    try:
        return " ".join(process.cmdline()).startswith("ccat ") and Path(process.cwd()) == directory
    except psutil.Error:
        return False


def marked(variable: str, value: str) -> list[psutil.Process]:
    """Processes that inherited this variable from us or from one who was killed; never ourselves or our parents."""
    me = psutil.Process()
    spared = {me, *me.parents()}
    return [one for one in psutil.process_iter() if one not in spared and _environment_of(one).get(variable) == value]


def _environment_of(process: psutil.Process) -> Mapping[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def end(processes: Iterable[psutil.Process], *, within: timedelta) -> None:
    """SIGTERM them, and SIGKILL who is still there when the time is over."""
    doomed = list(processes)
    _signal(doomed, signal.SIGTERM)
    _wait_until_gone(doomed, within)
    kill(doomed)


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL them and wait until they are gone."""
    doomed = list(processes)
    _signal(doomed, signal.SIGKILL)
    _wait_until_gone(doomed, _KILL_PATIENCE)


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def _wait_until_gone(processes: Iterable[psutil.Process], within: timedelta) -> None:
    deadline = time.monotonic() + within.total_seconds()
    while any(map(_runs, processes)) and time.monotonic() < deadline:
        time.sleep(_POLL.total_seconds())


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
