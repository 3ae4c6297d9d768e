"""One execution, by the same wrapper and under the same watch as a job of the local backend, without a queue."""

import errno
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Final

from ccat_workflow_manager.contract.orphans import Orphans, name_of
from ccat_workflow_manager.hpc.base import JobObservation, JobSpec
from ccat_workflow_manager.hpc.local.files import Job, JobFiles
from ccat_workflow_manager.hpc.local.host import uptime
from ccat_workflow_manager.hpc.local.launching import launch
from ccat_workflow_manager.hpc.local.observation import Now, ending
from ccat_workflow_manager.hpc.local.processes import Process, processes_of
from ccat_workflow_manager.hpc.local.watching import HELPERS, Watch

_LOOK_EVERY: Final = timedelta(milliseconds=20)
_LOOK_LATER: Final = timedelta(milliseconds=200)
"""A job that takes long is looked at less often."""
_DYING: Final = timedelta(milliseconds=500)
"""What the helpers of Apptainer, and children that were told to end, may take."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How an execution ended."""

    observation: JobObservation
    left_behind: Sequence[str]
    was_stopped: bool


class Runner:
    """Runs jobs on this host, one at a time, and keeps what it knows of them below a directory."""

    def __init__(self, base: Path, orphans: Orphans, *, grace: timedelta) -> None:
        self._files = JobFiles(base)
        self._orphans = orphans
        self._host = socket.gethostname()
        self._grace = grace
        self._watch = Watch(self._files, host=self._host, grace=grace, cgroups=None)

    def run(self, spec: JobSpec, *, stop_after: timedelta | None = None) -> Ended:
        """Run a job to its end, or ask for that after a while; whatever goes on after it is named, and killed."""
        self._files.keep(spec, host=self._host)
        over, began, was_stopped = Event(), time.monotonic(), False
        launch(spec, grace=self._grace, cgroup=None, on_end=over.set)
        while not over.wait(_pause(began)):
            job = self._read(spec.name)
            if stop_after is not None and not was_stopped and time.monotonic() - began > stop_after.total_seconds():
                was_stopped = self._ask_to_end(job)
            self._hold_to_limits(job)
        left = self._left_by(self._read(spec.name))
        self._orphans.kill()
        return Ended(observation=self._settled(spec.name), left_behind=left, was_stopped=was_stopped)

    def _read(self, name: str) -> Job:
        job = self._files.read(name)
        if job is None:
            raise FileNotFoundError(f"the record of {name} is gone: leave the directory of the test alone")
        return job

    def _ask_to_end(self, job: Job) -> bool:
        """Send SIGTERM as a cancellation does; False where there is no software to get it yet, or any more."""
        if all(one.name in HELPERS for one in self._software(job)):
            return False
        is_asked = self._files.mark_cancelled(job)
        self._watch.ask_to_end([job.name])
        return is_asked

    def _software(self, job: Job) -> Sequence[Process]:
        directory, first = job.record.spec.directory, job.start.process if job.start else None
        found = processes_of({directory: first}).get(directory, [])
        return [one for one in found if first is None or one.pid != first.pid]

    def _hold_to_limits(self, job: Job) -> None:
        """Measure memory oftener than the backend does, and kill for what it would kill for."""
        if job.start is None or job.has_ended:  # what goes on after its end is to be seen before it is killed
            return
        self._watch.hold_to_memory(job)
        now = Now(time=datetime.now(UTC), uptime=uptime(), host=self._host, grace=self._grace)
        if ending(job, now):
            self._watch.look([job.name])

    def _left_by(self, job: Job) -> Sequence[str]:
        until = time.monotonic() + _DYING.total_seconds()
        while (left := self._names_left(job)) and time.monotonic() < until:
            time.sleep(_LOOK_EVERY.total_seconds())
        return sorted(left)

    def _names_left(self, job: Job) -> set[str]:
        """What says that it is of the job, and what hides that but descends from it."""
        hidden = {name for one in self._orphans.living() if (name := name_of(one))}
        return {one.name for one in self._software(job)} | hidden

    def _settled(self, name: str) -> JobObservation:
        if not self._read(name).has_started:
            raise OSError(errno.EIO, "no job could be started: is its disk full?")
        while not (seen := self._watch.look([name])[name]).is_over:
            time.sleep(_LOOK_EVERY.total_seconds())
        return seen


def _pause(began: float) -> float:
    ran = timedelta(seconds=time.monotonic() - began)
    return min(max(_LOOK_EVERY, ran / 50), _LOOK_LATER).total_seconds()
