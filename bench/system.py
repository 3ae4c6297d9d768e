"""A whole system for benchmarks: durable servers and one process of each kind, over packages that are staged."""

import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import sqlalchemy as sa

from bench.packages import archive
from ccat.stack.postgresql import embedded_postgresql
from ccat.stack.redis import RedisAddress, embedded_redis
from ccat_ops_db import models
from ccat_ops_db.migrating import migrate
from ccat_ops_db.session import create_engine, transaction
from ccat_ops_db.states import RunStatus
from ccat_ops_db.verbs.initialization import initialize, reference_data

MANAGERS: Final = ("trigger-manager", "workflow-manager", "result-manager")
WORKER: Final = "celery-worker"
_SUBREAPER: Final = 36
"""PR_SET_CHILD_SUBREAPER of prctl(2): jobs, which are nobody's children, become ours, and so does their CPU time."""
_POLL_S: Final = 0.5
"""Each look counts all runs: looked at more often, the meter takes a tenth of what it measures."""

_STAGED: Final = (
    """
    INSERT INTO raw_data_file
        (id, executed_obs_unit_id, instrument_module_id, raw_data_package_id, relative_path, size_bytes, checksum)
    SELECT md5(id::text)::uuid, executed_obs_unit_id, instrument_module_id, id, id || '.fits', 1, checksum
    FROM raw_data_package
    """,
    """
    INSERT INTO physical_copy (type, data_location_id, raw_data_package_id, status, path)
    SELECT 'raw_data_package', :location, id, 'staged', 'raw/' || id FROM raw_data_package
    """,
)


@dataclass(frozen=True)
class System:
    """Where it is, and what runs of it."""

    engine: sa.Engine
    redis: RedisAddress
    location_id: int
    root: Path
    """Of the processing location."""
    environment: Mapping[str, str]
    """Settings of its processes."""

    @property
    def base(self) -> Path:
        """Pipeline base directory."""
        return self.root / "pipelines"

    @contextlib.contextmanager
    def running(self, *names: str, program: str = "ccat", **variables: str) -> Iterator[None]:
        """Processes, each `python -m PROGRAM NAME`, while the `with` block lasts."""
        started, environment = [], {**self.environment, **variables}
        try:
            for name in names:
                with (self.root / f"{name or program}.log").open("a") as log:
                    command = [sys.executable, "-m", program, name]
                    started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            yield
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()

    def completed(self) -> int:
        """How many runs are COMPLETED."""
        run = models.ExecutedReductionStep
        with transaction(self.engine) as session:
            where = run.status == RunStatus.COMPLETED
            return session.scalar(sa.select(sa.func.count()).select_from(run).where(where)) or 0

    def until_begun(self) -> int:
        """Wait for the first runs to be COMPLETED; how many these are."""
        self.until_completed(1, look_every_s=_POLL_S / 10)  # as long as there are none, they are soon counted
        return self.completed()

    def until_completed(self, number: int, *, within_s: float = 3600, look_every_s: float = _POLL_S) -> float:
        """Wait for so many runs to be COMPLETED; how long that took, in seconds."""
        start, told = time.perf_counter(), 0.0
        while (done := self.completed()) < number:
            passed = time.perf_counter() - start
            if passed > within_s:
                raise TimeoutError(f"{done} of {number} runs are completed after {passed:.0f} s; see {self.root}/*.log")
            if passed - told > 5:  # noqa: PLR2004 - seconds, a sign of life
                print(f"{done} of {number} runs after {passed:.0f} s", flush=True)
                told = passed
            time.sleep(look_every_s)
        return time.perf_counter() - start


@contextlib.contextmanager
def system(size: int, *, cpus: int = 4) -> Iterator[System]:
    """A system without processes, that has so many packages staged at one processing location."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)
    with (
        tempfile.TemporaryDirectory(prefix="ccat-bench-") as name,
        embedded_postgresql(Path(name) / "pg") as url,
        embedded_redis(Path(name) / "redis") as redis,
    ):
        engine = create_engine(url, application_name="bench")
        migrate(engine)
        with transaction(engine) as session:
            initialize(session, reference_data(), storage_root=Path(name) / "storage")
        print(f"staging {size} packages", flush=True)
        location_id, root = _stage(engine, size, cpus=cpus)
        yield System(engine, redis, location_id, root, _environment(url, redis, location_id=location_id))
        engine.dispose()


def cpu_s() -> float:
    """CPU time of everything that descends from this process, in seconds, but not of itself."""
    while True:  # jobs that nobody else waits for
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    ours = os.times()
    alive = sum((_cpu_of(one) for one in psutil.Process().children(recursive=True)), 0.0)
    return ours.children_user + ours.children_system + alive


def _cpu_of(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


def _stage(engine: sa.Engine, size: int, *, cpus: int) -> tuple[int, Path]:
    archive(engine, size)
    with transaction(engine) as session:
        here = sa.select(models.DiskDataLocation).join(models.DiskDataLocation.site)
        location = session.scalars(here.where(models.DiskDataLocation.name == "ramses")).one()
        location.backend_settings = {"cpus": cpus}
        for statement in _STAGED:
            used = {"location": location.id} if ":location" in statement else {}
            session.execute(sa.text(statement), used)
        packages = session.scalars(sa.select(models.RawDataPackage.id)).all()
        root = Path(location.path)
    (root / "pipelines").mkdir(parents=True)
    for package in packages:
        directory = root / "raw" / str(package)
        directory.mkdir(parents=True)
        (directory / f"{package}.fits").write_text("x")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))
    return location.id, root


def _environment(url: str, redis: RedisAddress, *, location_id: int) -> Mapping[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CCAT_")}
    prefix = "CCAT_WORKFLOW_MANAGER_"
    return inherited | {
        "CCAT_OPS_DB_URL": url,
        f"{prefix}REDIS_HOST": redis.host,
        f"{prefix}REDIS_PORT": str(redis.port),
        f"{prefix}REDIS_PASSWORD": redis.password,
        f"{prefix}PROCESSING_LOCATION_ID": str(location_id),
    }
