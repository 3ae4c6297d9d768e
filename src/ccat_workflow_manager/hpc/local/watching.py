"""Looking at local jobs: kills what has to end, measures memory, and settles what is over."""

import contextlib
import signal
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from ccat_workflow_manager.hpc.base import GIGABYTE, JobObservation, JobState
from ccat_workflow_manager.hpc.local.cgroups import ControlGroups
from ccat_workflow_manager.hpc.local.files import Job, JobFiles
from ccat_workflow_manager.hpc.local.host import uptime
from ccat_workflow_manager.hpc.local.marks import Limit
from ccat_workflow_manager.hpc.local.observation import Ending, Now, ending, interpret, passed_its_time
from ccat_workflow_manager.hpc.local.processes import Process, most_memory, processes_of, signal_all, used_memory

HELPERS: Final = frozenset({"timeout", "squashfuse_ll", "squashfuse", "fuse2fs", "fuse-overlayfs", "gocryptfs"})
"""Processes of a job that are no software: who ends it in time, and who keeps its image open until it has ended."""
_MEASURED_EVERY: Final = timedelta(milliseconds=500)

Found = Mapping[Path, Sequence[Process]]
"""The living processes of jobs, by the job's directory."""


class Watch:
    """One pair of eyes on the jobs of a base directory; any number of them do no harm to one another.

    A look costs a few calls of the file system for each job. Only where something has to end, or memory is to be
    measured, it goes once through the processes of the host.
    """

    def __init__(self, files: JobFiles, *, host: str, grace: timedelta, cgroups: ControlGroups | None) -> None:
        self._files = files
        self._host = host
        self._grace = grace
        self._cgroups = cgroups
        self._measured_at = float("-inf")

    def read(self, name: str) -> Job | None:
        """Look at the files of one job; None of one that is not known, or whose file system does not answer."""
        try:
            return self._files.read(name)
        except OSError:
            return None

    def look(self, names: Iterable[str]) -> Mapping[str, JobObservation]:
        """Look at jobs, and do to them what has to be done; UNKNOWN where nothing can be told."""
        now = Now(time=datetime.now(UTC), uptime=uptime(), host=self._host, grace=self._grace)
        jobs, unknown = self._read(names)
        self._mark_overtime(jobs.values(), now)
        ends = [(job, how) for job in jobs.values() if (how := ending(job, now))]
        measured = self._to_be_measured(jobs.values())
        found = _processes([*(job for job, _ in ends), *measured])
        for job in measured:
            self._hold_to_memory(job, found)
        for job, how in ends:
            signal_all(_victims(job, found, how), signal.SIGKILL)
        return {**unknown, **{name: self._conclude(job, found) for name, job in jobs.items()}}

    def _read(self, names: Iterable[str]) -> tuple[dict[str, Job], dict[str, JobObservation]]:
        """Look at the files of jobs; nothing is known of those without, or whose file system does not answer."""
        jobs, unknown = dict[str, Job](), dict[str, JobObservation]()
        for name in names:
            try:
                job = self._files.read(name)
            except OSError as error:
                unknown[name] = JobObservation(state=JobState.UNKNOWN, trouble=_told(error))
                continue
            if job:
                jobs[name] = job
            else:
                unknown[name] = JobObservation(state=JobState.UNKNOWN)
        return jobs, unknown

    def ask_to_end(self, names: Collection[str]) -> None:
        """Send SIGTERM to the software of running jobs, once: `timeout` would send it again."""
        jobs = [job for name in names if (job := self.read(name))]
        found = _processes(jobs)
        for job in jobs:
            software = [one for one in _victims(job, found, Ending.SOFTWARE) if one.name not in HELPERS]
            signal_all(software, signal.SIGTERM)

    def _mark_overtime(self, jobs: Iterable[Job], now: Now) -> None:
        for job in jobs:
            if job.limit is None and passed_its_time(job, now):
                self._mark_limit(job, Limit.TIME)

    def _mark_limit(self, job: Job, limit: Limit) -> None:
        with contextlib.suppress(OSError):  # tried again with the next look
            self._files.mark_limit(job, limit)

    def _to_be_measured(self, jobs: Iterable[Job]) -> list[Job]:
        now = time.monotonic()
        if now - self._measured_at < _MEASURED_EVERY.total_seconds():
            return []
        self._measured_at = now
        return [job for job in jobs if job.is_alive and job.exit is None and job.record.host == self._host]

    def hold_to_memory(self, job: Job) -> None:
        """Measure what a job uses, and kill its software for more than it may, without waiting for the next look."""
        self._hold_to_memory(job, _processes([job]))

    def _hold_to_memory(self, job: Job, found: Found) -> None:
        processes, limit = found.get(job.record.spec.directory, []), job.record.spec.memory_gb * GIGABYTE
        used = sum(one.resident for one in processes)
        if used > limit:  # what they share may have been counted many times
            used = used_memory(processes)
        with contextlib.suppress(OSError):  # measured again with the next look
            self._files.keep_peak(job, max(used, most_memory(processes)))
        if used > limit:
            self._mark_limit(job, Limit.MEMORY)
            signal_all(_victims(job, found, Ending.SOFTWARE), signal.SIGKILL)

    def _conclude(self, job: Job, found: Found) -> JobObservation:
        has_processes = bool(_victims(job, found, Ending.ALL if job.exit is None else Ending.SOFTWARE))
        if self._cgroups and job.has_ended and not has_processes and not job.is_settled:
            job = self._ask_the_kernel(job, self._cgroups)
        seen = interpret(job, has_processes=has_processes, host=self._host)
        if not seen.is_over or job.is_settled:
            return seen
        with contextlib.suppress(OSError):  # the next look says the same, and writes it down
            self._files.settle(job)
        settled = job if job.exit else self.read(job.name) or job
        return interpret(settled, has_processes=False, host=self._host)

    def _ask_the_kernel(self, job: Job, cgroups: ControlGroups) -> Job:
        """Note what the kernel counted of a job that is over, and let go of its group only then.

        Who dies in between leaves it to the next look; where there is no group any more, somebody else has noted it.
        """
        usage = cgroups.usage(job.name)
        if usage:
            with contextlib.suppress(OSError):  # without, its peak is what was sampled
                self._files.keep_peak(job, usage.peak)
            if usage.was_limited:
                self._mark_limit(job, Limit.MEMORY)
            cgroups.close(job.name)
        return self.read(job.name) or job


def _told(error: OSError) -> str:
    return f"{error.strerror}: {error.filename}" if error.filename else str(error)


def _processes(jobs: Sequence[Job]) -> Found:
    if not jobs:
        return {}
    return processes_of({job.record.spec.directory: job.start.process if job.start else None for job in jobs})


def _victims(job: Job, found: Found, how: Ending) -> list[Process]:
    first = job.start.process.pid if job.start and job.start.process else None
    processes = found.get(job.record.spec.directory, [])
    return [one for one in processes if how is Ending.ALL or one.pid != first]
