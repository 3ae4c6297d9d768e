"""What arrives damaged from another site is not called so from there: the disk that it came to may be what is bad."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer import archives
from ccat_data_transfer.backends.movers import NotBrought, Parcel, Rsync
from ccat_data_transfer.backends.posix import Disk
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.tasks import VERBS
from ccat_data_transfer.verbs import staging
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, Mover, PhysicalCopyStatus, RouteType, Status
from ccat_ops_db.verbs.spaces import record_served
from ccat_service.servers import RedisSettings
from ccat_service.tasks import make_celery_app
from tests.transfer.reductions import Reductions
from tests.transfer.support import START, Observatory
from tests.transfer.test_fetching import FILES, TREE, archived, ask, check, damage, delete, fetch, jobs
from tests.transfer.test_product_routes import FILES as MADE
from tests.transfer.test_product_routes import TREE as OF_MADE
from tests.transfer.test_product_routes import check_archived
from tests.transfer.test_reaching import FILES as RAW
from tests.transfer.test_reaching import check as check_staged

HOME, ARCHIVE, FAR = "cologne/ramses", "cologne/lta", "us/hpc"
SOUND = PhysicalCopyStatus.PRESENT


class BadDisk(Rsync):
    """Brings files to a disk that does not keep what is written."""

    def __call__(self, parcel: Parcel, into: Path, *, progress: Callable[[], None]) -> NotBrought:
        bad = super().__call__(parcel, into, progress=progress)
        for file in into.rglob("*"):
            if file.is_file() and file.stat().st_size:
                damage(file)
        return bad


def on_bad_disk(observatory: Observatory, operation: Operation) -> None:
    worker = replace(observatory.worker, rsync=BadDisk())
    for transfer_id in observatory.schedule(operation):
        VERBS[operation](worker, transfer_id)


@pytest.fixture
def sites(far: Observatory) -> Iterator[Reductions]:
    """Products are made in Cologne, where the archive is, and are wanted in the US."""
    far.add_location(FAR, LocationType.PROCESSING)
    made = Reductions(far)
    yield made
    made.end()


def in_doubt(sites: Reductions, run_id: int, at: str) -> set[bool]:
    copies = sites.copies(run_id, at).values()
    assert {copy.status for copy in copies} == {SOUND}
    return {copy.verified_at is None for copy in copies}


def failure(sites: Reductions) -> str:
    found = {job.failure for job in jobs(sites) if job.status is Status.PENDING}
    return max(one or "" for one in found)


def test_a_product_that_a_bad_disk_spoils_is_read_in_its_archive_and_not_condemned(sites: Reductions) -> None:
    run_id = archived(sites)
    sites.observatory.add_route("cologne", "us", method=Mover.RSYNC)
    ask(sites, run_id, FAR)
    on_bad_disk(sites.observatory, Operation.STAGING)
    assert in_doubt(sites, run_id, ARCHIVE) == {True}
    assert "If it is sound there, check the disk of location us/hpc and the way to it. It is tried again." in failure(
        sites
    )
    sites.observatory.do(Operation.STAGING)
    assert "waits for its copy at cologne/lta to be read again there" in failure(sites)

    assert sites.observatory.read_again() == len(FILES) + 1
    assert in_doubt(sites, run_id, ARCHIVE) == {False}
    assert {job.status for job in fetch(sites, run_id, FAR)} == {Status.COMPLETED}
    check(sites, run_id, FAR)


def test_another_copy_is_taken_while_one_is_in_doubt(sites: Reductions) -> None:
    run_id = sites.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")
    sites.archive()
    sites.observatory.add_route("cologne", "us", method=Mover.RSYNC)
    ask(sites, run_id, FAR)
    on_bad_disk(sites.observatory, Operation.STAGING)
    assert (in_doubt(sites, run_id, HOME), in_doubt(sites, run_id, ARCHIVE)) == ({True}, {False})
    fetch(sites, run_id, FAR)
    check(sites, run_id, FAR)
    assert in_doubt(sites, run_id, HOME) == {True}


def test_products_that_a_bad_buffer_spoils_are_sent_again_once_they_were_read_where_they_were_made(
    far: Observatory,
) -> None:
    far.add_location(FAR, LocationType.PROCESSING)
    far_maps = Reductions(far, FAR)
    run_id = far_maps.make({**MADE, **OF_MADE}, executable="science/cube.zarr/run.sh")
    far.add_route("us", "cologne", method=Mover.RSYNC)
    far.aim()
    on_bad_disk(far, Operation.TRANSFERRING_PRODUCTS)
    assert in_doubt(far_maps, run_id, FAR) == {True, False}, "what is empty came as it was"
    far.do(Operation.TRANSFERRING_PRODUCTS)
    [waiting] = far_maps.transfers(run_id)
    assert f"Run {run_id} waits for its copy at {FAR} to be read again there" in (waiting.failure or "")
    assert far.read_again() == len(MADE)
    far_maps.archive()
    check_archived(far_maps, run_id)


def test_what_is_in_doubt_is_told_to_the_workers_of_its_location_at_once_whatever_that_is(
    sites: Reductions, redis_settings: RedisSettings
) -> None:
    far, run_id = sites.observatory, sites.make(FILES)
    sites.archive()
    far.add_route("cologne", "us", method=Mover.RSYNC)
    tend = partial(archives.tend, far.engine, make_celery_app(redis_settings, name="tests"), by="manager")
    tend()
    for place in (HOME, ARCHIVE):
        with transaction(far.engine) as session:
            find(session, LOCATION, place).scrub_days = 0
        ask(sites, run_id, FAR)
        on_bad_disk(far, Operation.STAGING)
        assert in_doubt(sites, run_id, place) == {True}
        assert tend() == len(FILES)
        assert tend() == 0, "it is read by now, or soon"


# What people are told


def told(far: Observatory, key: str) -> list[str]:
    with transaction(far.engine) as session:
        return [one.sentence for one in conditions(session, late=START) if one.key == key]


def test_what_is_staged_in_vain_is_told_of_until_it_is_there(far: Observatory, package_id: int) -> None:
    key = f"staged in vain {FAR}"
    on_bad_disk(far, Operation.STAGING)
    for _ in range(4):
        assert told(far, key) == []
        far.do(Operation.STAGING)
    failure = far.one(models.StagingJob).failure or ""
    assert "waits for its copy at cologne/lta to be read again there" in failure
    [sentence] = told(far, key)
    assert sentence == (
        f"1 raw package or product met trouble 5 times or more on the way to {FAR}, where runs take them, such as: "
        f"{failure} `ccat transfer status` says what is in the way"
    )
    far.read_again()
    far.do(Operation.STAGING)
    assert told(far, key) == []
    check_staged(far, package_id)


def test_what_is_in_doubt_where_nobody_would_read_it_is_told_of(far: Observatory, package_id: int) -> None:
    key = f"in doubt {ARCHIVE}"
    assert told(far, key) == []
    on_bad_disk(far, Operation.STAGING)
    [sentence] = told(far, key)
    assert sentence == (
        f"1 copy in doubt is to be read at {ARCHIVE} before anything is brought from there, such as "
        f"{far.copies(package_id)[ARCHIVE].path}, and no transfer-worker serves it: "
        f"start `ccat transfer-worker --location {ARCHIVE}` on a host that has it"
    )
    with transaction(far.engine) as session:
        record_served(session, [far.location_id(ARCHIVE)])
    assert told(far, key) == []


# Directories and their listings


@pytest.mark.parametrize("method", [Mover.COPY, Mover.RSYNC])
def test_a_directory_comes_from_an_archive_along_a_custom_route(sites: Reductions, method: Mover) -> None:
    run_id = archived(sites)
    sites.observatory.add_route(ARCHIVE, FAR, RouteType.CUSTOM, method=method)
    assert {job.failure for job in fetch(sites, run_id, FAR)} == {None}
    check(sites, run_id, FAR)
    assert in_doubt(sites, run_id, ARCHIVE) == {False}


@pytest.mark.parametrize("method", [Mover.COPY, Mover.RSYNC])
def test_a_directory_whose_listing_is_gone_is_found_so_by_its_archive(sites: Reductions, method: Mover) -> None:
    run_id = archived(sites)
    sites.observatory.add_route(ARCHIVE, FAR, RouteType.CUSTOM, method=method)
    [listing] = sites.observatory.directory(ARCHIVE).rglob("*.listing")
    listing.unlink()
    ask(sites, run_id, FAR)
    sites.observatory.do(Operation.STAGING)
    assert f"{listing} at location {ARCHIVE} is missing" in failure(sites)
    sites.observatory.read_again()
    assert sites.copies(run_id, ARCHIVE)["science/cube.zarr"].status is PhysicalCopyStatus.MISSING


# Raw packages


@pytest.fixture
def package_id(far: Observatory) -> int:
    """A package that is archived in Cologne, and wanted in the US."""
    far.add_location(FAR, LocationType.PROCESSING)
    package_id = far.observe(RAW)
    far.do_all()
    far.add_route("cologne", "us", method=Mover.RSYNC)
    with transaction(far.engine) as session:
        staging_job = models.StagingJob(
            raw_data_package_id=package_id, data_location_id=far.location_id(FAR), status=Status.PENDING
        )
        session.add(staging_job)
    return package_id


def archive_copy(far: Observatory, package_id: int) -> tuple[PhysicalCopyStatus, bool]:
    copy = far.copies(package_id)[ARCHIVE]
    return copy.status, copy.verified_at is not None


def test_a_package_that_a_bad_disk_spoils_is_read_in_its_archive_and_not_condemned(
    far: Observatory, package_id: int
) -> None:
    on_bad_disk(far, Operation.STAGING)
    assert archive_copy(far, package_id) == (SOUND, False)
    far.do(Operation.STAGING)
    said = far.one(models.StagingJob).failure or ""
    assert said.startswith(f"Package {far.package(package_id).name} waits for its copy at {ARCHIVE} to be read again")
    assert far.read_again() == 1
    assert archive_copy(far, package_id) == (SOUND, True)
    far.do(Operation.STAGING)
    check_staged(far, package_id)


def cut(file: Path) -> None:
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-1000])


@pytest.mark.parametrize("how", [damage, cut, Path.unlink])
def test_a_tar_that_becomes_bad_where_it_was_brought_is_brought_again(
    far: Observatory, package_id: int, monkeypatch: pytest.MonkeyPatch, how: Callable[[Path], object]
) -> None:
    unpack = staging._unpack

    def spoil(tree: Any, *, order: Any, store: Disk, path: str) -> None:
        how(store.where(path))
        unpack(tree, order=order, store=store, path=path)

    with monkeypatch.context() as patched:
        patched.setattr(staging, "_unpack", spoil)
        far.do(Operation.STAGING)
    job = far.one(models.StagingJob)
    assert (job.status, archive_copy(far, package_id)) == (Status.PENDING, (SOUND, True))
    assert f"Location {FAR} ({far.directory(FAR)}) does not keep what is brought there: " in (job.failure or "")
    far.do(Operation.STAGING)
    check_staged(far, package_id)


# What a worker leaves that dies


def die_removing(monkeypatch: pytest.MonkeyPatch, observatory: Observatory) -> None:
    """Let a worker die before it removes what was brought, and another go on."""

    def die(_: Disk, path: str, **__: Any) -> None:
        if path.startswith("transfer/"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Disk, "remove", die)
        for job_id in observatory.schedule(Operation.STAGING):
            with pytest.raises(KeyboardInterrupt):
                VERBS[Operation.STAGING](observatory.worker, job_id)
    assert list((observatory.directory(FAR) / "transfer").iterdir()) != []
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.StagingJob).values(lease_until=sa.func.now()))
    assert observatory.recover() > 0
    observatory.do(Operation.STAGING)
    assert list((observatory.directory(FAR) / "transfer").iterdir()) == []


def test_a_tar_is_gone_though_whoever_unpacked_it_died(
    far: Observatory, package_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_removing(monkeypatch, far)
    check_staged(far, package_id)


def test_the_directory_that_a_product_arrived_in_is_gone_though_whoever_brought_it_died(
    sites: Reductions, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = sites.make({**FILES, **TREE}, executable="science/cube.zarr/run.sh")
    sites.archive()
    delete(sites, run_id)
    sites.observatory.add_route("cologne", "us", method=Mover.RSYNC)
    ask(sites, run_id, FAR)
    die_removing(monkeypatch, sites.observatory)
    check(sites, run_id, FAR)
