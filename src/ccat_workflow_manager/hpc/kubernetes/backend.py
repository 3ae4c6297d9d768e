"""The Kubernetes backend."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from ccat_workflow_manager.hpc.base import (
    GIGABYTE,
    BackendUnavailable,
    Capacity,
    JobObservation,
    JobRefused,
    JobSpec,
    JobState,
)
from ccat_workflow_manager.hpc.cluster.conclusion import conclude
from ccat_workflow_manager.hpc.cluster.files import ClusterFiles
from ccat_workflow_manager.hpc.cluster.marks import JobRecord, Marks
from ccat_workflow_manager.hpc.kubernetes import manifests
from ccat_workflow_manager.hpc.kubernetes.asking import KubernetesApi
from ccat_workflow_manager.hpc.kubernetes.errors import Declined
from ccat_workflow_manager.hpc.kubernetes.hearing import Stuck, cut_off, hear, pod_of, stuck
from ccat_workflow_manager.hpc.kubernetes.naming import cluster_name, owner
from ccat_workflow_manager.hpc.kubernetes.seeing import SeenJob, SeenPod
from ccat_workflow_manager.hpc.kubernetes.settings import KubernetesSettings
from ccat_workflow_manager.hpc.logs import Throttled, follow, tail
from ccat_workflow_manager.hpc.refusing import refuse_malformed

_CONFIGURATION: Final = 78
"""Exit code that says that something is set up wrongly."""
_GIVEN_UP_AT_ONCE: Final = 50
"""Jobs that one look gives up, as each is a request; the next look goes on."""


class KubernetesBackend:
    """Runs each job as a Job of one pod on a Kubernetes cluster whose nodes share `base`, inside of `root`, with us.

    One question for all Jobs and one for all pods, in pages, answer for any number of jobs; how the software ended
    stands in its exit mark, so that jobs that Kubernetes has forgotten are known by it. What neither tells is unknown,
    and no failure. Which id a job has follows from its name, so that the API itself keeps it from being made twice.
    """

    def __init__(
        self,
        base: Path,
        *,
        root: Path,
        settings: KubernetesSettings,
        api: KubernetesApi,
        grace: timedelta = timedelta(seconds=10),
    ) -> None:
        self._place = manifests.Place(root=root, owner=owner(base), settings=settings, grace=grace)
        self._settings = settings
        self._api = api
        self._files = ClusterFiles(base, grace=grace)

    def submit(self, spec: JobSpec) -> str:
        """Hand in a job and return the name of its Job; one that Kubernetes has already is adopted."""
        refuse_malformed(spec)
        manifests.refuse_elsewhere(spec)
        job_id, record = cluster_name(spec.name), self._files.record(spec.name)
        if record is None or not self._was_taken(record):
            self._files.keep(spec, passed=manifests.passed(spec))
            self._create(spec, job_id)
        self._files.know(spec.name, job_id)
        return job_id

    def observe(self, job_ids: Collection[str]) -> Mapping[str, JobObservation]:
        """Look at all jobs with one question for Jobs and one for pods, whose answers come in pages.

        A job whose container cannot start, for an image that cannot be pulled, say, waits until patience is over. Then
        it has failed for how it is set up: nobody else says so, as Kubernetes goes on for ever. That is written down as
        if the job itself had left it, before its Job is deleted, and so is known whatever happens meanwhile.
        """
        self._files.prune()
        records = {job_id: self._files.with_id(job_id) for job_id in job_ids}
        jobs, pods = self._api.jobs(self._place.owner), self._api.pods(self._place.owner)
        now = datetime.now(UTC)
        looks = {
            job_id: self._look(record, jobs.get(job_id), pods.get(job_id, ()))
            for job_id, record in records.items()
            if record is not None
        }
        self._give_up([one for one in looks.values() if one.is_hopeless(self._start_patience, now=now)], now=now)
        unknown = JobObservation(state=JobState.UNKNOWN)
        return {job_id: looks[job_id].conclude(now=now) if job_id in looks else unknown for job_id in job_ids}

    def find(self, names: Collection[str]) -> Mapping[str, str]:
        """Return the id of every job that Kubernetes has, or had, under one of these names."""
        records = {name: self._files.record(name) for name in names}  # written down before Kubernetes hears of it
        found = {name for name, record in records.items() if record is not None and self._was_taken(record)}
        asked = [name for name, record in records.items() if record is not None and name not in found]
        if asked:
            jobs = self._api.jobs(self._place.owner)
            for name in (name for name in asked if cluster_name(name) in jobs):
                self._files.know(name, cluster_name(name))
                found.add(name)
        return {name: cluster_name(name) for name in found}

    def cancel(self, job_ids: Collection[str]) -> None:
        """Keep waiting jobs from ever starting, and end the others: their Jobs are deleted, and stay until they ended.

        Kubernetes asks the first process of a pod to end, once however often it is told; that asks its software once,
        lives to write down how it ended, and whatever goes on after the grace is killed.
        """
        for record in (self._files.with_id(job_id) for job_id in job_ids):
            if record is None or self._files.marks(record).exit:
                continue
            self._files.mark_cancelled(record)
            self._files.forestall(record)
            self._api.delete(cluster_name(record.name))

    def logs(self, job_id: str, *, lines: int = 50) -> str:
        """Return the last lines of standard output and errors; without these files, what its pod wrote."""
        outputs = self._outputs(job_id)
        if any(path.exists() for path in outputs):
            return tail(outputs, lines=lines)
        return "\n".join(self._pod_log(job_id, lines=lines))

    def follow(self, job_id: str, *, lines: int = 50) -> Iterator[str]:
        """Give the last lines of standard output and errors, then what comes; else, at its end, what its pod wrote."""
        outputs, is_over = self._outputs(job_id), partial(self._is_over, job_id)
        yield from follow(outputs, is_over=Throttled(is_over, every=self._settings.poll), lines=lines)
        if not any(path.exists() for path in outputs):
            yield from (f"{line}\n" for line in self._pod_log(job_id, lines=lines))

    def capacity(self) -> Capacity:
        """Say what the nodes give to pods; what of it is free would take a look at the pods of everybody."""
        nodes = self._api.nodes(self._settings.node_selector)
        if nodes is None:
            return Capacity(cpus=None, memory_gb=None, free_cpus=None, free_memory_gb=None)
        usable = [node for node in nodes if node.is_open]
        cpus, memory = sum(int(node.cpus) for node in usable), sum(node.memory_bytes for node in usable)
        return Capacity(cpus=cpus, memory_gb=float(memory) / GIGABYTE, free_cpus=None, free_memory_gb=None)

    @property
    def _start_patience(self) -> timedelta:
        return timedelta(seconds=self._settings.start_patience_seconds)

    def _look(self, record: JobRecord, job: SeenJob | None, pods: Sequence[SeenPod]) -> "_Look":
        marks = self._files.marks(record)  # read last: whatever it left before Kubernetes let go of it is there
        return _Look(record=record, marks=marks, job=job, pod=pod_of(pods, started_as=_started_as(marks)))

    def _was_taken(self, record: JobRecord) -> bool:
        """Whether Kubernetes has, or had, a job that was written down, without asking it."""
        return self._files.id_of(record.name) is not None or self._files.marks(record).has_start

    def _create(self, spec: JobSpec, job_id: str) -> None:
        try:
            self._api.create(manifests.job(spec, self._place))
        except Declined as error:
            if error.answer.is_known_already:
                self._adopt(spec, job_id)
            elif error.answer.is_for_ever:
                remedy = "change what the step asks for, or the backend_settings of the location"
                raise JobRefused(
                    spec.name, problem=f"Kubernetes says: {error.answer.message}", remedy=remedy
                ) from error
            else:
                raise

    def _adopt(self, spec: JobSpec, job_id: str) -> None:
        found = self._api.job(job_id)
        if found is None:
            raise BackendUnavailable("kubernetes", f"the Job {job_id} was there and is gone")
        if found.owner != self._place.owner:
            problem = f"the namespace has a Job {job_id} that is not of this location"
            raise JobRefused(spec.name, problem=problem, remedy="delete it, or name another namespace")

    def _give_up(self, looks: Sequence["_Look"], *, now: datetime) -> None:
        for one in looks[:_GIVEN_UP_AT_ONCE]:
            if one.stuck is not None and self._files.conclude_unstarted(
                one.record, exit_code=_CONFIGURATION, because=_given_up(one.stuck, now=now)
            ):
                with suppress(BackendUnavailable):  # the next look tries again
                    self._api.delete(cluster_name(one.record.name))

    def _outputs(self, job_id: str) -> list[Path]:
        record = self._files.with_id(job_id)
        return [record.stdout, record.stderr] if record else []

    def _pod_log(self, job_id: str, *, lines: int) -> list[str]:
        """The last lines that a pod wrote whose software never wrote any: what kept it from starting."""
        record = self._files.with_id(job_id) if lines > 0 else None
        pod = pod_of(self._api.pods_of(job_id), started_as=None) if record else None
        return self._api.log(pod.name, lines=lines).splitlines() if pod else []

    def _is_over(self, job_id: str) -> bool:
        record = self._files.with_id(job_id)
        if record is None or self._files.marks(record).exit:
            return True
        look = self._look(record, self._api.job(job_id), self._api.pods_of(job_id))
        return look.conclude(now=datetime.now(UTC)).is_over


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A job, what Kubernetes shows of it, and what its files said after that."""

    record: JobRecord
    marks: Marks
    job: SeenJob | None
    pod: SeenPod | None

    @property
    def stuck(self) -> Stuck | None:
        return stuck(self.pod)

    def is_hopeless(self, patience: timedelta, *, now: datetime) -> bool:
        return self.stuck is not None and now - self.stuck.since > patience

    def conclude(self, *, now: datetime) -> JobObservation:
        heard = hear(
            self.job,
            self.pod,
            now=now,
            started_as=_started_as(self.marks),
            was_cut_off=cut_off(self.marks, time_limit=self.record.time_limit),
            is_cancelled=self.marks.cancelled_at is not None,
        )
        found = conclude(self.record, self.marks, heard, now=now)
        return replace(found, host=heard.host or found.host)  # a pod calls itself its host


def _started_as(marks: Marks) -> str | None:
    """The pod that took the start mark."""
    return marks.start.id if marks.start else None


def _given_up(one: Stuck, *, now: datetime) -> str:
    minutes = (now - one.since) / timedelta(minutes=1)
    return (
        f"Kubernetes could not start a container for {minutes:.0f} min: {one.why}; set a right `image` and "
        "`image_pull_secrets` in the backend_settings of the location, then retry the run"
    )
