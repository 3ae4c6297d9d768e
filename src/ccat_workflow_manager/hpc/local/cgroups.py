"""Memory limits by the kernel: a control group for each job, below a directory that was delegated to us."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ccat_service.logging import StructuredLogger

_log = StructuredLogger(__name__)


@dataclass(frozen=True)
class Usage:
    """What the kernel counted of one job."""

    peak: int
    was_limited: bool


class ControlGroups:
    """The control groups of jobs in one directory, of version 2."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @classmethod
    def in_directory(cls, directory: Path | None) -> Self | None:
        """Control groups below a directory; None, and memory is sampled instead, where it gives none to us."""
        if directory is None:
            return None
        try:
            _enable_memory(directory)
        except OSError as error:
            _log.warning("no control groups for jobs, their memory is sampled", directory=directory, error=str(error))
            return None
        return cls(directory)

    def open(self, name: str, *, memory: int) -> Path | None:
        """Make the group of a job, which ends as a whole if it needs more memory; None if that cannot be done."""
        group = self._directory / name
        try:
            group.mkdir(exist_ok=True)
            (group / "memory.max").write_text(str(memory))
            (group / "memory.oom.group").write_text("1")
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                (group / "memory.swap.max").write_text("0")
        except OSError:
            return None
        return group

    def usage(self, name: str) -> Usage | None:
        """Tell what was counted of a job; None if it has no group, or has none any more."""
        group = self._directory / name
        try:
            events = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
            return Usage(_peak(group), was_limited=int(events.get("oom_kill", 0)) > 0)
        except FileNotFoundError:
            return None

    def close(self, name: str) -> None:
        """Remove the group of a job that is over, and with it what was counted."""
        with contextlib.suppress(OSError):  # it stays, empty
            (self._directory / name).rmdir()


def _enable_memory(directory: Path) -> None:
    control = directory / "cgroup.subtree_control"
    if "memory" not in control.read_text().split():
        control.write_text("+memory")


def _peak(group: Path) -> int:
    try:
        return int((group / "memory.peak").read_text())
    except FileNotFoundError:  # a kernel before 5.19
        return 0
