"""No two buffers or archives are one place in truth: each bears a mark, and whoever finds another's goes no further."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.surveying import look_through
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.plan.marks import MARK, UNFINISHED_MARK, Mark, read, written
from ccat_ops_db.session import transaction
from ccat_ops_db.states import LocationType, PackageState, PhysicalCopyStatus
from ccat_ops_db.verbs.locating import InBucket, add_location
from ccat_service.spaces import PROBE, AnothersDirectory, NothingThere, mark_of, measure_space, require_mounted
from tests.transfer.object_store import BUCKET, ENVIRONMENT, ObjectStore, Road
from tests.transfer.support import Observatory, say

FILES = {"2026-04-01/a.fits": b"a" * 30_000, "2026-04-01/b.fits": b"b"}
ARCHIVE, OTHER, BUFFER, STORE = "cologne/lta", "us/lta", "ccat/buffer", "cologne/s3"


@pytest.fixture
def alias(observatory: Observatory) -> Iterator[Observatory]:
    """A second archive, at another site, whose directory is a link to that of the first; raw data want two copies."""
    observatory.add_location(OTHER, LocationType.LONG_TERM_ARCHIVE)
    lie_in(observatory, OTHER, ARCHIVE)
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=2))
        find(session, LOCATION, OTHER).active = False
    for origin, destination in (("ccat", "us"), ("cologne", "us")):
        observatory.add_route(origin, destination)
    yield observatory
    for link in (path for path in observatory.root.rglob("*") if path.is_symlink()):
        link.unlink()


def lie_in(observatory: Observatory, location: str, other: str) -> None:
    """Make the directory of a location a link to that of another."""
    observatory.directory(location).rmdir()
    observatory.directory(location).symlink_to(observatory.directory(other))


def archive_twice(observatory: Observatory, first: str, second: str) -> int:
    """Archive a package in one archive, and try to make the copy in the other; its id."""
    package_id = observatory.observe(FILES)
    for operation in (Operation.PACKING, Operation.ARCHIVING):
        observatory.do(operation)
    with transaction(observatory.engine) as session:
        find(session, LOCATION, second).active = True
        look_through(session, by="manager")
    assert observatory.copies(package_id)[first].verified_at is not None
    for operation in (Operation.RESTORING, Operation.ARCHIVING):
        observatory.do(operation)
    return package_id


def trouble(observatory: Observatory) -> str:
    """What is in the way of the one transfer that is not done."""
    [failure] = [one.failure for one in observatory.transfers() if one.failure]
    return failure


def mark_told(observatory: Observatory, location: str) -> dict[str, str]:
    told: dict[str, str] = json.loads((observatory.directory(location) / MARK).read_bytes())
    return told


def test_the_first_file_that_is_written_leaves_a_mark_in_buffers_and_archives_alone(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    observatory.request_staging([package_id])
    observatory.do_all()
    marked = {str(path.parent.relative_to(observatory.root)) for path in observatory.root.rglob(MARK)}
    assert marked == {ARCHIVE, BUFFER}
    with transaction(observatory.engine) as session:
        identity = find(session, LOCATION, ARCHIVE).identity
    told = mark_told(observatory, ARCHIVE)
    assert (told["location"], told["identity"]) == (ARCHIVE, str(identity))
    assert observatory.leftovers() == []


def test_a_link_to_another_archive_gets_no_copy_that_would_count(alias: Observatory) -> None:
    package_id = archive_twice(alias, ARCHIVE, OTHER)
    copy = alias.copies(package_id)[OTHER]
    assert (copy.status, copy.verified_at) == (PhysicalCopyStatus.WRITING, None)
    said = trouble(alias)
    assert f"Location {OTHER} ({alias.directory(OTHER)}) is that of {ARCHIVE}, as its file {MARK} says" in said
    alias.keep("ccat/chai_raw_data", days=0)
    assert alias.make_room("ccat/chai_raw_data") == 0, "raw data want two copies, and have one"


def test_a_link_that_becomes_a_directory_of_its_own_gets_its_copy(alias: Observatory) -> None:
    package_id = archive_twice(alias, ARCHIVE, OTHER)
    alias.directory(OTHER).unlink()
    alias.directory(OTHER).mkdir()
    alias.do(Operation.ARCHIVING)
    assert alias.copies(package_id)[OTHER].verified_at is not None


def test_a_buffer_in_the_directory_of_an_archive_is_never_emptied(observatory: Observatory) -> None:
    """What the buffer let go would be the archive's."""
    package_id = observatory.observe(FILES)
    observatory.do_all()
    (observatory.directory(BUFFER)).rename(observatory.root / "aside")
    observatory.directory(BUFFER).symlink_to(observatory.directory(ARCHIVE))
    observatory.keep(BUFFER, days=0)
    observatory.make_room(BUFFER)
    buffered, archived = (observatory.copies(package_id)[name] for name in (BUFFER, ARCHIVE))
    assert buffered.status is PhysicalCopyStatus.DELETION_FAILED
    assert f"is that of {ARCHIVE}" in (buffered.failure or "")
    assert (observatory.directory(ARCHIVE) / archived.path).exists()
    observatory.directory(BUFFER).unlink()
    (observatory.root / "aside").rename(observatory.directory(BUFFER))


def test_nobody_takes_the_disk_of_another_location_for_its_own_and_its_copies_stop_to_count(
    observatory: Observatory,
) -> None:
    archived = observatory.observe(FILES)
    observatory.do_all()
    number = observatory.location_id(ARCHIVE)
    measure_space(observatory.engine, number, observatory.directory(ARCHIVE))
    with pytest.raises(AnothersDirectory, match=f"it is the directory of {BUFFER}, as its file {MARK} says"):
        measure_space(observatory.engine, number, observatory.directory(BUFFER))
    assert observatory.package(archived).state is PackageState.ARCHIVED


def test_a_location_that_moves_with_its_files_goes_on(observatory: Observatory) -> None:
    observatory.observe(FILES)
    observatory.do_all()
    new = observatory.root / "new"
    observatory.directory(ARCHIVE).rename(new)
    say(observatory, "location", "move", ARCHIVE, "--path", str(new))
    again = observatory.observe({"c.fits": b"c"})
    observatory.do_all()
    assert observatory.package(again).state is PackageState.ARCHIVED


def test_a_copy_in_doubt_stays_in_doubt_where_its_location_moves(observatory: Observatory) -> None:
    doubtful, sound = (observatory.observe({f"{name}.fits": name.encode()}) for name in "ab")
    observatory.do_all()
    doubted = observatory.copies(doubtful)[ARCHIVE].id
    with transaction(observatory.engine) as session:
        values = {"failure": "Its digest is another.", "trouble_count": 2}
        session.execute(sa.update(models.PhysicalCopy).values(values))
        session.get_one(models.PhysicalCopy, doubted).verified_at = None
    new = observatory.root / "new"
    observatory.directory(ARCHIVE).rename(new)
    say(observatory, "location", "move", ARCHIVE, "--path", str(new))
    copy, other = (observatory.copies(one)[ARCHIVE] for one in (doubtful, sound))
    assert (copy.failure, copy.trouble_count) == ("Its digest is another.", 0)
    assert (other.failure, other.verified_at) == (None, None)


def test_who_means_it_puts_an_empty_file_in_place_of_the_mark(observatory: Observatory) -> None:
    """The directory of a location that is given up becomes that of another."""
    observatory.observe(FILES)
    observatory.do_all()
    measure_space(observatory.engine, observatory.location_id(ARCHIVE), observatory.directory(ARCHIVE))
    observatory.directory(ARCHIVE).rename(observatory.root / "old")
    observatory.directory(BUFFER).rename(observatory.directory(ARCHIVE))
    observatory.directory(BUFFER).mkdir()
    (observatory.directory(BUFFER) / "lost+found").mkdir()
    package_id = observatory.observe({"c.fits": b"c"})
    for operation in (Operation.PACKING, Operation.ARCHIVING):
        observatory.do(operation)
    meant = "if this is where cologne/lta lies and ccat/buffer lies there no more, put an empty file in place of that"
    assert meant in trouble(observatory)
    (observatory.directory(ARCHIVE) / MARK).unlink()
    (observatory.directory(ARCHIVE) / MARK).touch()
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED
    assert mark_told(observatory, ARCHIVE)["location"] == ARCHIVE


def test_a_directory_with_nothing_but_what_looks_leave_is_one_where_nothing_is_mounted(tmp_path: Path) -> None:
    for name in (MARK, UNFINISHED_MARK, PROBE):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(NothingThere):
        require_mounted(tmp_path)
    (tmp_path / "raw").mkdir()
    require_mounted(tmp_path)


def test_a_mark_that_was_damaged_is_written_anew(observatory: Observatory) -> None:
    observatory.observe(FILES)
    observatory.do_all()
    mark = observatory.directory(ARCHIVE) / MARK
    mark.chmod(0o600)
    mark.write_bytes(b"\0" * 100)
    mark.with_name(UNFINISHED_MARK).write_bytes(b"left by one that died")
    observatory.observe({"c.fits": b"c"})
    observatory.do_all()
    assert mark_told(observatory, ARCHIVE)["location"] == ARCHIVE
    assert not mark.with_name(UNFINISHED_MARK).exists()


def test_a_bucket_under_two_addresses_is_one_place(
    observatory: Observatory, object_store: ObjectStore, s3_archive: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name.replace("COLOGNE_S3", "CCAT_S3"), value)
    place = InBucket(bucket=BUCKET, prefix="fyst/", endpoint_url=f"http://localhost:{s3_archive.port}")
    with transaction(observatory.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=2))
        kind = LocationType.LONG_TERM_ARCHIVE
        add_location(session, "ccat", "s3", place=place, location_type=kind).active = False
        find(session, LOCATION, ARCHIVE).active = False
    package_id = archive_twice(observatory, STORE, "ccat/s3")
    assert f"fyst/{MARK}" in object_store.all_keys()
    assert observatory.copies(package_id)["ccat/s3"].status is PhysicalCopyStatus.WRITING
    assert f"Location ccat/s3 (s3://{BUCKET}/fyst) is that of {STORE}" in trouble(observatory)


@given(st.uuids(), st.text())
def test_a_mark_is_read_as_it_was_written(identity: object, location: str) -> None:
    mark = Mark(identity, location)  # type: ignore[arg-type]  # a UUID, which hypothesis does not say
    assert read(written(mark)) == mark


@given(st.binary())
def test_whatever_else_the_file_has_is_no_mark(content: bytes) -> None:
    assert read(content) is None


def test_where_there_is_no_mark_nothing_is_said(tmp_path: Path) -> None:
    assert mark_of(tmp_path) is None
