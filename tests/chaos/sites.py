"""Packages that cross from one site to another while processes are killed and bits flip, and what came of them."""

import io
import random
import tarfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import psutil
import sqlalchemy as sa

from ccat_data_transfer.verbs.outcomes import NOUNS
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.moves import CHANNEL
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, Mover, PackageState, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.locating import InBucket, add_location
from ccat_ops_db.verbs.retention import set_data_class, set_retention
from ccat_ops_db.verbs.spaces import record_space
from ccat_service.servers import RedisSettings
from tests.chaos.rot import ARCHIVES, BUCKET_ARCHIVE, BUFFERS, DISK_ARCHIVE, damaged, read_archived
from tests.transfer.object_store import BUCKET, ENVIRONMENT, ObjectStore
from tests.transfer.processes import CCAT, Process, settings_of
from tests.transfer.support import Observatory, digest

SOURCE, STAGED = "ccat/chai_raw_data", "cologne/ramses"
MANAGER, WORKER = "transfer-manager", "transfer-worker"
KINDS: Final = ("manager 1", "manager 2", "worker of ccat", "worker 1 of cologne", "worker 2 of cologne")
_DONE_AT: Final = {"packing": "ccat"}
"""Operation → the site whose workers do it; all others are Cologne's."""
_MARK: Final = "CHAOS_PLACE"
_PARCEL_BYTES: Final = 2_000_000
_A_MOMENT: Final = 0.005
_DISK: Final = 10**12
_HALF_A_YEAR: Final = timedelta(days=181)
_READ_AGAIN: Final = 8
"""Archive copies that are half a year older at a time; more would keep the workers from all else."""
_OF_COPIES: Final = {
    "copies found damaged or gone": ("corrupt", "missing"),
    "copies let go": ("deletion_in_progress",),
    "deletions gone on with by others": ("deletion_failed",),
}
_STAY: Final = (PhysicalCopyStatus.DELETED, PhysicalCopyStatus.CORRUPT, PhysicalCopyStatus.MISSING)
"""What goes no more: damaged copies lie where they are until they are made anew."""
_Change, _Copy, _Package = models.StatusChange, models.PhysicalCopy, models.RawDataPackage


def prepare(observatory: Observatory, store: ObjectStore, *, mover: Mover) -> None:
    """A bucket and a disk in Cologne are the archives, everything else goes as soon as both have it.

    A few packages make a transfer package.
    """
    place = InBucket(bucket=BUCKET, prefix="fyst", endpoint_url=f"http://127.0.0.1:{store.port}")
    with transaction(observatory.engine) as session:
        add_location(session, "cologne", "s3", place=place, location_type=LocationType.LONG_TERM_ARCHIVE, priority=10)
        routes = {"method": mover, "package_bytes": _PARCEL_BYTES, "package_wait_seconds": 1}
        session.execute(sa.update(models.DataTransferRoute).values(routes))
        set_data_class(session, "raw", copies=len(ARCHIVES), instruments=[])
        for name in (SOURCE, *BUFFERS):
            set_retention(session, name, days=0, high=None, low=None, by="chaos")


@dataclass
class Crew:
    """The processes, each started again as soon as it was killed."""

    observatory: Observatory
    redis: RedisSettings
    directory: Path
    running: dict[str, Process] = field(default_factory=dict)
    site_of: dict[str, str] = field(default_factory=dict)
    """Site of each worker that ever was, by what it signs with."""

    def start(self, kind: str) -> None:
        site = kind.rpartition(" ")[2]
        words = [MANAGER] if kind.startswith("manager") else [WORKER, "--location", site]
        url = self.observatory.engine.url.render_as_string(hide_password=False)
        variables = settings_of(url, self.redis) | ENVIRONMENT | {_MARK: str(self.directory)}
        self.running[kind] = Process([*CCAT, *words], variables, log=self.directory / kind)
        if words[0] == WORKER:
            self.site_of[self.running[kind].signs(WORKER)] = site

    def kill(self, kind: str, *, patience: timedelta) -> int:
        """Kill one, a worker at work if it has any before long, and start the next; the pid of the dead."""
        deadline = time.monotonic() + patience.total_seconds()
        while kind.startswith("worker") and not self._is_at_work(kind) and time.monotonic() < deadline:
            time.sleep(_A_MOMENT)
        self.running[kind].kill()
        pid = self.running[kind].pid
        self.start(kind)
        return pid

    def _is_at_work(self, kind: str) -> bool:
        signed = self.running[kind].signs(WORKER)
        with transaction(self.observatory.engine) as session:
            return any(
                session.scalar(sa.select(sa.exists().where(noun.claimed_by.startswith(signed))))
                for noun in (*NOUNS, _Copy)
            )

    def stop(self) -> None:
        for process in self.running.values():
            process.stop()

    def end(self) -> None:
        for process in self.running.values():
            process.end()

    def left(self) -> Iterator[str]:
        """Processes where there should be none."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == str(self.directory):
                    yield f"process {process.pid} is left: {' '.join(process.cmdline())}"


@dataclass
class Crossings:
    """The packages, and the files that an instrument made of them."""

    observatory: Observatory
    store: ObjectStore
    random: random.Random
    scans: dict[uuid.UUID, dict[str, bytes]] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)
    """Packages that were asked for."""
    is_full: bool = True
    """Whether there is no room for what is staged: it goes as soon as it may."""

    def observe(self) -> None:
        """One scan, which becomes one package."""
        scan = self.observatory.start_scan()
        sizes = [self.random.choice([0, 700, 200_000, 1_000_000]) for _ in range(self.random.randint(1, 3))]
        files = {f"{scan}/{number}.fits": self.random.randbytes(size) for number, size in enumerate(sizes)}
        self.observatory.write(scan, files)
        self.observatory.finish_scan(scan, expected_files=len(files))
        self.scans[scan] = files

    def want_staged(self) -> None:
        """Ask for each package as soon as it is archived, once; when there is room again, for all that went."""
        with transaction(self.observatory.engine) as session:
            archived = set(session.scalars(sa.select(_Package.id).filter_by(state=PackageState.ARCHIVED)))
        if new := sorted(archived - self.wanted if self.is_full else archived):
            self.observatory.request_staging(new)
            self.wanted |= archived

    def hurry(self) -> None:
        """Let half a year pass for a few archive copies, and time for whoever looks at them and at what may go.

        What a worker of the cluster would see of its disk is that it is full, until that is over.
        """
        location, now = models.DataLocation, sa.func.clock_timestamp()
        archives = [self.observatory.location_id(one) for one in ARCHIVES]
        is_fresh = sa.and_(_Copy.data_location_id.in_(archives), _Copy.verified_at > now - _HALF_A_YEAR)
        oldest = sa.select(_Copy.id).where(is_fresh).order_by(_Copy.verified_at).limit(_READ_AGAIN)
        with transaction(self.observatory.engine) as session:
            session.execute(sa.update(_Copy).where(_Copy.id.in_(oldest)).values(verified_at=now - _HALF_A_YEAR))
            free = 0 if self.is_full else _DISK
            where = self.observatory.location_id(STAGED)
            record_space(session, where, free=free, total=_DISK, now=datetime.now(UTC))
            session.execute(sa.update(location).values(archive_look_at=None, retention_look_at=None))
            session.execute(sa.select(sa.func.pg_notify(CHANNEL, f"{location.__tablename__}:retention")))

    def progress(self) -> Counter[str]:
        """How many packages there are in each state, and how many copies that count."""
        with transaction(self.observatory.engine) as session:
            states = session.execute(sa.select(_Package.state, sa.func.count()).group_by(_Package.state))
            found = Counter({str(state): number for state, number in states})
        for name, _, status in self._rows():
            found["staged"] += name == STAGED and status is PhysicalCopyStatus.STAGED
            found["archive copies"] += name in ARCHIVES and status is PhysicalCopyStatus.PRESENT
            found["to go"] += name in {SOURCE, *BUFFERS} and status not in _STAY
        return found

    def _rows(self) -> list[tuple[str, str, PhysicalCopyStatus]]:
        """Location, path and status of all copies that there ever were."""
        query = LOCATION.rows.with_only_columns(LOCATION.label, _Copy.path, _Copy.status)
        query = query.join(_Copy, _Copy.data_location_id == models.DataLocation.id)
        with transaction(self.observatory.engine) as session:
            return [(name, path, status) for name, path, status in session.execute(query)]

    def is_over(self) -> bool:
        """Whether all that was observed is in both archives, staged, and nowhere else any more."""
        there, number = self.progress(), len(self.scans)
        found = (there[PackageState.ARCHIVED], there["staged"], there["archive copies"], there["to go"])
        if found != (number, number, len(ARCHIVES) * number, 0) or any(self._unfinished()):
            return False
        return not damaged(self.observatory, self.store)

    def troubles(self) -> dict[str, int]:
        """How often what went wrong."""
        told = {
            "workers lost at work": "its worker ended in the middle",
            "messages lost": "no worker took it in time",
            "arrived damaged": "Transfer package % did not arrive whole%",
            "packed again or sent again": "Package % has to be packed again%",
            "restored into a buffer": "restored from an archive%",
        }
        with transaction(self.observatory.engine) as session:
            counted = {
                name: session.scalars(
                    sa.select(sa.func.count()).where(_Change.because.like(like), _Change.noun != _Copy.__tablename__)
                ).one()
                for name, like in told.items()
            }
            counted |= {
                name: session.scalars(
                    sa.select(sa.func.count()).where(
                        _Change.noun == _Copy.__tablename__, _Change.to_status.in_(statuses)
                    )
                ).one()
                for name, statuses in _OF_COPIES.items()
            }
        return {name: int(number) for name, number in counted.items()}

    def wrong(self, site_of: dict[str, str]) -> Iterator[str]:
        """One sentence for each thing that is not as it must be at the end."""
        with transaction(self.observatory.engine) as session:
            packages = session.scalars(sa.select(_Package)).all()
        if len(packages) != len(self.scans):
            yield f"there are {len(packages)} packages of {len(self.scans)} scans"
        for package in packages:
            yield from self._wrong_package(package)
        yield from self._unfinished()
        yield from self._wrong_rows()
        yield from self._wrong_hands(site_of)
        yield from self._leftovers()

    def _wrong_package(self, package: models.RawDataPackage) -> Iterator[str]:
        files, live = self.scans[package.executed_obs_unit_id], self.observatory.copies(package.id)
        copies = {name: copy for name, copy in live.items() if copy.status not in _STAY}
        if package.state is not PackageState.ARCHIVED or copies.keys() != {*ARCHIVES, STAGED}:
            yield f"package {package.id} is {package.state}, and at {', '.join(sorted(copies))}: {package.failure}"
        for name in copies.keys() & set(ARCHIVES):
            tar = read_archived(self.observatory, self.store, name, copies[name].path)
            if {digest(tar), copies[name].checksum} != {package.checksum}:
                yield f"package {package.id} has {digest(tar)} at {name}, and {package.checksum} in the database"
            if members(tar) != files:
                yield f"package {package.id} is archived at {name} with other files than were observed"
        if STAGED in copies:
            directory = self.observatory.directory(STAGED) / copies[STAGED].path
            staged = {
                str(one.relative_to(directory)): one.read_bytes() for one in directory.rglob("*") if one.is_file()
            }
            if staged != files:
                yield f"package {package.id} is staged with other files than were observed"

    def _unfinished(self) -> Iterator[str]:
        for one in self.observatory.transfers():
            if one.status is not Status.COMPLETED:
                yield f"{one.__tablename__} {one.id} is {one.status}: {one.failure}"

    def _wrong_rows(self) -> Iterator[str]:
        with transaction(self.observatory.engine) as session:
            ended = sa.select(_Change.object_id).where(_Change.to_status == "archived")
            yield from (
                f"package {one} was archived {n} times" for one, n in Counter(session.scalars(ended)).items() if n > 1
            )
        rows = self._rows()
        live = {(name, path) for name, path, status in rows if status is not PhysicalCopyStatus.DELETED}
        keys = {key.removeprefix("fyst/") for key in self.store.list_keys()}
        for name, path, status in rows:
            is_there = path in keys if name == BUCKET_ARCHIVE else (self.observatory.directory(name) / path).exists()
            if status is PhysicalCopyStatus.WRITING or (status in {"present", "staged"} and not is_there):
                yield f"{name}/{path} is {status}, and {'there' if is_there else 'not there'}"
            if status is PhysicalCopyStatus.DELETED and is_there and (name, path) not in live:
                yield f"{name}/{path} is deleted, and there"

    def _wrong_hands(self, site_of: dict[str, str]) -> Iterator[str]:
        """Work that was done by a worker of another site than that where it lies."""
        asked: dict[tuple[str, int], str] = {}
        with transaction(self.observatory.engine) as session:
            for one in session.scalars(sa.select(_Change).order_by(_Change.id)):
                if one.to_status == Status.SCHEDULED:
                    asked[one.noun, one.object_id] = (one.because or "").removeprefix("scheduled for ")
                elif one.to_status == Status.IN_PROGRESS and one.by in site_of:
                    operation = asked[one.noun, one.object_id]
                    if site_of[one.by] != _DONE_AT.get(operation, "cologne"):
                        yield f"{operation} was done by a worker of {site_of[one.by]}"
            done = (PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.DELETION_IN_PROGRESS, PhysicalCopyStatus.DELETED)
            written = (
                sa.select(LOCATION.label, _Change.by, _Change.to_status)
                .select_from(_Change)
                .join(_Copy, _Copy.id == _Change.object_id)
                .join(models.DataLocation, models.DataLocation.id == _Copy.data_location_id)
                .join(models.Site, models.Site.id == models.DataLocation.site_id)
                .where(_Change.noun == _Copy.__tablename__, _Change.to_status.in_(done))
            )
            for name, by, status in session.execute(written):
                if by in site_of and not name.startswith(f"{site_of[by]}/"):
                    yield f"a copy at {name} was made {status} by a worker of {site_of[by]}"

    def _leftovers(self) -> Iterator[str]:
        yield from (f"{name} is left" for name in self.observatory.leftovers())
        yield from (f"{one} is left" for one in self.observatory.directory("cologne/buffer").glob("transfer/*"))
        damaged_ones = {(name, path) for name, path, status in self._rows() if status is PhysicalCopyStatus.CORRUPT}
        for name in (SOURCE, *BUFFERS):
            top = self.observatory.directory(name)
            found = {(name, str(one.relative_to(top))) for one in self.observatory.files(name)}
            yield from (f"{name}/{path} is left" for _, path in sorted(found - damaged_ones))
        of_disk = self.observatory.files(DISK_ARCHIVE)
        for name, number in ((BUCKET_ARCHIVE, len(self.store.list_keys())), (DISK_ARCHIVE, len(of_disk))):
            if number != 2 * len(self.scans):
                yield f"{number} files are in {name}"
        yield from (f"half of {one} is in the bucket" for one in self.store.unfinished())


def members(tar: bytes) -> dict[str, bytes]:
    """What a tar holds."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return {one.name: found.read() for one in opened if (found := opened.extractfile(one)) is not None}
