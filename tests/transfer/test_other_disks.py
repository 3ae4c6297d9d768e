"""Another disk in the place of a location's own is not taken for it, until a person says that it is."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.verbs.probing import probe
from ccat_data_transfer.verbs.scrubbing import scrub
from ccat_ops_db import models
from ccat_ops_db.lookup import LOCATION, find
from ccat_ops_db.plan.marks import MARK
from ccat_ops_db.queries.spaces import mark_of as mark_meant
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, PhysicalCopyStatus
from ccat_ops_db.verbs.restoring import relocate
from ccat_service.spaces import UnmarkedDirectory, lacks_mark, mark_of, measure_space
from tests.transfer.support import Observatory, say
from tests.transfer.test_places_away import let_a_minute_pass, look, told

FILES = {"a.fits": b"a" * 3000, "b.fits": b"b"}
ARCHIVE, BUFFER, SOURCE = "cologne/lta", "ccat/buffer", "ccat/chai_raw_data"
SAYS = f"has files, and not the file {MARK} that it bore"


@pytest.fixture
def archived(observatory: Observatory) -> int:
    """A package that is archived, and whose places were looked at."""
    package_id = observatory.observe(FILES)
    observatory.do_all()
    look(observatory)
    return package_id


@contextmanager
def another_disk(directory: Path) -> Iterator[Path]:
    """Something else lies where the directory was."""
    own = directory.rename(directory.with_name("own"))
    (directory / "raw").mkdir(parents=True)
    yield directory
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    directory.rmdir()
    own.rename(directory)


def waits(observatory: Observatory) -> str:
    [failure] = {one.failure for one in observatory.transfers() if one.failure}
    return failure


@pytest.mark.usefixtures("archived")
@pytest.mark.parametrize("name", [ARCHIVE, BUFFER])
def test_nothing_is_written_on_another_disk_and_all_goes_on_when_the_right_one_is_back(
    observatory: Observatory, name: str
) -> None:
    with another_disk(observatory.directory(name)) as directory:
        package_id = observatory.observe({"c.fits": b"c"})
        for operation in (Operation.PACKING, Operation.ARCHIVING):
            observatory.do(operation)
        assert SAYS in waits(observatory)
        assert f"if this is it, make an empty file of that name there, `touch {directory / MARK}`" in waits(observatory)
        assert [path for path in directory.rglob("*") if path.is_file()] == []
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED


def test_nothing_is_called_lost_for_another_disk_and_nobody_relies_on_it(
    observatory: Observatory, archived: int
) -> None:
    for name in (SOURCE, BUFFER):
        observatory.keep(name, days=0)
    with another_disk(observatory.directory(ARCHIVE)):
        scrub(observatory.worker, [observatory.copies(archived)[ARCHIVE].id])
        probe(observatory.engine, observatory.location_id(ARCHIVE), by="worker")
        assert observatory.make_room(SOURCE) + observatory.make_room(BUFFER) == 0
        assert observatory.copies(archived)[ARCHIVE].status is PhysicalCopyStatus.PRESENT
    probe(observatory.engine, observatory.location_id(ARCHIVE), by="worker")
    assert observatory.make_room(BUFFER) == 1


@pytest.mark.usefixtures("archived")
@pytest.mark.parametrize("name", [ARCHIVE, BUFFER])
def test_people_are_told_of_another_disk_until_one_says_that_it_is_the_right_one(
    observatory: Observatory, name: str
) -> None:
    with another_disk(observatory.directory(name)) as directory:
        let_a_minute_pass(observatory)
        look(observatory)
        [sentence] = told(observatory)
        assert f"location {name} lies on another disk on " in sentence
        assert f"{SAYS}: {directory}; mount its own, or make an empty file {MARK} there if this is it" in sentence
        (directory / MARK).touch()
        look(observatory)
        assert told(observatory) == []
        package_id = observatory.observe({"c.fits": b"c"})
        observatory.do_all()
        assert observatory.package(package_id).state is PackageState.ARCHIVED
        with transaction(observatory.engine) as session:
            location = session.get_one(models.DataLocation, observatory.location_id(name))
            assert mark_of(directory) == mark_meant(location)


def test_an_installation_whose_marks_nobody_ever_saw_goes_on_by_itself(observatory: Observatory) -> None:
    observatory.observe(FILES)
    observatory.do_all()
    for name in (ARCHIVE, BUFFER):
        (observatory.directory(name) / MARK).unlink()
    look(observatory)
    package_id = observatory.observe({"c.fits": b"c"})
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED
    assert all((observatory.directory(name) / MARK).exists() for name in (ARCHIVE, BUFFER))


def test_a_location_that_moves_without_its_mark_goes_on(observatory: Observatory, archived: int) -> None:
    new = observatory.root / "new"
    observatory.directory(ARCHIVE).rename(new)
    (new / MARK).unlink()
    say(observatory, "location", "move", ARCHIVE, "--path", str(new))
    scrub(observatory.worker, [observatory.copies(archived)[ARCHIVE].id])
    assert observatory.copies(archived)[ARCHIVE].verified_at is not None


@pytest.mark.usefixtures("archived")
def test_a_location_that_a_restore_says_to_be_elsewhere_need_not_have_its_mark_there(observatory: Observatory) -> None:
    was, new = str(observatory.directory(BUFFER)), str(observatory.root / "new")
    with transaction(observatory.engine) as session:
        assert relocate(session, {was: new}, said=[was]) == [BUFFER]
        assert find(session, LOCATION, BUFFER).marked_at is None
        assert find(session, LOCATION, ARCHIVE).marked_at is not None


@pytest.mark.usefixtures("archived")
def test_an_empty_directory_where_nothing_should_lie_needs_no_mark(observatory: Observatory) -> None:
    observatory.keep(BUFFER, days=0)
    assert observatory.make_room(BUFFER) == 1
    with another_disk(observatory.directory(BUFFER)) as directory:
        (directory / "raw").rmdir()
        package_id = observatory.observe({"c.fits": b"c"})
        observatory.do_all()
        assert observatory.package(package_id).state is PackageState.ARCHIVED


@pytest.mark.usefixtures("archived")
def test_who_looks_at_the_disk_of_a_source_asks_for_no_mark(observatory: Observatory) -> None:
    location = models.DataLocation
    with transaction(observatory.engine) as session:
        marked = set(session.scalars(sa.select(location.id).where(location.marked_at.is_not(None))))
    assert marked == {observatory.location_id(ARCHIVE), observatory.location_id(BUFFER)}
    with another_disk(observatory.directory(SOURCE)) as directory, suppress(FileNotFoundError):
        measure_space(observatory.engine, observatory.location_id(SOURCE), directory)
    with another_disk(observatory.directory(BUFFER)) as directory, pytest.raises(UnmarkedDirectory, match=SAYS):
        measure_space(observatory.engine, observatory.location_id(BUFFER), directory)


def test_a_directory_lacks_its_mark_if_it_has_files_and_not_that(tmp_path: Path) -> None:
    assert not lacks_mark(tmp_path)
    (tmp_path / "raw").mkdir()
    assert lacks_mark(tmp_path)
    (tmp_path / MARK).touch()
    assert not lacks_mark(tmp_path)
