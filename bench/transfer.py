import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import sqlalchemy as sa
import typer
from pydantic import SecretStr

from bench.figures import Figure, once
from ccat.stack.postgresql import embedded_postgresql
from ccat.stack.redis import RedisAddress, embedded_redis
from ccat_data_transfer.managers import TransferContext, tick
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.planning import plan_packages
from ccat_data_transfer.verbs.scheduling import LANES, schedule_next, waiting
from ccat_data_transfer.verbs.shipping import ship
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, MODULE, OBS_MODE, find
from ccat_ops_db.migrating import migrate
from ccat_ops_db.session import create_engine, transaction
from ccat_ops_db.states import PackageState, Status
from ccat_ops_db.verbs.initialization import Seed, initialize, reference_data
from ccat_ops_db.verbs.scans import NewFile, add_files, finish_scan, start_scan
from ccat_ops_db.verbs.staging import request_staging
from ccat_service.servers import RedisSettings
from ccat_service.tasks import make_celery_app

START: Final = datetime(2026, 4, 1, 2, tzinfo=UTC)
FILES: Final = 200
MODULES: Final = ("CHAI/LFA", "CHAI/HFA")
_PIECE: Final = 1 << 22
_SMALL_MB, _LARGE_MB = 500, 4000
_LOOK_S: Final = 0.2
_WITHIN_S: Final = 1800


def measure(
    *,
    size: Annotated[int, typer.Option(min=20, help="So many MB go through all stages.")] = 2000,
    files: Annotated[int, typer.Option(min=100, help="So many registered files become packages.")] = 100_000,
) -> Iterator[Figure]:
    """What moving costs beside tar, cp and sha256sum, and between sites; how much memory; how fast files are packed."""
    with observatory() as one:
        print(f"packing, archiving, verifying and staging {size} MB in {FILES} files", flush=True)
        one.write(size, FILES)
        ours = once(one.move)
        theirs = once(one.move_plainly)
        yield Figure("plain_mb_per_s", size / theirs)
        yield Figure("transfer_mb_per_s", size / ours)
        yield Figure("transfer_ratio", theirs / ours, at_least=0.5)
    with observatory(crosses=True) as one:
        print(f"the same {size} MB, crossing from one buffer to another on the way", flush=True)
        one.write(size, FILES)
        across = once(one.move)
        yield Figure("crossing_mb_per_s", size / across)
        yield Figure("crossing_costs", across / ours)
    small, large = peaks_mb([max(20, share * size // 2000) for share in (_SMALL_MB, _LARGE_MB)])
    yield Figure("rss_mb", large, at_most=150)
    yield Figure("rss_growth_mb", large - small, at_most=10)
    with observatory() as one:
        print(f"registering {files} files", flush=True)
        one.register(files)
        yield Figure("package_100k_s", 100_000 / files * once(lambda: one.plan_all(files)), at_most=60)


@dataclass(frozen=True)
class Observatory:
    """An installation with its storage, whose workers are function calls."""

    engine: sa.Engine
    redis: RedisAddress
    root: Path

    @property
    def source(self) -> Path:
        """Where the instrument writes."""
        return self.root / "ccat/chai_raw_data"

    def write(self, megabytes: int, files: int, *, number: int = 0) -> None:
        """Write a scan of so many MB that no compression helps with, and register it."""
        scan_id, new = self._scan(number), []
        each = megabytes * 10**6 // files
        for part in range(files):
            path = f"2026-04-01/scan-{number}-{part:04d}.fits"
            new.append(NewFile(uuid.uuid4(), path, each, _write_random(self.source / path, each)))
        with transaction(self.engine) as session:
            add_files(session, scan_id, new, module=MODULES[0], location="ccat/chai_raw_data", by="bench")
            finish_scan(session, scan_id, ended_at=START + timedelta(hours=1), expected_files=files)

    def move(self) -> None:
        """All stages: packed, archived, read back and staged, every file compared."""
        worker = Worker(engine=self.engine, name="bench")
        with transaction(self.engine) as session:
            scan_id = session.scalars(sa.select(models.ExecutedObsUnit.id)).one()
            package_ids = plan_packages(session, [(scan_id, int(find(session, MODULE, MODULES[0]).id))])
        while any([self._do(worker, operation) for operation in VERBS] + [self._ship()]):
            pass
        with transaction(self.engine) as session:
            request_staging(session, package_ids, int(find(session, LOCATION, "cologne/ramses").id))
        self._do(worker, Operation.STAGING)
        if {*self._states(), *self._staged()} != {PackageState.ARCHIVED, Status.COMPLETED}:
            raise ValueError(f"packages {self._states()}, staging {self._staged()}")

    @contextlib.contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """A transfer-worker, as it is started everywhere, while the `with` block lasts."""
        redis = {"HOST": self.redis.host, "PORT": str(self.redis.port), "PASSWORD": self.redis.password}
        settings = {f"CCAT_DATA_TRANSFER_REDIS_{name}": value for name, value in redis.items()}
        settings["CCAT_OPS_DB_URL"] = self.engine.url.render_as_string(hide_password=False)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CCAT_")}
        command = [sys.executable, "-m", "ccat", "transfer-worker"]
        with (self.root / "worker.log").open("w") as log:
            process = subprocess.Popen(command, env=inherited | settings, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()

    def manage(self, packages: int) -> None:
        """What a manager does until so many packages are archived, and the newest of them is staged, by a worker."""
        context = self._manager()
        self._tick(context, until=lambda: self._states() == [PackageState.ARCHIVED] * packages)
        with transaction(self.engine) as session:
            newest = session.scalars(sa.select(sa.func.max(models.RawDataPackage.id))).one()
            request_staging(session, [newest], int(find(session, LOCATION, "cologne/ramses").id))
        self._tick(context, until=lambda: self._staged() == [Status.COMPLETED] * packages)

    def move_plainly(self) -> None:
        """The same bytes by the programs that everybody has: tar, cp, sha256sum; nothing is kept or flushed."""
        with tempfile.TemporaryDirectory(dir=self.root) as directory:
            tar = Path(directory) / "plain.tar"
            for command in (
                ["tar", "-C", str(self.source), "-cf", str(tar), "."],
                ["cp", str(tar), f"{tar}.copy"],
                ["sha256sum", f"{tar}.copy"],
            ):
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def register(self, files: int) -> None:
        """Register files of scans of 100 each, which nobody has written."""
        checksum = f"sha256:{'0' * 64}"
        for scan in range(files // 100):
            scan_id = self._scan(scan)
            with transaction(self.engine) as session:
                for module in MODULES:
                    names = [f"{module}/{scan}/{number}.fits" for number in range(50)]
                    new = [NewFile(uuid.uuid4(), name, 10**6, checksum) for name in names]
                    add_files(session, scan_id, new, module=module, location="ccat/chai_raw_data", by="bench")
                finish_scan(session, scan_id, ended_at=START + timedelta(days=9), expected_files=100)

    def plan_all(self, files: int) -> None:
        """What a manager does until every file is in a package."""
        context = self._manager()
        while self._unpackaged():
            tick(context)
        with transaction(self.engine) as session:
            made = session.scalar(sa.select(sa.func.count()).select_from(models.RawDataPackage))
        if made != files // 50:
            raise ValueError(f"{made} packages")

    def _manager(self) -> TransferContext:
        password = SecretStr(self.redis.password)
        settings = RedisSettings(redis_host=self.redis.host, redis_port=self.redis.port, redis_password=password)
        return TransferContext(engine=self.engine, app=make_celery_app(settings, name="bench"), name="bench")

    def _tick(self, context: TransferContext, *, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WITHIN_S
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError(f"packages {self._states()}, staging {self._staged()}")
            tick(context)
            time.sleep(_LOOK_S)

    def _states(self) -> list[PackageState]:
        with transaction(self.engine) as session:
            return list(session.scalars(sa.select(models.RawDataPackage.state)))

    def _staged(self) -> list[Status]:
        with transaction(self.engine) as session:
            return list(session.scalars(sa.select(models.StagingJob.status)))

    def _unpackaged(self) -> bool:
        with transaction(self.engine) as session:
            waits = sa.exists().where(models.RawDataFile.raw_data_package_id.is_(None))
            return bool(session.scalar(sa.select(waits)))

    def _scan(self, number: int) -> uuid.UUID:
        scan_id = uuid.UUID(int=number + 1)
        with transaction(self.engine) as session:
            start_scan(session, scan_id, "M17 map", started_at=START + timedelta(minutes=number))
        return scan_id

    def _do(self, worker: Worker, operation: Operation) -> int:
        [lane] = [lane for lane in LANES if lane.operation == operation]
        with transaction(self.engine) as session:
            due = [
                schedule_next(session, lane, location_id, by="bench", lease=timedelta(minutes=1))
                for location_id, number in waiting(session, lane, outstanding=100).items()
                for _ in range(number)
            ]
        for transfer_id in due:
            if transfer_id is not None:
                VERBS[operation](worker, transfer_id)
        return len(due)

    def _ship(self) -> int:
        with transaction(self.engine) as session:
            return ship(session, by="bench")


def _write_random(path: Path, size: int) -> str:
    """Write a file of random bytes, piece by piece, as memory is measured; its digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, _PIECE):
            data = os.urandom(min(_PIECE, size - start))
            digest.update(data)
            file.write(data)
    return f"sha256:{digest.hexdigest()}"


def _seed(*, crosses: bool) -> Seed:
    """Reference data whose transfer packages wait for nothing; without a buffer in Cologne unless data cross."""
    shipped = reference_data()
    kept = [one for one in shipped["locations"] if crosses or one["path"] != "cologne/buffer"]
    routes = [{**one, "package_wait_seconds": 0} for one in shipped["routes"]]
    return {**shipped, "locations": kept, "routes": routes}


@contextlib.contextmanager
def observatory(*, crosses: bool = False) -> Iterator[Observatory]:
    """An installation with one planned observation, in a temporary directory."""
    with (
        tempfile.TemporaryDirectory(prefix="ccat-bench-") as name,
        embedded_postgresql(Path(name) / "pg") as url,
        embedded_redis(Path(name) / "redis") as redis,
    ):
        engine = create_engine(url, application_name="bench")
        migrate(engine)
        with transaction(engine) as session:
            initialize(session, _seed(crosses=crosses), storage_root=Path(name) / "storage")
            source = models.FixedSource(name="M17", ra_deg=275.2, dec_deg=-16.2)
            program = models.ObservingProgram(short_name="Cal", name="Calibration")
            session.add_all([source, program])
            session.flush()
            mode = find(session, OBS_MODE, "OTF")
            planned = {"observing_program_id": program.id, "source_id": source.id, "obs_mode_id": mode.id}
            session.add(models.ObsUnit(name="M17 map", **planned))
            for path in session.scalars(sa.select(models.DiskDataLocation.path)):
                Path(path).mkdir(parents=True)
        yield Observatory(engine, redis, Path(name) / "storage")
        engine.dispose()


def peaks_mb(megabytes: Sequence[int]) -> list[float]:
    """The most memory so far of one transfer-worker, in MB, after each of these packages, of one file each."""
    peaks = []
    with observatory() as one, one.worker() as process:
        for number, size in enumerate(megabytes):
            one.write(size, 1, number=number)
            one.manage(number + 1)
            [line] = [line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line]
            peaks.append(int(line.split()[1]) / 1024)
    return peaks
