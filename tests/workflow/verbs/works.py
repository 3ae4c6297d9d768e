"""A whole installation in one process: real database, files and jobs; messages lie in a list until delivered."""

import hashlib
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from celery import Celery
from sqlalchemy.orm import Session

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS as TRANSFER_VERBS
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.planning import plan_packages
from ccat_data_transfer.verbs.scheduling import LANES, schedule_next, waiting
from ccat_ops_db import models
from ccat_ops_db.definitions.parsing import parse_definitions
from ccat_ops_db.gap.changes import hand_out
from ccat_ops_db.gap.evaluation import evaluate
from ccat_ops_db.grouping.dimensions import dimensions
from ccat_ops_db.grouping.paths import catalogue
from ccat_ops_db.grouping.presets import presets
from ccat_ops_db.lookup import LOCATION, MODULE, find
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.activity import Activity, activity
from ccat_ops_db.queries.gaps import SubGroupNow, sub_groups
from ccat_ops_db.session import transaction
from ccat_ops_db.states import BackendName, FailureClass, LocationType, PhysicalCopyStatus, RunStatus
from ccat_ops_db.verbs.changes import Change
from ccat_ops_db.verbs.definitions import apply_definitions
from ccat_ops_db.verbs.excluding import exclude_package, readmit_package
from ccat_ops_db.verbs.scans import NewFile, add_files, finish_scan, start_scan
from ccat_service.database import DatabaseConnection
from ccat_service.retries import Backoff
from ccat_service.tasks import TaskApp
from ccat_workflow_manager import managers
from ccat_workflow_manager.hpc.local.backend import LocalBackend
from ccat_workflow_manager.tasks import senders
from ccat_workflow_manager.verbs.collecting import collect_runs
from ccat_workflow_manager.verbs.describing import current_attempts
from ccat_workflow_manager.verbs.executing import hand_in_attempts, prepare_all, take
from ccat_workflow_manager.verbs.failing import Failure, fail_attempt, retry_due_runs
from ccat_workflow_manager.verbs.observing import observe_locations
from ccat_workflow_manager.verbs.starting import Started, start_runs
from ccat_workflow_manager.verbs.workplace import Workplace
from tests.engine.database import archive, plan
from tests.engine.toy import install

Found = TypeVar("Found")

START: Final = datetime(2026, 4, 5, 1, 0, tzinfo=UTC)
LOCATION_NAME: Final = "cologne/ramses"
POLL: Final = timedelta(milliseconds=100)
VERBS: Final[Mapping[str, Callable[[Workplace, Sequence[int]], object]]] = {
    "workflow.hand_in": hand_in_attempts,
    "workflow.observe": observe_locations,
    "workflow.collect": collect_runs,
}

MERGE: Final = 'cat $(find -L "$WORKFLOW_INPUT_DIR" -type f | sort) >"$WORKFLOW_OUTPUT_DIR/out.txt"'
"""Software that writes all that it was given into one file."""


def eventually(look: Callable[[], Found], *, within: float = 20) -> Found:
    """What `look` returns as soon as it is true, asked again and again until the deadline."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"{look} is still {found!r} after {within} s"
        time.sleep(0.01)
    return found


class Post(TaskApp):
    """Messages that lie in a list until a test delivers or loses them."""

    def __init__(self) -> None:
        Celery.__init__(self, "tests", set_as_current=False)
        self.letters: list[tuple[str, list[int]]] = []

    def waiting(self, queue: str) -> int:
        """Workers keep up with everything."""
        del queue
        return 0

    def hint(self, task: str, ids: Sequence[int | str], *, queue: str, **_: object) -> None:
        assert queue.startswith("workflow.cologne_ramses."), queue
        self.letters.append((task, [int(one) for one in ids]))


def prepare_attempts(workplace: Workplace, run_ids: Sequence[int]) -> list[int]:
    """What a worker does that dies before it hands anything in; the runs whose attempts are prepared."""
    with ExitStack() as locks:
        taken = take(workplace, run_ids, locks)
        return [one.attempt.run_id for one in prepare_all(workplace, [*taken.fresh, *taken.before])]


@dataclass
class Works:
    """The installation: what people and the outside world do, and each process's rounds."""

    root: Path
    database: DatabaseConnection
    workplace: Workplace
    location_id: int
    post: Post = field(default_factory=Post)
    _scans: int = 0

    def __post_init__(self) -> None:
        self.engine = self.database.engine
        self.trigger_manager = self.context()
        self.worker = Worker(engine=self.engine, name="worker", backoff=Backoff(first=timedelta(), ceiling=timedelta()))

    @property
    def base(self) -> Path:
        return self.workplace.bases[self.location_id]

    # What people do.

    def define(
        self, *steps: Mapping[str, Any], name: str = "toy", scripts: Mapping[str, str] | None = None, **keys: Any
    ) -> list[Change]:
        """A pipeline over everything; each step runs the script of its own software, else MERGE."""
        software = [
            {"name": f"{name}-{step['key']}", "versions": [self.version((scripts or {}).get(step["key"], MERGE))]}
            for step in steps
        ]
        document = {
            "software": software,
            "groupings": [{"name": f"{name}-grouping", "rules": []}],
            "pipelines": [
                {
                    "name": name,
                    "grouping": f"{name}-grouping",
                    "location": LOCATION_NAME,
                    "steps": [{"software": f"{name}-{step['key']}", **step} for step in steps],
                    **keys,
                }
            ],
        }
        return self.apply(document)

    def version(self, script: str = MERGE, version: str = "1.0", series: str = "1", **keys: Any) -> dict[str, Any]:
        """A version that runs a line of shell, in an environment of its own."""
        environment = install(self.root / f"env-{version}", version=version)
        return {
            "version": version,
            "series": series,
            "command": ["/bin/sh", "-c", script],
            "environment": environment.name,
            "distribution": "toy",
            **keys,
        }

    def apply(self, document: Mapping[str, Any]) -> list[Change]:
        definitions = parse_definitions(
            document, catalogue=catalogue(), dimensions=list(dimensions()), presets=presets()
        )
        with transaction(self.engine) as session:
            return apply_definitions(session, definitions, folder=self.root, by="a test")

    def add_location(self, name: str, **values: Any) -> int:
        """One more processing location beside the first; its id."""
        path = self.root / "cologne" / name
        path.mkdir()
        with transaction(self.engine) as session:
            site_id = session.scalars(sa.select(models.Site.id).filter_by(short_name="cologne")).one()
            kind = {"location_type": LocationType.PROCESSING, "backend": BackendName.LOCAL}
            location = models.DiskDataLocation(site_id=site_id, name=name, path=str(path), **kind, **values)
            session.add(location)
            session.flush()
            return location.id

    # What a telescope does.

    def observe(self, text: str, *, source: str = "M17", night: int = 0) -> int:
        """A scan of one file with this text, packed and archived; the id of its package."""
        started_at, scan_id = self._next_start() + timedelta(days=night), uuid.uuid4()
        path = self.root / "ccat/chai_raw_data" / f"{self._scans}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        checksum = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        with transaction(self.engine) as session:
            if not session.scalar(sa.select(models.ObsUnit.id).filter_by(name=source)):
                plan(session, source, source=source)
            start_scan(session, scan_id, source, started_at=started_at)
            file = NewFile(uuid.uuid4(), path.name, len(text.encode()), checksum)
            add_files(session, scan_id, [file], module="CHAI/LFA", location="ccat/chai_raw_data", by="CHAI")
            finish_scan(session, scan_id, ended_at=started_at + timedelta(minutes=1), expected_files=1)
            [package_id] = plan_packages(session, [(scan_id, find(session, MODULE, "CHAI/LFA").id)])
        self.transfer()
        return package_id

    def archived(self, *names: str, source: str = "M17") -> list[int]:
        """Packages that are archived in the database only, where nobody needs their files; their ids."""
        with transaction(self.engine) as session:
            if not session.scalar(sa.select(models.ObsUnit.id).filter_by(name=source)):
                plan(session, source, source=source)
            return [archive(session, name, observation=source, at=self._next_start()) for name in names]

    def _next_start(self) -> datetime:
        self._scans += 1
        return START + timedelta(minutes=self._scans)

    def staged_on_paper(self, *names: str, source: str = "M17") -> list[int]:
        """The same, and unpacked at the processing location in the database only."""
        packages, noun = self.archived(*names, source=source), models.RawDataPackagePhysicalCopy
        with transaction(self.engine) as session:
            copies = [
                noun(raw_data_package_id=one, data_location_id=self.location_id, path=f"raw/{one}") for one in packages
            ]
            session.add_all(copies)
            session.flush()
            for status in (PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.STAGED):
                ids = [copy.id for copy in copies]
                advance(session, models.PhysicalCopy, ids, to=status, because="a test", by="a test")
        return packages

    def exclude(self, package_id: int) -> None:
        self.session(lambda session: exclude_package(session, package_id, because="clouds", by="a person"))

    def readmit(self, package_id: int) -> None:
        self.session(
            lambda session: readmit_package(session, package_id, because="fog", now=datetime.now(UTC), by="a person")
        )

    # What processes do.

    def context(self, name: str = "manager") -> managers.Context:
        """What one manager works with."""
        return managers.Context(
            self.database, senders(self.post), {self.location_id: "cologne_ramses"}, {self.location_id: POLL}, name
        )

    def create(self) -> int:
        return managers.create_runs(self.trigger_manager)

    def advance(self) -> int:
        return managers.advance_runs(self.context())

    def follow(self) -> int:
        return managers.follow_runs(self.context())

    def start(self, *run_ids: int) -> Started:
        """Start PENDING runs, all if none is named."""
        ids = run_ids or [run.id for run in self.runs(status=RunStatus.PENDING)]
        with transaction(self.engine) as session:
            return start_runs(session, ids, now=datetime.now(UTC), by="workflow-manager")

    def fail(
        self,
        run_id: int,
        kind: FailureClass = FailureClass.PAYLOAD,
        cause: str = "it failed",
        *,
        status: RunStatus = RunStatus.STAGING_DATA,
    ) -> None:
        """Fail the current attempt of a run that was started."""
        with transaction(self.engine) as session:
            [attempt] = current_attempts(session, [run_id], status)
            fail_attempt(session, attempt, Failure(kind, cause), expected=[status], now=datetime.now(UTC), by="worker")

    def transfer(self) -> int:
        """Do all that data transfer has to do; how many transfers that was."""
        done = 0
        while found := self._scheduled():
            for operation, transfer_id in found:
                TRANSFER_VERBS[operation](self.worker, transfer_id)
            done += len(found)
        return done

    def _scheduled(self) -> list[tuple[Operation, int]]:
        with transaction(self.engine) as session:
            return [
                (lane.operation, found)
                for lane in LANES
                for location_id, number in waiting(session, lane, outstanding=100).items()
                for _ in range(number)
                if (
                    found := schedule_next(
                        session, lane, location_id, by="transfer-manager", lease=timedelta(minutes=1)
                    )
                )
            ]

    def deliver(self) -> int:
        """Hand every message to a worker; how many there were."""
        letters, self.post.letters[:] = list(self.post.letters), []
        for task, ids in letters:
            VERBS[task](self.workplace, ids)
        return len(letters)

    def round(self) -> int:
        """One round of every process."""
        done = self.create() + self.advance() + self.transfer() + self.advance()
        while self.deliver():
            done += self.advance()
        return done + self.follow() + self.deliver()

    def settle(self, *, within: float = 20) -> None:
        """Go on until nothing is under way."""
        eventually(lambda: self.round() == 0 and self.activity().is_over, within=within)

    def until(self, status: RunStatus, run_id: int | None = None) -> models.ExecutedReductionStep:
        """Go on until a run, the newest if none is named, has this status."""

        def look() -> models.ExecutedReductionStep | None:
            self.round()
            return self._in(status, run_id)

        found = eventually(look)
        assert found is not None
        return found

    def _in(self, status: RunStatus, run_id: int | None) -> models.ExecutedReductionStep | None:
        runs = self.runs()
        found = next((run for run in runs if run.id == run_id), runs[-1] if runs else None)
        return found if found is not None and found.status is status else None

    def retry_now(self) -> list[int]:
        """Let the time pass until every retry is due."""
        with transaction(self.engine) as session:
            return retry_due_runs(session, now=datetime.now(UTC) + timedelta(days=1), by="result-manager")

    def let_leases_end(self) -> None:
        for noun in (models.ExecutedReductionStep, models.DataLocation):
            self.execute(sa.update(noun).values(lease_until=datetime.now(UTC) - timedelta(seconds=1)))

    # What there is.

    def activity(self) -> Activity:
        with transaction(self.engine) as session:
            return activity(session)

    def gap(self, pipeline: str = "toy") -> dict[str, SubGroupNow]:
        """Every sub-group by step and labels, evaluated now."""
        with transaction(self.engine) as session:
            number = session.scalars(sa.select(models.Pipeline.id).filter_by(name=pipeline)).one()
            hand_out(session)
            evaluated = evaluate(session, number, now=datetime.now(UTC), by="a test")
            found = list(sub_groups(session, evaluated.pipeline, which=sa.true()))
        return {" ".join([one.step.key, *(str(label) for label in one.labels.values())]): one for one in found}

    def runs(self, **where: Any) -> list[models.ExecutedReductionStep]:
        """Runs in the order of their creation, with their steps, attempts and products."""
        run = models.ExecutedReductionStep
        with transaction(self.engine) as session:
            found = session.scalars(sa.select(run).filter_by(**where).order_by(run.id)).all()
            for one in found:
                _ = one.reduction_step.key, one.attempts, one.products
            return list(found)

    def run(self, **where: Any) -> models.ExecutedReductionStep:
        [found] = self.runs(**where)
        return found

    def all(self, noun: type[Found], /, **where: Any) -> list[Found]:
        with transaction(self.engine) as session:
            return list(session.scalars(sa.select(noun).filter_by(**where).order_by(sa.text("id"))).all())

    def moves(self, run: models.ExecutedReductionStep) -> list[str]:
        """Statuses that a run came to."""
        changes = self.all(models.StatusChange, noun="executed_reduction_step", object_id=run.id)
        return [str(one.to_status) for one in changes]

    def all_of(self, query: sa.Select[Found]) -> list[Found]:
        with transaction(self.engine) as session:
            return list(session.scalars(query).all())

    def text(self, product: models.DataProduct) -> str:
        """Content of a product, found by its copy."""
        [copy] = self.all(models.PhysicalCopy, data_product_id=product.id)
        return (self.root / LOCATION_NAME / copy.path).read_text()

    def execute(self, statement: sa.Executable) -> None:
        with transaction(self.engine) as session:
            session.execute(statement)

    def session(self, work: Callable[[Session], Found]) -> Found:
        with transaction(self.engine) as session:
            return work(session)


def location_id(engine: sa.Engine) -> int:
    with transaction(engine) as session:
        return int(find(session, LOCATION, LOCATION_NAME).id)


def backend(redis: Any, base: Path) -> LocalBackend:
    """The cluster: this host, with room for four jobs."""
    return LocalBackend(redis, base=base, cpus=4, grace=timedelta(seconds=0.2), restart_after=timedelta(seconds=0.5))
