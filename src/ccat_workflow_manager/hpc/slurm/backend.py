"""The Slurm backend."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Final

from ccat_service.logging import StructuredLogger
from ccat_workflow_manager.hpc.base import BackendUnavailable, Capacity, JobObservation, JobRefused, JobSpec, JobState
from ccat_workflow_manager.hpc.cluster.conclusion import PATIENCE
from ccat_workflow_manager.hpc.cluster.files import ClusterFiles
from ccat_workflow_manager.hpc.cluster.marks import JobRecord
from ccat_workflow_manager.hpc.logs import Throttled, follow, tail
from ccat_workflow_manager.hpc.refusing import refuse_malformed
from ccat_workflow_manager.hpc.slurm import commands
from ccat_workflow_manager.hpc.slurm.asking import NoAccounting, Slurm, SlurmRefuses, is_about_ended_jobs
from ccat_workflow_manager.hpc.slurm.commands import Cluster
from ccat_workflow_manager.hpc.slurm.hearing import has_ended
from ccat_workflow_manager.hpc.slurm.looking import Look
from ccat_workflow_manager.hpc.slurm.pacing import Pace
from ccat_workflow_manager.hpc.slurm.parsing import Row, parse_sacct, parse_sbatch, parse_sinfo, parse_squeue

_log = StructuredLogger(__name__)
_ANY: Final = Cluster()
_AT_ONCE: Final = 1000
"""Jobs that one command names; what is more waits for the next round."""
_NEXT_ROUND: Final = f"Slurm is asked how {_AT_ONCE} jobs ended at a time, and about this one in a moment"
_LOOKED_BACK: Final = timedelta(hours=1)
"""More than clocks differ."""


class SlurmBackend:
    """Runs jobs on a Slurm cluster whose nodes share `base` with us.

    The controller is asked for all jobs at once, and the accounting for those that have ended; how the software ended
    stands in its exit mark. So it works without accounting too, and jobs that Slurm has forgotten are known by it. What
    neither of them tells is unknown, and no failure.
    """

    def __init__(
        self,
        base: Path,
        *,
        cluster: Cluster = _ANY,
        pace: Pace | None = None,
        bundle_size: int = 1,
        jobs_per_task: int = 1,
        longest_bundled: timedelta = timedelta.max,
        grace: timedelta = timedelta(seconds=10),
        patience: timedelta = PATIENCE,
        slurm: Slurm | None = None,
    ) -> None:
        self._cluster = cluster
        self._pace = pace
        self._grace = grace
        self._slurm = slurm or Slurm()
        self._files = ClusterFiles(base, grace=grace)
        self._has_accounting = True
        self._jobs_per_task = jobs_per_task
        self._patience = patience
        self.bundle_size = bundle_size
        self.longest_bundled = longest_bundled

    def submit(self, spec: JobSpec) -> str:
        """Hand in a job and return its number; one that Slurm may have already is looked for before."""
        refuse_malformed(spec)
        known = self.find([spec.name]).get(spec.name)
        if known is not None:
            return known
        self._hold_pace()
        self._files.keep(spec, passed=commands.passed(spec))
        output = spec.directory / "job.slurm"
        command = commands.sbatch(spec, cluster=self._cluster, grace=self._grace, name=spec.name, output=output)
        number = self._sbatch(command, commands.batch_script(spec.directory), name=spec.name, jobs=[spec.name])
        return self._files.know(spec.name, number)

    def submit_bundle(self, name: str, specs: Sequence[JobSpec]) -> Mapping[str, str]:
        """Hand in jobs that ask for the same as one array, of which each task runs several one after the other."""
        for spec in specs:
            refuse_malformed(spec)
        self._hold_pace()
        places = [divmod(index, self._jobs_per_task) for index in range(len(specs))]
        for spec, (task, place) in zip(specs, places, strict=True):
            self._files.keep(spec, passed=commands.passed(spec), bundle=name, task=task, place=place)
        directories = self._files.keep_list(name, [spec.directory for spec in specs])
        command = commands.sbatch(
            specs[0],
            cluster=self._cluster,
            grace=self._grace,
            name=name,
            output=Path(os.devnull),
            tasks=places[-1][0] + 1,
            jobs_per_task=min(self._jobs_per_task, len(specs)),
        )
        script = commands.array_script(directories, jobs_per_task=self._jobs_per_task)
        number = self._sbatch(command, script, name=name, jobs=[spec.name for spec in specs])
        ids = {spec.name: f"{number}_{task}:{place}" for spec, (task, place) in zip(specs, places, strict=True)}
        return {job_name: self._files.know(job_name, job_id) for job_name, job_id in ids.items()}

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        """Look at jobs with one question to the controller and, where some have ended, one to the accounting."""
        self._files.prune()
        now = datetime.now(UTC)  # answers may take long, and are as old as the question
        looks = [Look.at(self._files, job_id) for job_id in job_ids]
        queued = self._queued()
        ended_first = sorted(looks, key=lambda one: not one.is_known_to_be_over(queued))
        over = list(dict.fromkeys(one.slurm_id for one in ended_first if one.may_be_over(queued)))
        accounted, trouble = self._accounted(over[:_AT_ONCE])  # jobs of one task of an array: one question
        waits = self._has_accounting and not trouble
        later = frozenset(over[_AT_ONCE:] if waits else ())
        if not trouble:  # else it may have ended, and only the accounting knows how
            told = [one for one in looks if one.slurm_id not in later]
            self._give_up_forgotten(told, queued, accounted, now=now)
        seen = {}
        for one in looks:
            if one.slurm_id in later:
                seen[one.job_id] = JobObservation(state=JobState.UNKNOWN, trouble=_NEXT_ROUND)
                continue
            rows = (queued.get(one.slurm_id), accounted.get(one.slurm_id))
            found = one.conclude(*rows, waits=waits, now=now, patience=self._patience)
            is_unknown = found.state is JobState.UNKNOWN and trouble
            seen[one.job_id] = replace(found, trouble=f"{found.trouble}; {trouble}") if is_unknown else found
        return seen

    def find(self, names: Collection[str]) -> Mapping[str, str]:
        """Return the number of every job that Slurm has, or had, under one of these names."""
        found, asked = dict[str, str](), list[JobRecord]()
        for name in names:
            record = self._files.record(name)
            if record is None:  # it is written down before Slurm hears of it
                continue
            known = self._files.id_of(name)
            if known is None and (known := self._started_as(record)):
                known = self._files.know(name, known)
            if known:
                found[name] = known
            else:
                asked.append(record)
        if asked:
            found |= self._look_for(asked)
        return found

    def cancel(self, job_ids: Collection[str]) -> None:
        """Keep waiting jobs from ever starting and ask running ones to end; whatever goes on after the grace is killed.

        The first process of a job asks its software once, and lives to write down how that ended. That of a task with
        several jobs sees by itself which of them is to be cancelled.
        """
        looks = [Look.at(self._files, job_id) for job_id in job_ids]
        wished = [(one, how) for one in looks if (how := self._wish(one))]
        queued = self._queued() if wished else {}  # a number may be that of another job by now
        for way in _Way:
            self._scancel([one.slurm_id for one, how in wished if how is way and one.row(queued)], way)

    def logs(self, job_id: str, *, lines: int = 50) -> str:
        """Return the last lines of standard output and errors; nothing where the job wrote none."""
        return tail(self._outputs(job_id), lines=lines)

    def follow(self, job_id: str, *, lines: int = 50) -> Iterator[str]:
        """Give the last lines of standard output and errors, then what comes, until the job is over."""
        return follow(self._outputs(job_id), is_over=Throttled(partial(self._is_over, job_id)), lines=lines)

    def capacity(self) -> Capacity:
        """Say how many CPUs jobs may have, and how many none has; what memory there is differs from node to node."""
        cpus = parse_sinfo(self._slurm.run(commands.sinfo(cluster=self._cluster)))
        all_cpus, idle = cpus or (None, None)
        return Capacity(cpus=all_cpus, memory_gb=None, free_cpus=idle, free_memory_gb=None)

    def _wish(self, one: Look) -> "_Way | None":
        """Write down that a job is to end, and say how Slurm is to be told; None where it is not."""
        if one.record is None or one.marks is None or one.marks.exit:
            return None
        is_alone = one.record.place is None
        try:
            is_first = self._files.mark_cancelled(one.record)
            never_starts = self._files.forestall(one.record) or one.marks.was_forestalled
        except OSError as error:  # a full disk is no reason to go on, and others are to end all the same
            _log.warning("the wish to end a job cannot be written down", job=one.job_id, error=str(error))
            is_first, never_starts = True, not one.marks.has_start
        if never_starts:
            return _Way.AT_ONCE if is_alone else None  # others of its task are to run
        if one.is_overdue(self._grace):
            return _Way.AT_ONCE
        return _Way.GENTLY if is_first and is_alone else None

    def _give_up_forgotten(
        self, looks: Sequence[Look], queued: Mapping[str, Row], accounted: Mapping[str, Row], *, now: datetime
    ) -> None:
        """Keep jobs from ever starting that Slurm does not know any more; the next look says that they are lost.

        A controller that was killed may have forgotten what it took in its last seconds. Patience is for the start mark
        of one that started, and was forgotten since: it may not be seen yet.
        """
        for one in looks:
            if one.row(queued) or has_ended(one.row(accounted)) or one.record is None:
                continue
            if one.marks and not one.marks.has_start and now - one.record.submitted_at > self._patience:
                try:
                    self._files.forestall(one.record)
                except OSError as error:  # it stays unknown
                    _log.warning("a job that Slurm forgot cannot be given up", job=one.job_id, error=str(error))

    def _hold_pace(self) -> None:
        if self._pace:
            self._pace.hold()

    def _sbatch(self, command: Sequence[str], script: str, *, name: str, jobs: Sequence[str]) -> str:
        try:
            said = self._slurm.run(command, given=script)
        except SlurmRefuses as error:
            self._files.forget(jobs)  # the accounting may have it all the same
            remedy = "change what the step asks for, or run it at another location"
            raise JobRefused(name, problem=f"Slurm says: {error.problem}", remedy=remedy) from error
        number = parse_sbatch(said)
        if number is None:  # it may have been taken
            raise BackendUnavailable("slurm", f"`sbatch` names no job: {said.strip()!r}")
        return number

    def _queued(self) -> Mapping[str, Row]:
        return parse_squeue(self._slurm.run(commands.squeue(user=str(os.geteuid()), cluster=self._cluster)))

    def _accounted(self, job_ids: Collection[str]) -> tuple[Mapping[str, Row], str | None]:
        """What the accounting says of jobs, or why nothing."""
        if not job_ids or not self._has_accounting:
            return {}, None
        try:
            return parse_sacct(self._slurm.run(commands.sacct(cluster=self._cluster, job_ids=job_ids))), None
        except NoAccounting:
            self._has_accounting = False
            return {}, None
        except BackendUnavailable as error:
            _log.warning("the accounting does not answer; exit marks alone tell how jobs ended", error=str(error))
            return {}, str(error)

    def _started_as(self, record: JobRecord) -> str | None:
        start = self._files.marks(record).start
        return start.id if start else None

    def _look_for(self, records: Sequence[JobRecord]) -> Mapping[str, str]:
        """Ask for jobs by the names under which Slurm would have them; raises where it cannot be told."""
        rows = list(self._queued().values())
        missing = {record.cluster_name for record in records} - {row.name for row in rows}
        if missing and self._has_accounting:
            since = min(record.submitted_at for record in records) - _LOOKED_BACK
            rows += self._accounted_by_name(sorted(missing), since=since)
        found = {}
        for record in records:
            ids = [row.job_id for row in rows if row.name == record.cluster_name and _task(row) == record.task]
            if ids:
                job_id = ids[-1] if record.place is None else f"{ids[-1]}:{record.place}"
                found[record.name] = self._files.know(record.name, job_id)
        return found

    def _accounted_by_name(self, names: Sequence[str], *, since: datetime) -> list[Row]:
        rows = list[Row]()
        for some in _at_once(names):
            question = commands.sacct(cluster=self._cluster, names=some, since=since)
            try:
                rows += parse_sacct(self._slurm.run(question)).values()
            except NoAccounting:
                self._has_accounting = False
                break
        return rows

    def _scancel(self, job_ids: Sequence[str], way: "_Way") -> None:
        for some in _at_once(job_ids):
            try:
                self._slurm.run(commands.scancel(some, cluster=self._cluster, gently=way is _Way.GENTLY))
            except BackendUnavailable as error:
                if not is_about_ended_jobs(str(error)):
                    raise

    def _outputs(self, job_id: str) -> list[Path]:
        record = self._files.with_id(job_id)
        return [record.stdout, record.stderr] if record else []

    def _is_over(self, job_id: str) -> bool:
        record = self._files.with_id(job_id)
        if record is None or self._files.marks(record).exit:
            return True
        return self.observe([job_id])[job_id].is_over


class _Way(Enum):
    """How Slurm is told that a job is to end."""

    AT_ONCE = auto()
    GENTLY = auto()


def _at_once(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many of them as one command names, and then the next."""
    return (names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE))


def _task(row: Row) -> int | None:
    _, is_array, index = row.job_id.partition("_")
    return int(index) if is_array and index.isdecimal() else None
