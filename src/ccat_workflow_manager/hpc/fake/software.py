"""What the jobs of the fake backend are: nothing but a file, a real command, or what a test says."""

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ccat_service.processes import ProcessIdentity
from ccat_workflow_manager.hpc.base import JOB_VARIABLE, JobSpec
from ccat_workflow_manager.hpc.local.processes import Process, processes_of, signal_all, used_memory

_NOT_FOUND: Final = 127
_BY_SIGNAL: Final = 128
"""Beyond this, an exit code is a signal: the shell's convention."""


class Running(Protocol):
    """Software at work."""

    def exit_code(self) -> int | None:
        """Return how it ended; None as long as it runs."""
        ...

    def memory(self) -> int | None:
        """Return the bytes of memory that it uses, where that is known."""
        ...

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; whatever is left of it gets SIGKILL even after its end."""
        ...


@dataclass
class Scripted:
    """Software that ends when somebody says how; every signal but SIGKILL is ignored if it is deaf."""

    code: int | None = None
    used: int | None = None
    is_deaf: bool = False

    def exit_code(self) -> int | None:
        """Return what it was told."""
        return self.code

    def memory(self) -> int | None:
        """Return what it was told."""
        return self.used

    def send(self, number: signal.Signals) -> None:
        """End by the signal."""
        if self.code is None and (number is signal.SIGKILL or not self.is_deaf):
            self.code = _BY_SIGNAL + number


def write_one_file(spec: JobSpec) -> Running:
    """Succeed at once, with one small file where products go: the cost of a job that is none."""
    (Path(spec.environment["WORKFLOW_OUTPUT_DIR"]) / "file").write_text("x\n")
    return Scripted(code=0)


def run_command(spec: JobSpec) -> Running:
    """Run the command of the job as a child of this process."""
    with spec.stdout.open("ab") as stdout, spec.stderr.open("ab") as stderr:
        try:
            return _Command(spec, _open(spec, stdout.fileno(), stderr.fileno()))
        except OSError as error:
            stderr.write(f"{spec.command[0]}: {error.strerror}\n".encode())
            return Scripted(code=_NOT_FOUND)


def _open(spec: JobSpec, stdout: int, stderr: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        spec.command,
        env={**spec.environment, JOB_VARIABLE: str(spec.directory)},
        cwd=spec.working_directory,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


class _Command:
    """A command in a session of its own."""

    def __init__(self, spec: JobSpec, process: "subprocess.Popen[bytes]") -> None:
        self._directory = spec.directory
        self._process = process
        self._leader = ProcessIdentity.of(process.pid)

    def exit_code(self) -> int | None:
        code = self._process.poll()
        return code if code is None or code >= 0 else _BY_SIGNAL - code

    def memory(self) -> int | None:
        return used_memory(self._processes())

    def send(self, number: signal.Signals) -> None:
        signal_all(self._processes(), number)

    def _processes(self) -> list[Process]:
        return list(processes_of({self._directory: self._leader}).get(self._directory, []))
