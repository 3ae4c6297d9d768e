"""Packages are staged from archives of other sites: along a route, compared there, and only where one leads."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.backends.movers import Rsync
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.discarding import choose_given_up, discard
from ccat_data_transfer.verbs.staging import stage
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.sets import table_of
from ccat_ops_db.states import LocationType, Mover, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.restoring import trust_no_archive
from ccat_ops_db.verbs.staging import request_staging
from tests.ssh_server import SshServer, ssh_server
from tests.transfer.support import Observatory

FILES = {"night/a.fits": b"a" * 300_000, "night/b.fits": b"b" * 1000}
FAR, ARCHIVE = "us/hpc", "cologne/lta"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    with ssh_server(tmp_path) as found:
        yield found


@pytest.fixture
def package_id(far: Observatory) -> int:
    """A package that is archived in Cologne; runs are in the US."""
    far.add_location(FAR, LocationType.PROCESSING)
    package_id = far.observe(FILES)
    far.do_all()
    return package_id


def want(far: Observatory, package_id: int) -> None:
    with transaction(far.engine) as session:
        request_staging(session, [package_id], far.location_id(FAR))


def give_route(far: Observatory, server: SshServer) -> None:
    far.add_route("cologne", "us", method=Mover.RSYNC)
    with transaction(far.engine) as session:
        session.execute(sa.update(table_of(models.DiskDataLocation)).values(host=server.host))


def work(far: Observatory, server: SshServer) -> models.StagingJob:
    """What a worker at the site of the runs does; the job afterwards."""
    worker = replace(far.worker, rsync=Rsync(server.shell))
    for job_id in far.schedule(Operation.STAGING):
        stage(worker, job_id)
    return far.one(models.StagingJob)


def check(far: Observatory, package_id: int) -> None:
    copy = far.copies(package_id)[FAR]
    directory = far.directory(FAR) / copy.path
    assert copy.status is PhysicalCopyStatus.STAGED
    assert {str(one.relative_to(directory)): one.read_bytes() for one in directory.rglob("*") if one.is_file()} == FILES
    assert brought(far) == []


def is_in_doubt(far: Observatory, package_id: int) -> bool:
    copy = far.copies(package_id)[ARCHIVE]
    assert copy.status is PhysicalCopyStatus.PRESENT
    return copy.verified_at is None


def brought(far: Observatory) -> list[Path]:
    return list((far.directory(FAR) / "transfer").glob("*"))


def test_a_package_comes_along_a_route_and_leaves_no_tar(far: Observatory, server: SshServer, package_id: int) -> None:
    give_route(far, server)
    want(far, package_id)
    assert work(far, server).status is Status.COMPLETED
    check(far, package_id)


def test_after_a_backup_was_restored_a_package_is_brought_before_its_archive_was_read(
    far: Observatory, server: SshServer, package_id: int
) -> None:
    give_route(far, server)
    with transaction(far.engine) as session:
        assert trust_no_archive(session) == 1
    want(far, package_id)
    assert work(far, server).status is Status.COMPLETED
    check(far, package_id)
    assert is_in_doubt(far, package_id), "it counts once it was read where it lies"


def test_where_no_route_leads_from_it_waits_until_there_is_one_and_no_copy_is_called_missing(
    far: Observatory, server: SshServer, package_id: int
) -> None:
    want(far, package_id)
    waiting = work(far, server)
    assert waiting.failure == (
        f"Package {far.package(package_id).name} cannot be brought to us/hpc from cologne/lta: no direct route leads "
        "from that site. `ccat route add` makes one. It is tried again."
    )
    assert waiting.status is Status.PENDING
    assert far.copies(package_id)[ARCHIVE].status is PhysicalCopyStatus.PRESENT
    give_route(far, server)
    assert work(far, server).status is Status.COMPLETED
    check(far, package_id)


def test_what_arrives_damaged_twice_is_read_in_its_archive_and_made_anew_if_it_is_damaged_there(
    far: Observatory, server: SshServer, package_id: int
) -> None:
    give_route(far, server)
    tar = far.directory(ARCHIVE) / far.copies(package_id)[ARCHIVE].path
    tar.chmod(0o644)
    tar.write_bytes(tar.read_bytes()[:-1] + b"x")
    want(far, package_id)
    assert work(far, server).status is Status.PENDING
    assert is_in_doubt(far, package_id)
    assert far.read_again() == 1
    assert far.copies(package_id)[ARCHIVE].status is PhysicalCopyStatus.CORRUPT
    for operation in (Operation.PACKING, Operation.TRANSFERRING, Operation.UNPACKING, Operation.ARCHIVING):
        far.ship()
        far.do(operation)
    assert work(far, server).status is Status.COMPLETED
    check(far, package_id)


def test_what_was_brought_for_a_staging_that_nobody_wants_any_more_is_removed(
    far: Observatory, server: SshServer, package_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_route(far, server)
    want(far, package_id)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ccat_data_transfer.verbs.staging._unpack_files", die)
        with pytest.raises(KeyboardInterrupt):
            work(far, server)
    assert len(brought(far)) == 1
    with transaction(far.engine) as session:
        [job_id] = session.scalars(sa.select(models.StagingJob.id))
        idle = {"claimed_by": None, "lease_until": None}
        advance(session, models.StagingJob, [job_id], to=Status.CANCELLED, because="a test", by="a test", values=idle)
    with transaction(far.engine) as session:
        lease = timedelta(minutes=1)
        chosen = choose_given_up(session, far.location_id(FAR), by="manager", lease=lease)
    discard(far.worker, chosen)
    assert (len(chosen), brought(far), FAR in far.copies(package_id)) == (1, [], False)


@pytest.mark.parametrize("how_far", [1, 2, 3])
def test_an_archive_copy_that_is_to_be_deleted_is_taken_back_until_it_is_let_go(
    observatory: Observatory, how_far: int
) -> None:
    package_id = observatory.observe(FILES)
    observatory.do_all()
    observatory.request_staging([package_id])
    way = [one for one in PhysicalCopyStatus if one.value.startswith("deletion")][:how_far]
    copy_id = observatory.copies(package_id)[ARCHIVE].id
    with transaction(observatory.engine) as session:
        session.execute(sa.text("ALTER TABLE physical_copy DISABLE TRIGGER keep_last_copies"))
        for status in way:
            advance(session, models.PhysicalCopy, [copy_id], to=status, because="a test", by="a test")
        session.execute(sa.text("ALTER TABLE physical_copy ENABLE TRIGGER keep_last_copies"))
    observatory.do(Operation.STAGING)
    job, status = observatory.one(models.StagingJob), observatory.copies(package_id)[ARCHIVE].status
    if how_far < 3:
        assert (job.status, status) == (Status.COMPLETED, PhysicalCopyStatus.PRESENT)
    else:
        assert (job.status, status) == (Status.PENDING, PhysicalCopyStatus.DELETION_IN_PROGRESS)
        assert "just now: that at cologne/lta is deletion_in_progress. What was let go" in (job.failure or "")
