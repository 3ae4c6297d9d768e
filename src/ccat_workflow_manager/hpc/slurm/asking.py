"""Running Slurm's commands, and telling what their errors mean."""

import os
import socket
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from ccat_ops_db.errors import CcatError
from ccat_workflow_manager.hpc.base import BackendUnavailable

_OURS: Final = ("PATH", "HOME", "USER", "LOGNAME", "SLURM_CONF", "SLURM_JWT", "LD_LIBRARY_PATH")
_FIXED: Final = {"LC_ALL": "C", "TZ": "UTC0", "SLURM_TIME_FORMAT": "standard"}
"""Slurm tells times in the zone of who asks."""
_ACCOUNTING_OFF: Final = "accounting storage is disabled"
_NEVER: Final = (
    *("invalid account", "invalid qos", "invalid partition", "invalid feature", "invalid constraint"),
    *("invalid generic resource", "invalid trackable resource", "invalid job array", "invalid node count"),
    *("node configuration is not available", "partition configuration not available", "time limit is invalid"),
    *("time limit specification", "memory specification can not", "more processors requested than permitted"),
    *("node count specification invalid", "group not permitted", "access/permission denied", "unrecognized option"),
    *("invalid wckey", "too long", "user not allowed", "job size specification", "invalid gres"),
    *("no partition specified", "gres option unsupported", "cpu count specification invalid", "invalid numeric value"),
)
"""What `sbatch` says of jobs that it would refuse again. All else may pass: also limits on how many jobs may wait."""
_FAILED: Final = "Batch job submission failed"


class NoAccounting(CcatError):
    """The cluster keeps no accounts of jobs."""

    code = "no_accounting"

    def __init__(self) -> None:
        super().__init__("this Slurm keeps no accounts of jobs")


class SlurmRefuses(CcatError):
    """Slurm will not do what it was asked for, however often it is asked."""

    code = "slurm_refuses"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Slurm:
    """Slurm's commands on this host; none of them is waited for longer than `patience`."""

    def __init__(self, *, patience: timedelta = timedelta(seconds=30)) -> None:
        self._patience = patience.total_seconds()
        self._environment = {name: os.environ[name] for name in _OURS if name in os.environ} | _FIXED

    def run(self, command: Sequence[str], *, given: str = "") -> str:
        """Return what a command prints. Raises BackendUnavailable, SlurmRefuses or NoAccounting."""
        program = command[0]
        try:
            done = subprocess.run(
                command,
                input=given,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self._patience,
                env=self._environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise BackendUnavailable("slurm", f"`{program}` did not answer within {self._patience:g} s") from None
        except OSError as error:
            problem = f"`{program}` cannot be run on {socket.gethostname()}: {error.strerror}; install Slurm's commands"
            raise BackendUnavailable("slurm", problem) from error
        if done.returncode != 0:
            raise trouble_of(program, done.stderr or done.stdout, code=done.returncode)
        return done.stdout


def trouble_of(program: str, said: str, *, code: int) -> CcatError:
    """Return the error that a command's last words stand for."""
    if _ACCOUNTING_OFF in said.lower():
        return NoAccounting()
    lines = [line.partition("error: ")[2] or line for line in said.splitlines() if line.strip()]
    problem = "; ".join(dict.fromkeys(line.strip() for line in lines)) or f"exit code {code}"
    if program == "sbatch" and any(words in _verdict(lines) for words in _NEVER):
        return SlurmRefuses(problem)
    return BackendUnavailable("slurm", f"`{program}` says: {problem}")


def _verdict(lines: Sequence[str]) -> str:
    """What `sbatch` says of the job where it says so, without what a cluster's own plugins say to everybody.

    Who is told of a time-out may have a job all the same, whatever stands beside it.
    """
    failed = [line for line in lines if _FAILED in line]
    return " ".join(failed or lines).lower()


def is_about_ended_jobs(said: str) -> bool:
    """Whether a command complains only that jobs have ended, or are forgotten."""
    return any(words in said.lower() for words in ("invalid job id", "already completing", "already completed"))
