"""The long-running processes: read the settings, put the parts together, run."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeAlias

import typer

from ccat.cli.errors import reported
from ccat.containers import containers_of
from ccat.watch.hook import Hook
from ccat.watch.looking import Watch, watching
from ccat.wiring import all_locations, open_database, process_name, roots_of, served_locations
from ccat_data_transfer.managers import TransferContext, transfer_manager
from ccat_data_transfer.queues import locations_to_serve, operations_at, queues_to_serve
from ccat_data_transfer.settings import DataTransferSettings
from ccat_data_transfer.tasks import register_tasks
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.outcomes import NOUNS
from ccat_data_transfer.verbs.probing import watching_archives
from ccat_ops_db import models
from ccat_ops_db.verbs.spaces import record_operations, record_served
from ccat_service.database import DatabaseConnection
from ccat_service.health import HealthCheck
from ccat_service.logging import configure_logging
from ccat_service.loop import Manager, run_manager
from ccat_service.orphans import expire_orphans
from ccat_service.servers import RedisSettings
from ccat_service.spaces import watching_space
from ccat_service.stop import Stop, stop_on_signals
from ccat_service.tasks import TaskApp, make_celery_app
from ccat_service.worker import Prompt, run_worker
from ccat_workflow_manager import managers
from ccat_workflow_manager.hpc.base import Backend
from ccat_workflow_manager.hpc.kubernetes.settings import KubernetesSettings
from ccat_workflow_manager.hpc.local.backend import LocalBackend
from ccat_workflow_manager.hpc.local.host import host_cpus
from ccat_workflow_manager.hpc.settings import LocalSettings, SlurmSettings
from ccat_workflow_manager.hpc.slurm.backend import SlurmBackend
from ccat_workflow_manager.hpc.slurm.commands import Cluster
from ccat_workflow_manager.hpc.slurm.pacing import Pace
from ccat_workflow_manager.places import ServedLocation
from ccat_workflow_manager.settings import WorkflowManagerSettings
from ccat_workflow_manager.tasks import prompt_queues, queues, register, senders
from ccat_workflow_manager.verbs.workplace import Workplace

MakeBackend: TypeAlias = Callable[[ServedLocation, WorkflowManagerSettings], Backend]


@dataclass(frozen=True)
class _Process:
    """What every process of ours has."""

    title: str
    name: str
    database: DatabaseConnection
    stop: Stop

    def app(self, settings: RedisSettings) -> TaskApp:
        return make_celery_app(settings, name=self.title)

    def health(self, settings: RedisSettings, service_type: str) -> HealthCheck:
        return HealthCheck(service_type, self.title, redis=settings.client(self.title))

    def manage(self, manager: Manager[Any], health: HealthCheck) -> None:
        run_manager(manager, database=self.database, health=health, stop=self.stop)

    def work(
        self,
        app: TaskApp,
        names: Sequence[str],
        *,
        prompt: Prompt | None = None,
        discover: Callable[[], Sequence[str]] | None = None,
        settings: RedisSettings,
        concurrency: int,
        health: HealthCheck,
    ) -> None:
        code = run_worker(
            app,
            names,
            prompt=prompt,
            discover=discover,
            concurrency=concurrency,
            redis=settings.client(f"{self.title} watch"),
            health=health,
            stop=self.stop,
        )
        if code:
            raise typer.Exit(code)


@contextmanager
def _process(title: str) -> Iterator[_Process]:
    with reported(last_resort=False), stop_on_signals() as stop:
        configure_logging()
        database = open_database(title)
        database.require_current_schema()
        gc.freeze()  # what is there now stays, and need not be looked through again and again
        yield _Process(title, process_name(title), database, stop)
        database.close()


def trigger_manager() -> None:
    """Create the runs that are missing or out of date."""
    _manage("trigger-manager", managers.trigger_manager)


def workflow_manager() -> None:
    """Start runs: fix their inputs, have data staged and jobs submitted."""
    _manage("workflow-manager", managers.workflow_manager)


def result_manager() -> None:
    """Have jobs observed and results collected; retry what failed in passing."""
    _manage("result-manager", managers.result_manager)


def _manage(title: str, make: Callable[[managers.Context], Manager[managers.Context]]) -> None:
    with _process(title) as process:
        settings = WorkflowManagerSettings.load()
        served = served_locations(process.database, settings)
        locations, polls = {one.id: one.queue_name for one in served}, {one.id: one.backend.poll for one in served}
        tasks = senders(process.app(settings))
        context = managers.Context(process.database, tasks, locations, polls, process.name)
        with watching(_watch(process, settings), stop=process.stop):
            process.manage(make(context), process.health(settings, "workflow"))


def _watch(process: _Process, settings: WorkflowManagerSettings) -> Watch:
    return Watch(
        database=process.database,
        redis=settings.client(f"{process.title} watch"),
        hook=Hook(settings.alert_command, settings.alert_webhook),
        name=process.name,
        backlog=timedelta(hours=settings.alert_backlog_hours),
    )


def backend_of(location: ServedLocation, settings: WorkflowManagerSettings) -> Backend:
    """Where the jobs of a location run."""
    match location.backend:
        case SlurmSettings() as given:
            return _slurm_backend(location, given, settings)
        case LocalSettings() as given:
            return _local_backend(location, given, settings)
        case KubernetesSettings() as given:
            return _kubernetes_backend(location, given, settings)
        case other:
            raise TypeError(other)


def _local_backend(location: ServedLocation, given: LocalSettings, settings: WorkflowManagerSettings) -> Backend:
    return LocalBackend(
        settings.client("local-backend"),
        base=location.base,
        cpus=given.cpus or host_cpus(),
        memory_gb=given.memory_gb,
        cgroup=given.cgroup,
    )


def _slurm_backend(location: ServedLocation, given: SlurmSettings, settings: WorkflowManagerSettings) -> Backend:
    placement = replace(given.placement, partition=given.partition or settings.slurm_partition or None)
    key, redis = f"slurm:submissions:{location.id}", settings.client("slurm-backend")
    return SlurmBackend(
        location.base,
        cluster=Cluster(given.cluster, placement),
        pace=Pace(redis, key=key, per_minute=given.submissions_per_minute),
        bundle_size=given.array_size,
        jobs_per_task=given.jobs_per_task,
        longest_bundled=timedelta(minutes=given.small_minutes),
        grace=given.grace,
    )


def _kubernetes_backend(
    location: ServedLocation, given: KubernetesSettings, settings: WorkflowManagerSettings
) -> Backend:
    kubernetes = import_module("ccat_workflow_manager.hpc.kubernetes.backend")  # its client is slow to import
    backend: Backend = kubernetes.KubernetesBackend(
        location.base,
        root=location.root,
        settings=given,
        api=kubernetes.KubernetesApi.connect(given, namespace=settings.k8s_namespace),
        grace=given.grace,
    )
    return backend


def celery_worker(*, concurrency: int, backend: MakeBackend = backend_of) -> None:
    """Carry out workflow tasks at the processing locations that this instance serves."""
    with _process("celery-worker") as process:
        settings = WorkflowManagerSettings.load()
        served = served_locations(process.database, settings)
        with process.database.transaction() as session:
            expire_orphans(session, models.DataLocation)
        app, questions = process.app(settings), process.app(settings)
        backends = {one.id: backend(one, settings) for one in served}
        bases = {one.id: one.base for one in served}
        containers = containers_of(served, settings, process.database)
        register(app, Workplace(process.database, backends, bases, process.name, containers))
        health = process.health(settings, "workflow")
        names, roots = [one.queue_name for one in served], {one.id: one.root for one in served}
        work, prompt = queues(names), Prompt(questions, prompt_queues(names))
        with watching_space(process.database.engine, lambda: roots, bases=bases, stop=process.stop):
            process.work(app, work, prompt=prompt, settings=settings, concurrency=concurrency, health=health)


def transfer_manager_process() -> None:
    """Have raw files packed, archived and staged, and copies deleted that may go."""
    with _process("transfer-manager") as process:
        settings = DataTransferSettings.load()
        context = TransferContext(engine=process.database.engine, app=process.app(settings), name=process.name)
        process.manage(transfer_manager(context), process.health(settings, "transfer"))


def transfer_worker(*, concurrency: int, serve: Sequence[str]) -> None:
    """Carry out transfer tasks at the sites and locations that can be reached from here."""
    with _process("transfer-worker") as process:
        settings = DataTransferSettings.load()
        with process.database.transaction() as session:
            expire_orphans(session, *NOUNS, models.PhysicalCopy)
        app = process.app(settings)
        register_tasks(app, Worker(engine=process.database.engine, name=process.name))
        locations = _served(process.database, serve)
        names = queues_to_serve(locations)
        health = process.health(settings, "transfer")

        def discover() -> Sequence[str]:
            return queues_to_serve(_served(process.database, serve))

        def served() -> Sequence[models.DataLocation]:
            return locations_to_serve(all_locations(process.database), serve)

        engine, stop = process.database.engine, process.stop
        with (
            watching_space(engine, lambda: roots_of(served()), stop=stop),
            watching_archives(engine, served, name=process.name, stop=stop),
        ):
            process.work(app, names, discover=discover, settings=settings, concurrency=concurrency, health=health)


def _served(database: DatabaseConnection, serve: Sequence[str]) -> Sequence[models.DataLocation]:
    """Locations that a transfer-worker serves, where that is told."""
    locations = locations_to_serve(all_locations(database), serve)
    with database.transaction() as session:
        record_served(session, [one.id for one in locations])
        record_operations(session, {one.id: operations_at(one) for one in locations})
    return locations
