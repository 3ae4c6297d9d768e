"""A person says that a raw file is lost: its siblings reach the archive, and everything says what is lacking."""

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ccat_data_transfer.queues import Operation
from ccat_data_transfer.sidecar import read_sidecar, sidecar_path
from ccat_data_transfer.verbs.planning import unpacked_files
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.queries.alerts import conditions
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, PhysicalCopyStatus, Status
from tests.transfer.support import START, Observatory, say

FILES = {f"f{number}.dat": bytes([number]) * 1000 for number in (1, 2, 3)}
BECAUSE = ("--because", "a disk of CHAI died")


@pytest.fixture
def package_id(observatory: Observatory) -> int:
    """A package that failed, as one of its three raw files is gone."""
    number = observatory.observe(FILES)
    (observatory.directory("ccat/chai_raw_data") / "f2.dat").unlink()
    assert observatory.do(Operation.PACKING) == 1
    assert observatory.package(number).state is PackageState.FAILED
    return number


def lose(observatory: Observatory, package_id: int, *words: str, code: int = 0) -> str:
    return say(observatory, "package", "lost", str(package_id), *words, code=code)


def night(observatory: Observatory) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(say(observatory, "night", "--json"))
    return found


def archived(observatory: Observatory, package_id: int) -> Path:
    return observatory.directory("cologne/lta") / observatory.copies(package_id)["cologne/lta"].path


def names(tar: Path) -> list[str]:
    with tarfile.open(tar) as opened:
        return opened.getnames()


def alerts(observatory: Observatory) -> list[str]:
    with transaction(observatory.engine) as session:
        return [one.sentence for one in conditions(session, late=START)]


def test_the_siblings_of_a_lost_file_are_archived_and_the_sidecar_and_the_night_tell_what_is_lacking(
    observatory: Observatory, package_id: int
) -> None:
    assert f"`ccat package lost {package_id} FILE`" in (observatory.package(package_id).failure or "")
    assert lose(observatory, package_id, "f2.dat", *BECAUSE) == (
        f"1 raw file is lost; package {package_id} is built of the rest\n"
    )
    observatory.do_all()
    assert observatory.package(package_id).state is PackageState.ARCHIVED
    assert alerts(observatory) == []
    tar = archived(observatory, package_id)
    assert names(tar) == ["f1.dat", "f3.dat"]

    told = read_sidecar(Path(sidecar_path(str(tar))).read_bytes())
    assert [file.path for file in told.files] == ["f1.dat", "f3.dat"]
    [lost] = told.lost_files
    assert (lost.path, lost.size_bytes) == ("f2.dat", 1000)
    assert lost.because.startswith("a disk of CHAI died (")

    found = night(observatory)
    assert (found["unarchived"], found["lost"], found["is_complete"]) == (0, 1, False)
    [hindrance] = found["hindrances"]
    assert (hindrance["where"], hindrance["place"], hindrance["number"]) == ("raw files", "lost", 1)
    assert hindrance["sentence"].startswith(f"f2.dat of {observatory.package(package_id).name}: a disk of CHAI died (")
    with transaction(observatory.engine) as session:
        assert unpacked_files(session).groups == []
    assert observatory.request_staging([package_id])
    observatory.do_all()
    staged = observatory.directory("cologne/ramses") / observatory.copies(package_id)["cologne/ramses"].path
    assert sorted(path.name for path in staged.iterdir()) == ["f1.dat", "f3.dat"]


def test_the_list_of_packages_says_how_many_files_each_lost_and_which(
    observatory: Observatory, package_id: int
) -> None:
    other = observatory.observe({"g1.dat": b"g"})
    assert "lost files" not in say(observatory, "packages")
    lose(observatory, package_id, "f3.dat", "f2.dat", *BECAUSE)
    said = say(observatory, "packages")
    assert "lost files" in said
    assert f"\n{package_id}: lost of it: f2.dat, f3.dat: a disk of CHAI died (" in said
    listed = {one["id"]: one["lost_files"] for one in json.loads(say(observatory, "packages", "--json"))}
    assert [file["path"] for file in listed[package_id]] == ["f2.dat", "f3.dat"]
    assert all(file["because"].startswith("a disk of CHAI died (") for file in listed[package_id])
    assert listed[other] == []
    say(observatory, "package", "found", str(package_id), "f2.dat", "f3.dat")
    assert "lost of it" not in say(observatory, "packages")


def test_of_many_lost_files_the_first_ten_are_named(observatory: Observatory) -> None:
    files = {f"h{number:02}.dat": b"h" for number in range(13)}
    number = observatory.observe(files)
    (observatory.directory("ccat/chai_raw_data") / "h00.dat").unlink()
    observatory.do(Operation.PACKING)
    lose(observatory, number, *list(files)[:12], *BECAUSE)
    assert ", h09.dat, and 2 more: a disk of CHAI died (" in say(observatory, "packages")


def test_a_file_that_is_found_again_becomes_the_next_part_of_its_scan(
    observatory: Observatory, package_id: int
) -> None:
    lose(observatory, package_id, "f2.dat", *BECAUSE)
    observatory.do_all()
    (observatory.directory("ccat/chai_raw_data") / "f2.dat").write_bytes(FILES["f2.dat"])
    assert say(observatory, "package", "found", str(package_id), "f2.dat") == (
        "1 raw file is packed as the next part of its scan\n"
    )
    [second] = observatory.plan(observatory.package(package_id).executed_obs_unit_id)
    observatory.do_all()
    assert observatory.package(second).part == 2
    assert names(archived(observatory, second)) == ["f2.dat"]
    assert (night(observatory)["lost"], night(observatory)["hindrances"]) == (0, [])
    entry = observatory.one(models.AuditEntry, action="find")
    assert entry.detail["lost"].startswith("a disk of CHAI died (")
    observatory.check_that_rows_tell_what_is_there()


def test_only_files_of_a_failed_package_are_lost_and_never_all_of_them(
    observatory: Observatory, package_id: int
) -> None:
    assert "`--because` is empty" in lose(observatory, package_id, "f2.dat", "--because", " ", code=1)
    assert "f9.dat is not in package" in lose(observatory, package_id, "f2.dat", "f9.dat", *BECAUSE, code=1)
    assert "`ccat package give-up`" in lose(observatory, package_id, *FILES, *BECAUSE, code=1)
    not_lost = say(observatory, "package", "found", str(package_id), "f2.dat", code=1)
    assert "f2.dat is not lost from package" in not_lost
    lose(observatory, package_id, "f2.dat", *BECAUSE)
    assert " is waiting; raw files are said to be lost" in lose(observatory, package_id, "f1.dat", *BECAUSE, code=1)
    assert observatory.one(models.RawDataFile, relative_path="f1.dat").lost_at is None


def test_an_archive_tells_a_database_that_does_not_know_it_which_files_were_lost(
    observatory: Observatory, package_id: int
) -> None:
    lose(observatory, package_id, "f2.dat", *BECAUSE)
    observatory.do_all()
    forget(observatory)
    say(observatory, "package", "adopt", "cologne/lta", "--yes")
    lost = observatory.one(models.RawDataFile, relative_path="f2.dat")
    assert (lost.raw_data_package_id, lost.lost_at is not None) == (None, True)
    assert (lost.lost_because or "").startswith("a disk of CHAI died (")
    assert night(observatory)["unarchived"] == 0


def forget(observatory: Observatory) -> None:
    """What a database has lost that is older than the scan."""
    nouns = ("long_term_archive_transfer", "physical_copy", "raw_data_file", "raw_data_package", "executed_obs_unit")
    with transaction(observatory.engine) as session:
        for noun in nouns:
            session.execute(sa.delete(models.Base.metadata.tables[noun]))


def test_none_is_lost_of_a_package_whose_tar_has_them_all(observatory: Observatory) -> None:
    package_id = observatory.observe(FILES)
    observatory.do(Operation.PACKING)
    with transaction(observatory.engine) as session:
        to = PackageState.FAILED
        assert advance(session, models.RawDataPackage, [package_id], to=to, because="a test", by="a test")
    (observatory.directory("ccat/chai_raw_data") / "f2.dat").unlink()
    refused = lose(observatory, package_id, "f2.dat", *BECAUSE, code=1)
    assert "its tar at ccat/buffer has all its raw files, so that none is lost" in refused
    assert f"`ccat package retry {package_id}`" in refused
    say(observatory, "package", "retry", str(package_id))
    observatory.do_all()
    assert names(archived(observatory, package_id)) == ["f1.dat", "f2.dat", "f3.dat"]


def test_a_tar_that_is_as_archived_is_not_called_damaged_for_what_is_registered(
    observatory: Observatory,
) -> None:
    package_id = observatory.observe(FILES)
    observatory.do_all()
    with transaction(observatory.engine) as session:
        file = session.scalars(sa.select(models.RawDataFile).filter_by(relative_path="f2.dat")).one()
        file.raw_data_package_id = None
    observatory.request_staging([package_id])
    observatory.do_all()
    job = observatory.one(models.StagingJob)
    assert (job.status, "holds 'f2.dat', which it should not" in (job.failure or "")) == (Status.FAILED, True)
    assert observatory.copies(package_id)["cologne/lta"].status is PhysicalCopyStatus.PRESENT
