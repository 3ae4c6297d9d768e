"""The local backend: jobs as processes of this host."""

import contextlib
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from redis import Redis

from ccat_service.processes import boot_id
from ccat_workflow_manager.hpc.base import (
    GIGABYTE,
    BackendUnavailable,
    Capacity,
    JobObservation,
    JobSpec,
    JobState,
)
from ccat_workflow_manager.hpc.local.cgroups import ControlGroups
from ccat_workflow_manager.hpc.local.files import Job, JobFiles
from ccat_workflow_manager.hpc.local.host import host_memory_gb
from ccat_workflow_manager.hpc.local.launching import launch
from ccat_workflow_manager.hpc.local.marks import JobRecord
from ccat_workflow_manager.hpc.local.queue import JobQueue, Slots, Standing
from ccat_workflow_manager.hpc.local.watching import Watch
from ccat_workflow_manager.hpc.logs import follow, tail
from ccat_workflow_manager.hpc.refusing import refuse_malformed, refuse_too_large

_NEXT: Final = "it is about to start"
_LATE: Final = "it was to start and did not; it is started again: has its directory room, and can it be written?"


class LocalBackend:
    """Runs jobs on this host in slots of CPU and memory, highest priority first, and the first is never overtaken.

    Without `memory_gb` jobs may hold all the memory that this host has.

    A job belongs to no process of ours: workers may be killed and replaced at any moment. Workers that share `base`
    and Redis share the slots, and any of them sees every job. `grace` is the time between SIGTERM and SIGKILL of a
    cancelled job. A job whose starter died before it started is started again after `restart_after`.

    A job that uses more memory than it asked for is killed by whoever observes, who looks twice a second, and before by
    the kernel, where `cgroup` is a directory of control groups (version 2, with the memory controller) that is ours.
    The slots of a job are free once its first process has ended; what it leaves behind is killed with the next look,
    before the job counts as finished.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        base: Path,
        cpus: int,
        memory_gb: float | None = None,
        cgroup: Path | None = None,
        grace: timedelta = timedelta(seconds=10),
        restart_after: timedelta = timedelta(seconds=5),
    ) -> None:
        self._host = socket.gethostname()
        self._slots = Slots.of(cpus, memory_gb or host_memory_gb())
        self._grace = grace
        self._restart_after = restart_after
        self._files = JobFiles(base)
        self._cgroups = ControlGroups.in_directory(cgroup)
        self._watch = Watch(self._files, host=self._host, grace=grace, cgroups=self._cgroups)
        self._pool = sha256(os.fsencode(base.resolve())).hexdigest()[:8]
        self._queue = JobQueue(redis, prefix=self._prefix(self._host), slots=self._slots)
        self._ended: set[str] = set()
        """Jobs whose slots are free again, and that nobody has looked at since."""
        self._late: set[str] = set()
        """Jobs that had slots and did not start, as long as they do not."""

    def submit(self, spec: JobSpec) -> str:
        """Record a job, then start what fits; it may be this one. Its id is its name."""
        refuse_malformed(spec)
        refuse_too_large(spec, cpus=self._slots.cpus, memory_gb=self._slots.memory_gb)
        record = self._files.keep(spec, host=self._host) or self._files.record(spec.name)
        if record is not None and not self._files.has_started(record):
            self._turn(new=record)
        return spec.name

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        """Look at jobs, kill what a job leaves behind, and start what fits; nothing without Redis or the disk."""
        try:
            return self._observe(job_ids, self._standing())
        except (BackendUnavailable, OSError) as error:
            return {name: _waiting(seen, str(error)) for name, seen in self._watch.look(job_ids).items()}

    def find(self, names: Collection[str]) -> Mapping[str, str]:
        """Return the id of every job that was ever submitted under one of these names."""
        return {name: name for name in names if self._files.record(name) is not None}

    def cancel(self, job_ids: Collection[str]) -> None:
        """Keep waiting jobs from ever starting, and send SIGTERM to running ones; SIGKILL follows after the grace.

        Raises OSError, once all others are asked, where the disk has no room to keep a waiting one from starting.
        """
        live = [job for name in job_ids if (job := self._watch.read(name)) and not job.has_ended]
        waiting, trouble = self._forestall([job for job in live if not job.has_started])
        running = [job for job in live if job.name not in waiting and job.name not in trouble]
        self._watch.ask_to_end([job.name for job in running if self._files.mark_cancelled(job)])
        self._watch.look(job_ids)
        self._turn(over=waiting)
        for error in trouble.values():
            raise error

    def logs(self, job_id: str, *, lines: int = 50) -> str:
        """Return the last lines of standard output and errors; nothing where the job wrote none."""
        return tail(self._outputs(job_id), lines=lines)

    def follow(self, job_id: str, *, lines: int = 50) -> Iterator[str]:
        """Give the last lines of standard output and errors, then what comes, until the job is over."""
        return follow(self._outputs(job_id), is_over=partial(self._is_over, job_id), lines=lines)

    def capacity(self) -> Capacity:
        """Say how many CPUs and how much memory jobs may hold here, and what none of them holds."""
        free = self._standing().free
        return Capacity(
            cpus=self._slots.cpus,
            memory_gb=self._slots.memory_gb,
            free_cpus=free.cpus,
            free_memory_gb=free.memory_gb,
        )

    def _forestall(self, jobs: Iterable[Job]) -> tuple[set[str], Mapping[str, OSError]]:
        """Keep jobs from starting: those that never will now, and with which there was trouble; others have started."""
        forestalled, trouble = set[str](), dict[str, OSError]()
        for job in jobs:
            try:
                forestalled |= {job.name} if self._files.forestall(job) else set()
            except OSError as error:
                trouble[job.name] = error
        return forestalled, trouble

    def _observe(self, job_ids: Collection[str], standing: Standing) -> Mapping[str, JobObservation]:
        self._files.require_disk()  # without, no job seems to have started
        waiting = {name for name in standing.waiting.intersection(job_ids) if self._has_not_started(name)}
        waiting -= standing.claims.keys()
        seen = self._watch.look({*job_ids, *standing.claims, *self._ended} - waiting)
        over = {name for name, one in seen.items() if one.is_over or self._files.record(name) is None}
        for name, claimed_at in standing.claims.items():
            if seen[name].state is JobState.PENDING and claimed_at < datetime.now(UTC) - self._restart_after:
                self._late.add(name)
                self._queue.renew(name)
                self._start(name)
        self._turn(over=[name for name in standing.claims if name in over])
        self._ended -= over
        self._give_up_strangers(seen)
        waits = JobObservation(state=JobState.PENDING, host=self._host, queue_reason=_reason(standing, self._slots))
        self._late &= {name for name, one in seen.items() if one.state is JobState.PENDING}
        return {name: _waiting(seen.get(name, waits), _LATE if name in self._late else _NEXT) for name in job_ids}

    def _give_up_strangers(self, seen: Mapping[str, JobObservation]) -> None:
        """Give up jobs that wait for a host where nobody starts any; the next look says so."""
        elsewhere = {name: one.host for name, one in seen.items() if one.state is JobState.PENDING}
        for name, host in elsewhere.items():
            record = self._files.record(name)
            if record and host and host != self._host and not self._queue.is_served(self._prefix(host)):
                self._give_up(record)

    def _give_up(self, record: JobRecord) -> None:
        with contextlib.suppress(OSError):  # tried again by whoever comes to it next
            self._files.give_up(record)

    def _prefix(self, host: str) -> str:
        return f"local:jobs:{host}:{self._pool}"

    def _standing(self) -> Standing:
        standing = self._queue.standing()
        if standing is None:
            self._restore()
            standing = self._queue.standing()
        if standing is None:
            raise BackendUnavailable("local", "Redis has started anew once more")
        return standing

    def _has_not_started(self, name: str) -> bool:
        record = self._files.record(name)
        return record is not None and not self._files.has_started(record)

    def _turn(self, *, over: Collection[str] = (), new: JobRecord | None = None) -> None:
        started = self._queue.turn(over=over, new=new)
        if started is None:
            self._restore()
            started = self._queue.turn(over=over, new=new)
        for name in started or ():
            self._start(name)

    def _restore(self) -> None:
        self._files.prune()
        jobs = [job for job in self._files.live() if job.record.host == self._host]
        self._ended |= {job.name for job in jobs if job.has_ended}
        self._queue.restore(
            waiting=[job.record for job in jobs if not job.has_started],
            started=[job.record for job in jobs if job.has_started and job.exit is None],
        )

    def _start(self, name: str) -> None:
        record = self._files.record(name)
        if record is None or self._files.has_started(record):
            return
        if record.boot_id not in {boot_id(), ""}:  # what was prepared for it may have been lost with the power
            self._give_up(record)
            return
        memory = int(record.spec.memory_gb * GIGABYTE)
        group = self._cgroups.open(name, memory=memory) if self._cgroups else None
        with contextlib.suppress(OSError):  # short of something: tried again when overdue
            launch(record.spec, grace=self._grace, cgroup=group, on_end=partial(self._hand_on, record))

    def _hand_on(self, record: JobRecord) -> None:
        """Give the slots of a job that has ended to the next one, without waiting until somebody looks."""
        name = record.spec.name
        self._ended.add(name)
        with contextlib.suppress(BackendUnavailable, OSError):  # left to whoever looks next
            if self._files.has_exited(record):
                self._turn(over=[name])

    def _outputs(self, job_id: str) -> list[Path]:
        record = self._files.record(job_id)
        return [record.spec.stdout, record.spec.stderr] if record else []

    def _is_over(self, job_id: str) -> bool:
        return self._files.record(job_id) is None or self._watch.look([job_id])[job_id].is_over


def _reason(standing: Standing, slots: Slots) -> str:
    """Why the queue does not move: what the first one waits for, as nobody overtakes it."""
    free, needs = standing.free, standing.next_needs or Slots(1, 0)
    short = []
    if needs.cpus > free.cpus:
        short.append(f"{free.cpus} of {slots.cpus} CPUs are free and the next job needs {needs.cpus}")
    if needs.memory_mb > free.memory_mb:
        gb = f"{free.memory_gb:g} of {slots.memory_gb:g} GB of memory"
        short.append(f"{gb} are free and the next job needs {needs.memory_gb:g}")
    return "; ".join(short) or _NEXT


def _waiting(seen: JobObservation, reason: str) -> JobObservation:
    """Give the reason, where there is none yet, why a job waits."""
    if seen.state is not JobState.PENDING or seen.queue_reason:
        return seen
    return replace(seen, queue_reason=reason)
