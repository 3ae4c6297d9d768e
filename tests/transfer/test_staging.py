import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.errors import NothingToRetry
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.retrying import retry_package
from ccat_data_transfer.verbs.staging import stage
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PhysicalCopyStatus, Status
from tests.transfer.support import Observatory

FILES = {"2026-04-01/b.fits": b"b" * 1000, "2026-04-01/a.fits": b"a" * 300_000, "empty": b""}


@pytest.fixture
def package_id(observatory: Observatory) -> int:
    """An archived package, of which nothing else is left."""
    package_id = observatory.observe(FILES)
    observatory.do_all()
    observatory.lose_all_but_archives(package_id)
    return package_id


def staged(observatory: Observatory, package_id: int) -> Path:
    return observatory.directory("cologne/ramses") / "raw" / observatory.package(package_id).name


def unpacked(directory: Path) -> dict[str, bytes]:
    return {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()}


def archive_tar(observatory: Observatory, package_id: int) -> Path:
    tar = observatory.directory("cologne/lta") / observatory.copies(package_id)["cologne/lta"].path
    tar.chmod(0o644)
    return tar


def test_a_staged_package_is_a_directory_of_the_raw_files_read_only(observatory: Observatory, package_id: int) -> None:
    (job_id,) = observatory.request_staging([package_id])
    observatory.do_all()

    directory = staged(observatory, package_id)
    copy = observatory.copies(package_id)["cologne/ramses"]
    assert unpacked(directory) == FILES
    assert {file.stat().st_mode & 0o777 for file in directory.rglob("*") if file.is_file()} == {0o444}
    assert observatory.one(models.StagingJob, id=job_id).status is Status.COMPLETED
    assert (copy.status, copy.path) == (PhysicalCopyStatus.STAGED, f"raw/{directory.name}")
    assert copy.size_bytes == sum(map(len, FILES.values()))
    assert (copy.mtime_ns, copy.inode) == (directory.stat().st_mtime_ns, directory.stat().st_ino)
    assert observatory.leftovers() == []


def test_who_asks_for_the_same_package_shares_one_job(observatory: Observatory, package_id: int) -> None:
    assert len(observatory.request_staging([package_id, package_id])) == 1
    assert observatory.request_staging([package_id]) == []
    observatory.do_all()
    assert observatory.request_staging([package_id]) == []
    assert observatory.one(models.StagingJob).status is Status.COMPLETED


def test_many_that_ask_at_the_same_time_share_one_job(observatory: Observatory, package_id: int) -> None:
    barrier = threading.Barrier(4)
    new: list[int] = []

    def ask() -> None:
        barrier.wait()
        new.extend(observatory.request_staging([package_id]))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(new) == 1


def flip_a_file(tar: Path) -> None:
    with tarfile.open(tar) as opened:
        offset = opened.getmember("2026-04-01/a.fits").offset_data
    flip(tar, offset + 1000)


def flip(tar: Path, offset: int) -> None:
    data = bytearray(tar.read_bytes())
    data[offset] ^= 1
    tar.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said", "status"),
    [
        (flip_a_file, "holds 2026-04-01/a.fits with sha256:", PhysicalCopyStatus.CORRUPT),
        (lambda tar: flip(tar, 0), "cannot be read as a tar", PhysicalCopyStatus.CORRUPT),
        (lambda tar: flip(tar, -1), "has sha256:", PhysicalCopyStatus.CORRUPT),
        (lambda tar: os.truncate(tar, 100_000), "has 100000 bytes", PhysicalCopyStatus.CORRUPT),
        (Path.unlink, "is missing", PhysicalCopyStatus.MISSING),
    ],
)
def test_a_damaged_archive_copy_is_said_marked_and_never_staged(
    observatory: Observatory,
    package_id: int,
    damage: Callable[[Path], None],
    said: str,
    status: PhysicalCopyStatus,
) -> None:
    tar = archive_tar(observatory, package_id)
    damage(tar)
    observatory.request_staging([package_id])
    observatory.do_all()

    job = observatory.one(models.StagingJob)
    assert job.status is Status.FAILED
    assert f"is not staged: {tar} at location cologne/lta {said}" in (job.failure or "")
    assert observatory.copies(package_id)["cologne/lta"].status is status
    assert not staged(observatory, package_id).exists()
    assert observatory.leftovers() == []


def replace_members(observatory: Observatory, package_id: int, content: dict[str, bytes]) -> None:
    tar = archive_tar(observatory, package_id)
    source = observatory.root / "other"
    with tarfile.open(tar, "w") as opened:
        for name, data in content.items():
            source.write_bytes(data)
            opened.add(source, name)
    with transaction(observatory.engine) as session:
        copy = session.get_one(models.PhysicalCopy, observatory.copies(package_id)["cologne/lta"].id)
        copy.size_bytes = tar.stat().st_size


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({**FILES, "extra": b"x"}, "holds 'extra', which it should not"),
        ({name: data for name, data in FILES.items() if name != "empty"}, "lacks empty"),
    ],
)
def test_an_archive_copy_with_other_members_is_never_staged(
    observatory: Observatory, package_id: int, content: dict[str, bytes], said: str
) -> None:
    replace_members(observatory, package_id, content)
    observatory.request_staging([package_id])
    observatory.do_all()

    assert said in (observatory.one(models.StagingJob).failure or "")


def test_all_that_is_wrong_with_an_archive_copy_is_named_up_to_some_and_counted(observatory: Observatory) -> None:
    files = {f"{number:02}.fits": b"right" for number in range(14)}
    package_id = observatory.observe(files)
    observatory.do_all()
    observatory.lose_all_but_archives(package_id)
    damaged = {**dict.fromkeys(list(files)[:8], b"wrong"), "extra": b"x"}
    replace_members(observatory, package_id, damaged)
    observatory.request_staging([package_id])
    observatory.do_all()

    failure = observatory.one(models.StagingJob).failure or ""
    assert all(f"holds {name} with sha256:" in failure for name in list(files)[:8])
    assert "holds 'extra', which it should not; lacks 08.fits; and 5 more." in failure
    assert not staged(observatory, package_id).exists()


def test_without_a_sound_archive_copy_a_job_says_so(observatory: Observatory, package_id: int) -> None:
    archive_tar(observatory, package_id).unlink()
    observatory.request_staging([package_id])
    observatory.do_all()
    (again,) = observatory.request_staging([package_id])
    observatory.do_all()

    failure, copy = (
        observatory.one(models.StagingJob, id=again).failure or "",
        observatory.copies(package_id)["cologne/lta"],
    )
    assert "has no sound archive copy to stage from: that at cologne/lta, " in failure
    assert failure.endswith(
        f"{copy.path}, is missing and cannot be made anew. Restore that tar there, or its raw files where they were "
        f"recorded, then `ccat package retry {package_id}`, or `ccat package exclude` it."
    )


def test_an_archive_copy_that_comes_back_is_used_again_when_it_is_said_so(
    observatory: Observatory, package_id: int
) -> None:
    tar = archive_tar(observatory, package_id)
    tar.rename(tar.with_name("away"))
    observatory.request_staging([package_id])
    observatory.do_all()
    assert f"`ccat package retry {package_id}` has it used again" in (observatory.one(models.StagingJob).failure or "")
    tar.with_name("away").rename(tar)
    with transaction(observatory.engine) as session:
        retry_package(session, package_id, by="an operator")
    (again,) = observatory.request_staging([package_id])
    observatory.do_all()
    assert observatory.one(models.StagingJob, id=again).status is Status.COMPLETED
    with transaction(observatory.engine) as session, pytest.raises(NothingToRetry, match="is archived; what can be"):
        retry_package(session, package_id, by="an operator")


def test_a_package_that_is_staged_already_is_not_copied_again(observatory: Observatory, package_id: int) -> None:
    observatory.request_staging([package_id])
    observatory.do_all()
    before = staged(observatory, package_id).stat()
    with transaction(observatory.engine) as session:
        location_id = observatory.location_id("cologne/ramses")
        session.add(models.StagingJob(raw_data_package_id=package_id, data_location_id=location_id))
    observatory.do_all()

    with transaction(observatory.engine) as session:
        assert set(session.scalars(sa.select(models.StagingJob.status))) == {Status.COMPLETED}
    assert staged(observatory, package_id).stat() == before


def test_a_staged_package_that_somebody_removed_is_staged_anew(observatory: Observatory, package_id: int) -> None:
    observatory.request_staging([package_id])
    observatory.do_all()
    directory = staged(observatory, package_id)
    directory.rename(observatory.root / "away")
    with transaction(observatory.engine) as session:
        location_id = observatory.location_id("cologne/ramses")
        session.add(models.StagingJob(raw_data_package_id=package_id, data_location_id=location_id))
    observatory.do_all()

    assert unpacked(directory) == FILES
    assert observatory.copies(package_id)["cologne/ramses"].status is PhysicalCopyStatus.STAGED


def rewrite(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[::-1])


def put_in_place_of(file: Path) -> None:
    """Other bytes under the same name, of the same age."""
    other = file.with_name("other")
    other.write_bytes(bytes(file.stat().st_size))
    os.utime(other, ns=(0, file.stat().st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("change", [Path.unlink, rewrite, put_in_place_of, lambda file: file.with_name("x").touch()])
def test_a_change_anywhere_in_a_staged_package_is_noticed_before_it_is_used_again(
    observatory: Observatory, package_id: int, change: Callable[[Path], None]
) -> None:
    observatory.request_staging([package_id])
    observatory.do_all()
    before = observatory.copies(package_id)["cologne/ramses"]
    directory = staged(observatory, package_id)
    change(directory / "2026-04-01/a.fits")
    with transaction(observatory.engine) as session:
        session.add(models.StagingJob(raw_data_package_id=package_id, data_location_id=before.data_location_id))
    observatory.do_all()

    assert unpacked(directory) == FILES
    after = observatory.copies(package_id)["cologne/ramses"]
    assert (after.status, after.id == before.id) == (PhysicalCopyStatus.STAGED, False)
    [told] = [one for one in changes(observatory, before.id) if one.to_status == "corrupt"]
    assert told.because.startswith(f"{directory} at location cologne/ramses has ")


def changes(observatory: Observatory, copy_id: int) -> list[models.StatusChange]:
    with transaction(observatory.engine) as session:
        found = sa.select(models.StatusChange).filter_by(noun="physical_copy", object_id=copy_id)
        return list(session.scalars(found))


def test_a_complete_directory_from_before_is_adopted(observatory: Observatory, package_id: int) -> None:
    directory = staged(observatory, package_id)
    for name, data in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    inode = directory.stat().st_ino
    observatory.request_staging([package_id])
    observatory.do_all()

    assert directory.stat().st_ino == inode
    assert observatory.copies(package_id)["cologne/ramses"].status is PhysicalCopyStatus.STAGED


def test_a_directory_from_before_with_wrong_files_is_replaced(observatory: Observatory, package_id: int) -> None:
    directory = staged(observatory, package_id)
    (directory / "2026-04-01").mkdir(parents=True)
    (directory / "2026-04-01/a.fits").write_bytes(b"something else")
    observatory.request_staging([package_id])
    observatory.do_all()

    assert unpacked(directory) == FILES
    assert observatory.leftovers() == []


def test_a_cancelled_job_is_not_done(observatory: Observatory, package_id: int) -> None:
    (job_id,) = observatory.request_staging([package_id])
    assert observatory.schedule(Operation.STAGING) == [job_id]
    with transaction(observatory.engine) as session:
        advance(session, models.StagingJob, [job_id], to=Status.CANCELLED, because="not needed", by="a test")
    stage(observatory.worker, job_id)

    assert not staged(observatory, package_id).exists()
    assert observatory.one(models.StagingJob).status is Status.CANCELLED
