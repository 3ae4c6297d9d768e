"""Two sites on one machine: a directory of its own for each, and workers that serve only theirs, one with the keys of
the archive."""

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, Mover, PackageState, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.locating import InBucket, add_location
from ccat_service.servers import RedisSettings
from tests.ssh_server import SshServer, ssh_server
from tests.transfer.object_store import BUCKET, ENVIRONMENT, ObjectStore
from tests.transfer.processes import CCAT, Process, settings_of
from tests.transfer.support import Observatory, digest, eventually, random_files, say

WORKER, MANAGER = "transfer-worker", "transfer-manager"
LONG = 40
ARCHIVE = "cologne/s3"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture
def s3(far: Observatory, object_store: ObjectStore) -> ObjectStore:
    """The preferred archive is a bucket at Cologne, behind its buffer."""
    place = InBucket(bucket=BUCKET, prefix="fyst", endpoint_url=f"http://127.0.0.1:{object_store.port}")
    kind = LocationType.LONG_TERM_ARCHIVE
    with transaction(far.engine) as session:
        add_location(session, "cologne", "s3", place=place, location_type=kind, priority=10)
    return object_store


class Sites:
    """The processes: one manager, and a worker for each site."""

    def __init__(self, observatory: Observatory, redis: RedisSettings, directory: Path) -> None:
        self._variables = settings_of(observatory.engine.url.render_as_string(hide_password=False), redis)
        self._directory = directory
        self._running: list[Process] = []

    def start(self, *words: str, **variables: str) -> Process:
        log = self._directory / "-".join(words).replace("/", "-")
        self._running.append(Process([*CCAT, *words], self._variables | variables, log=log))
        return self._running[-1]

    def stop(self) -> None:
        for process in self._running:
            process.stop()

    def end(self) -> None:
        for process in self._running:
            process.end()


@pytest.fixture
def sites(far: Observatory, redis_settings: RedisSettings, tmp_path: Path) -> Iterator[Sites]:
    sites = Sites(far, redis_settings, tmp_path)
    yield sites
    sites.end()


def path_with_ssh(server: SshServer, directory: Path) -> str:
    """PATH on which `ssh` is one that the server lets in, as ~/.ssh/config has it elsewhere."""
    program = directory / "bin/ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} {server.shell.removeprefix("ssh")} "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:/usr/sbin:/usr/bin:/sbin:/bin"


def observe(observatory: Observatory, files: dict[str, bytes]) -> None:
    """An instrument's scan; to make packages of it is left to the manager."""
    scan_id = observatory.start_scan()
    observatory.write(scan_id, files)
    observatory.finish_scan(scan_id, expected_files=len(files))


def packages(observatory: Observatory, state: PackageState, number: int) -> Sequence[int]:
    """Ids of the packages, once so many have this state."""
    with transaction(observatory.engine) as session:
        found = session.scalars(sa.select(models.RawDataPackage.id).filter_by(state=state)).all()
    return sorted(found) if len(found) == number else ()


def is_staged(observatory: Observatory, jobs: Sequence[int]) -> bool:
    return all(observatory.one(models.StagingJob, id=job).status is Status.COMPLETED for job in jobs)


def who_did_what(observatory: Observatory) -> set[tuple[str, str]]:
    """Each operation that anything was scheduled for, with who took it then."""
    change, found, asked = models.StatusChange, set(), {}
    with transaction(observatory.engine) as session:
        for one in session.scalars(sa.select(change).order_by(change.id)):
            if one.to_status == Status.SCHEDULED:
                asked[one.noun, one.object_id] = (one.because or "").removeprefix("scheduled for ")
            elif one.to_status == Status.IN_PROGRESS:
                found.add((asked[one.noun, one.object_id], one.by or ""))
    return found


def who_wrote(observatory: Observatory) -> dict[str, set[str]]:
    """Location → who signed whatever became of copies there."""
    change, copy, found = models.StatusChange, models.PhysicalCopy, dict[str, set[str]]()
    with transaction(observatory.engine) as session:
        rows = session.execute(
            sa.select(LOCATION.label, change.by)
            .select_from(change)
            .join(copy, copy.id == change.object_id)
            .join(models.DataLocation, models.DataLocation.id == copy.data_location_id)
            .join(models.Site, models.Site.id == models.DataLocation.site_id)
            .where(change.noun == copy.__tablename__)
        )
        for name, by in rows:
            found.setdefault(name, set()).add(by)
    return found


def check(observatory: Observatory, s3: ObjectStore, package_id: int, files: dict[str, bytes]) -> None:
    package, copies = observatory.package(package_id), observatory.copies(package_id)
    assert copies.keys() == {"ccat/buffer", "cologne/buffer", ARCHIVE, "cologne/ramses"}
    for name in ("ccat/buffer", "cologne/buffer"):
        assert digest((observatory.directory(name) / copies[name].path).read_bytes()) == package.checksum
    key = f"fyst/{copies[ARCHIVE].path}"
    assert digest(s3.get(key)) == copies[ARCHIVE].checksum == package.checksum
    sidecar = json.loads(s3.get(f"{key.removesuffix('.tar')}.json"))
    assert sidecar["tar"]["checksum"] == package.checksum
    assert {one["path"]: one["checksum"] for one in sidecar["files"]} == {n: digest(d) for n, d in files.items()}
    staged = observatory.directory("cologne/ramses") / copies["cologne/ramses"].path
    assert {str(one.relative_to(staged)): one.read_bytes() for one in staged.rglob("*") if one.is_file()} == files
    assert copies["cologne/ramses"].status is PhysicalCopyStatus.STAGED


def test_every_stage_is_done_by_the_workers_of_its_site_and_by_no_others(
    far: Observatory, s3: ObjectStore, sites: Sites, server: SshServer, tmp_path: Path
) -> None:
    first, second = random_files(1_200_000, 3), {"night/second.fits": b"s" * 700_000}
    manager, ccat = sites.start(MANAGER), sites.start(WORKER, "--location", "ccat")
    observe(far, first)
    [one] = eventually(partial(packages, far, PackageState.TRANSFERRING, 1), within=LONG)
    assert who_did_what(far) == {("packing", ccat.signs(WORKER))}
    assert list(far.directory("cologne").rglob("*.tar*")) == []
    assert s3.list_keys() == []

    path = path_with_ssh(server, tmp_path)
    cologne = sites.start(WORKER, "--location", "cologne", PATH=path, **ENVIRONMENT)
    eventually(partial(packages, far, PackageState.ARCHIVED, 1), within=LONG)
    with transaction(far.engine) as session:
        session.execute(sa.update(models.DataTransferRoute).values(method=Mover.RSYNC))
    say(far, "location", "move", "ccat/buffer", "--host", server.host)
    observe(far, second)
    _, two = eventually(partial(packages, far, PackageState.ARCHIVED, 2), within=LONG)
    eventually(partial(is_staged, far, far.request_staging([one, two])), within=LONG)
    sites.stop()

    check(far, s3, one, first)
    check(far, s3, two, second)
    here, there = ccat.signs(WORKER), cologne.signs(WORKER)
    assert who_did_what(far) == {
        ("packing", here),
        *((operation, there) for operation in ("transferring", "unpacking", "archiving", "staging")),
    }
    at_source = "ccat/chai_raw_data"
    by = {name: signed for name, signed in who_wrote(far).items() if name != at_source}
    assert by == {"ccat/buffer": {here}, **{name: {there} for name in ("cologne/buffer", ARCHIVE, "cologne/ramses")}}
    assert not any(far.directory("cologne/buffer").glob("transfer/*"))
    assert far.leftovers() == []
    assert "transfer.cologne_" not in ccat.log()
    assert "transfer.ccat_" not in cologne.log()
    assert "transfer failed" not in ccat.log() + cologne.log() + manager.log()
