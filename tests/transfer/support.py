"""A telescope that writes raw files, and a transfer system whose messages are function calls."""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from ccat.cli import app
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS
from ccat_data_transfer.verbs.attempts import Worker
from ccat_data_transfer.verbs.deleting import delete_copies
from ccat_data_transfer.verbs.outcomes import NOUNS, Transfer, recover_lost
from ccat_data_transfer.verbs.planning import plan_packages
from ccat_data_transfer.verbs.products.aiming import aim
from ccat_data_transfer.verbs.retaining import mark, recover_lost_deletions, schedule_deletions
from ccat_data_transfer.verbs.scheduling import LANES, schedule_next, waiting
from ccat_data_transfer.verbs.scrubbing import archives_to_look_at, due_for_scrubbing, scrub
from ccat_data_transfer.verbs.shipping import ship
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, MODULE, OBS_MODE, SITE, find
from ccat_ops_db.moves import advance
from ccat_ops_db.plan.marks import MARK
from ccat_ops_db.session import transaction
from ccat_ops_db.states import BackendName, LocationType, Mover, PhysicalCopyStatus, RouteType
from ccat_ops_db.verbs.initialization import Seed, initialize
from ccat_ops_db.verbs.retention import set_retention
from ccat_ops_db.verbs.scans import NewFile, add_files, finish_scan, start_scan
from ccat_ops_db.verbs.staging import request_staging
from ccat_service.retries import Backoff
from tests.reference import REFERENCE, keep_rows, restore_rows
from tests.seed import straight_into_the_archive

Found = TypeVar("Found")

START: Final = datetime(2026, 4, 1, 2, 15, tzinfo=UTC)
AT_ONCE: Final = Backoff(first=timedelta(), ceiling=timedelta())


def eventually(look: Callable[[], Found], *, within: float = 10) -> Found:
    """What `look` returns as soon as it is true, asked again and again until the deadline."""
    deadline = monotonic() + within
    while not (found := look()):
        assert monotonic() < deadline, f"{look} is still {found!r} after {within} s"
        sleep(0.02)
    return found


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Observatory:
    """An initialised database with its storage: FYST's locations, and one planned observation."""

    engine: sa.Engine
    root: Path

    @property
    def worker(self) -> Worker:
        return Worker(engine=self.engine, name="worker", backoff=AT_ONCE)

    def set_up(self, seed: Callable[[], Seed] = straight_into_the_archive) -> None:
        with transaction(self.engine) as session:
            initialize(session, seed(), storage_root=self.root)
            source = models.FixedSource(name="M17", ra_deg=275.2, dec_deg=-16.2)
            program = models.ObservingProgram(short_name="Cal", name="Calibration")
            session.add_all([source, program])
            session.flush()
            mode = find(session, OBS_MODE, "OTF")
            planned = models.ObsUnit(
                name="M17 map", observing_program_id=program.id, source_id=source.id, obs_mode_id=mode.id
            )
            session.add(planned)
        self.make_directories()

    def make_directories(self) -> None:
        with transaction(self.engine) as session:
            for path in session.scalars(sa.select(models.DiskDataLocation.path)):
                Path(path).mkdir(parents=True)

    def remember(self, schema: str = REFERENCE) -> None:
        """Keep what there is now, for `forget`."""
        keep_rows(self.engine, schema)

    def forget(self, schema: str = REFERENCE) -> None:
        """Become what `remember` found."""
        restore_rows(self.engine, schema)
        shutil.rmtree(self.root)
        self.make_directories()

    def add_location(self, name: str, kind: LocationType) -> None:
        """Add a location, `site/name`, and its site if that is new."""
        short, _, short_name = name.partition("/")
        with transaction(self.engine) as session:
            site = session.scalars(sa.select(models.Site).filter_by(short_name=short)).one_or_none()
            site = site or models.Site(short_name=short, name=short)
            path = self.directory(name)
            backend = BackendName.LOCAL if kind is LocationType.PROCESSING else None
            location = models.DiskDataLocation(
                site=site, name=short_name, location_type=kind, path=str(path), backend=backend
            )
            session.add(location)
        path.mkdir(parents=True)

    def add_route(self, origin: str, destination: str, kind: RouteType = RouteType.DIRECT, **values: Any) -> None:
        """Add a route between sites, or between locations where it is CUSTOM; `via` is a site."""
        with transaction(self.engine) as session:
            sites = [find(session, SITE, name.partition("/")[0]).id for name in (origin, destination)]
            if kind is RouteType.CUSTOM:
                ends = [find(session, LOCATION, name).id for name in (origin, destination)]
                values |= {"origin_id": ends[0], "destination_id": ends[1]}
            if "via" in values:
                values["via_site_id"] = find(session, SITE, values.pop("via")).id
            defaults = {"method": Mover.COPY, "package_wait_seconds": 0}
            route = models.DataTransferRoute(
                name=f"{origin}_to_{destination}".replace("/", "-"),
                origin_site_id=sites[0],
                destination_site_id=sites[1],
                route_type=kind,
                **(defaults | values),
            )
            session.add(route)

    def directory(self, location: str) -> Path:
        return self.root / location

    def start_scan(self, *, started_at: datetime = START) -> uuid.UUID:
        scan_id = uuid.uuid4()
        with transaction(self.engine) as session:
            start_scan(session, scan_id, "M17 map", started_at=started_at)
        return scan_id

    def write(self, scan_id: uuid.UUID, files: Mapping[str, bytes], **where: str) -> None:
        """Write raw files and register them."""
        directory = self.directory(where.get("location", "ccat/chai_raw_data"))
        for name, data in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self.register(scan_id, files, **where)

    def register(
        self,
        scan_id: uuid.UUID,
        files: Mapping[str, bytes],
        *,
        module: str = "CHAI/LFA",
        location: str = "ccat/chai_raw_data",
    ) -> None:
        """Register raw files without writing them; several scans may be given the same."""
        new = [NewFile(uuid.uuid4(), name, len(data), digest(data)) for name, data in files.items()]
        with transaction(self.engine) as session:
            add_files(session, scan_id, new, module=module, location=location, again=True, by="CHAI")

    def finish_scan(self, scan_id: uuid.UUID, *, expected_files: int | None) -> None:
        with transaction(self.engine) as session:
            finish_scan(session, scan_id, ended_at=START + timedelta(minutes=5), expected_files=expected_files)

    def observe(self, files: Mapping[str, bytes]) -> int:
        """A whole scan and its one package, planned: its id."""
        scan_id = self.start_scan()
        self.write(scan_id, files)
        self.finish_scan(scan_id, expected_files=len(files))
        (package_id,) = self.plan(scan_id)
        return package_id

    def plan(self, scan_id: uuid.UUID, *, module: str = "CHAI/LFA", **options: Any) -> list[int]:
        with transaction(self.engine) as session:
            return plan_packages(session, [(scan_id, int(find(session, MODULE, module).id))], **options)

    def location_id(self, name: str) -> int:
        with transaction(self.engine) as session:
            return int(find(session, LOCATION, name).id)

    def request_staging(self, package_ids: Sequence[int]) -> list[int]:
        location_id = self.location_id("cologne/ramses")
        with transaction(self.engine) as session:
            return request_staging(session, package_ids, location_id)

    def schedule(self, operation: Operation, *, lease: timedelta = timedelta(minutes=1)) -> list[int]:
        """Schedule everything that waits for an operation, as a manager does; ids of the transfers."""
        (lane,) = (lane for lane in LANES if lane.operation == operation)
        with transaction(self.engine) as session:
            return [
                transfer_id
                for location_id, number in waiting(session, lane, outstanding=100).items()
                for _ in range(number)
                if (transfer_id := schedule_next(session, lane, location_id, by="manager", lease=lease)) is not None
            ]

    def do(self, operation: Operation) -> int:
        """Do once whatever waits for an operation; how much that was."""
        scheduled = self.schedule(operation)
        for transfer_id in scheduled:
            VERBS[operation](self.worker, transfer_id)
        return len(scheduled)

    def do_all(self) -> None:
        """Go on until nothing waits any more, lost leases included."""
        while sum(self.do(operation) for operation in VERBS) + self.ship() + self.aim():
            pass

    def aim(self) -> int:
        """Choose archives for what products are to be archived; for how many runs."""
        with transaction(self.engine) as session:
            return aim(session, by="manager")

    def ship(self) -> int:
        """Put what has to go to another site into transfer packages; how many these are."""
        with transaction(self.engine) as session:
            return ship(session, by="manager")

    def keep(self, location: str, *, days: int) -> None:
        with transaction(self.engine) as session:
            set_retention(session, location, days=days, high=None, low=None, by="Ann")

    def mark(self, location: str) -> int:
        """Look what is to go at a location, as a manager does; copies that were marked or taken back."""
        location_id = self.location_id(location)
        with transaction(self.engine) as session:
            return mark(session, location_id, by="manager")

    def schedule_deletions(self, location: str, *, lease: timedelta = timedelta(minutes=1)) -> list[int]:
        location_id = self.location_id(location)
        with transaction(self.engine) as session:
            return schedule_deletions(session, location_id, by="manager", lease=lease)

    def make_room(self, location: str) -> int:
        """Delete what is to go at a location; how many copies a worker was told of."""
        self.mark(location)
        scheduled = self.schedule_deletions(location)
        delete_copies(self.worker, scheduled)
        return len(scheduled)

    def read_again(self) -> int:
        """Read what is in doubt, or due for it, wherever it is; how many copies that is."""
        with transaction(self.engine) as session:
            places = archives_to_look_at(session)
            chosen = [copy_id for place in places for copy_id in due_for_scrubbing(session, place)]
        scrub(self.worker, chosen)
        return len(chosen)

    def recover(self) -> int:
        with transaction(self.engine) as session:
            lost = recover_lost_deletions(session, by="manager")
            return lost + sum(recover_lost(session, noun, by="manager") for noun in NOUNS)

    def one(self, noun: type[Found], **where: Any) -> Found:
        with transaction(self.engine) as session:
            return session.scalars(sa.select(noun).filter_by(**where)).one()

    def transfers(self) -> list[Transfer]:
        """All that was ever to be done."""
        with transaction(self.engine) as session:
            return [
                *session.scalars(sa.select(models.LongTermArchiveTransfer)),
                *session.scalars(sa.select(models.DataTransfer)),
                *session.scalars(sa.select(models.StagingJob)),
            ]

    def package(self, package_id: int) -> models.RawDataPackage:
        return self.one(models.RawDataPackage, id=package_id)

    def copies(self, package_id: int) -> dict[str, models.PhysicalCopy]:
        """Copies of a package that are not DELETED, by location."""
        with transaction(self.engine) as session:
            return {
                f"{copy.location.site.short_name}/{copy.location.name}": copy for copy in _live(session, package_id)
            }

    def lose_all_but_archives(self, package_id: int) -> None:
        """Nothing but archive copies of a package is left, as rows tell it."""
        copy, file = models.PhysicalCopy, models.RawDataFile
        files = sa.select(file.id).where(file.raw_data_package_id == package_id)
        archives = sa.select(models.DataLocation.id).filter_by(location_type=LocationType.LONG_TERM_ARCHIVE)
        of_package = sa.or_(copy.raw_data_package_id == package_id, copy.raw_data_file_id.in_(files))
        with transaction(self.engine) as session:
            ids = session.scalars(sa.select(copy.id).where(of_package, copy.data_location_id.not_in(archives))).all()
            advance(session, copy, ids, to=PhysicalCopyStatus.MISSING, because="a test", by="a test")

    def files(self, location: str) -> list[Path]:
        """Files at a location, but for its mark."""
        found = self.directory(location).rglob("*")
        return sorted(path for path in found if path.is_file() and path.name != MARK)

    def leftovers(self) -> list[str]:
        """Names of unfinished files anywhere, and of those that are half removed."""
        unfinished = [path for end in ("partial", "removed") for path in self.root.rglob(f"*.{end}-*")]
        return sorted(str(path.relative_to(self.root)) for path in unfinished)

    def check_that_rows_tell_what_is_there(self) -> None:
        """No copy is DELETED that exists, none PRESENT or STAGED that does not."""
        with transaction(self.engine) as session:
            rows = session.scalars(sa.select(models.PhysicalCopy).order_by(models.PhysicalCopy.id)).all()
            names = [f"{copy.location.site.short_name}/{copy.location.name}" for copy in rows]
        newest = {self.directory(name) / copy.path: copy.status for name, copy in zip(names, rows, strict=True)}
        there = {PhysicalCopyStatus.PRESENT, PhysicalCopyStatus.STAGED}
        assert {path: path.exists() for path in newest} == {path: status in there for path, status in newest.items()}
        assert self.leftovers() == []


def _live(session: Session, package_id: int) -> Sequence[models.PhysicalCopy]:
    found = sa.select(models.PhysicalCopy).filter_by(raw_data_package_id=package_id)
    return session.scalars(found.where(models.PhysicalCopy.status != "deleted")).all()


def random_files(*sizes: int) -> dict[str, bytes]:
    return {f"2026-04-01/scan-{number}.fits": os.urandom(size) for number, size in enumerate(sizes)}


def say(observatory: Observatory, *words: str, code: int = 0) -> str:
    """What a command says that ends with this exit code."""
    url = observatory.engine.url.render_as_string(hide_password=False)
    ended = CliRunner().invoke(app, words, env={"CCAT_OPS_DB_URL": url}, terminal_width=200)
    assert ended.exit_code == code, ended.output
    return ended.output
