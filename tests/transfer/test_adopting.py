"""What an archive has, and the database does not know, as after the restore of an old backup, is taken up again."""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from ccat_data_transfer.adoption import Accepted, Found, Known, judge
from ccat_data_transfer.backends.base import Seal
from ccat_data_transfer.plan import tar_path
from ccat_data_transfer.queues import Operation
from ccat_data_transfer.sidecar import DescribedFile, DescribedPackage, DescribedTar, describe
from ccat_data_transfer.verbs.surveying import look_through
from ccat_ops_db import models
from ccat_ops_db.moves import advance
from ccat_ops_db.session import transaction
from ccat_ops_db.states import PackageState, PhysicalCopyStatus, Status
from ccat_ops_db.verbs.scans import NewFile, add_files, start_scan
from tests.reference import keep_rows, restore_rows
from tests.transfer.object_store import ObjectStore
from tests.transfer.support import START, Observatory, digest, say
from tests.transfer.test_sidecar import INSTRUMENT, OBSERVATION

ARCHIVE = "cologne/lta"
FILES = {"2026-04-01/a.fits": b"a" * 30_000, "2026-04-01/b.fits": b"b" * 1000}
BACKUP = "old_backup"


@dataclass
class Lost:
    """An observatory whose database will be that of a backup."""

    observatory: Observatory

    def back_up(self) -> None:
        keep_rows(self.observatory.engine, BACKUP)

    def restore(self) -> None:
        restore_rows(self.observatory.engine, BACKUP)

    def archive(self, files: dict[str, bytes] = FILES) -> int:
        """Archive a scan, and return the id of its package."""
        package_id = self.observatory.observe(files)
        self.observatory.do_all()
        assert self.observatory.package(package_id).state is PackageState.ARCHIVED
        return package_id

    def adopt(self, *words: str, archive: str = ARCHIVE) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(say(self.observatory, "package", "adopt", archive, "--json", *words))
        return found

    def because(self) -> str:
        """Why nothing is adopted, which changes nothing."""
        before = self.rows()
        dry = self.adopt()
        assert (dry["adopted"], dry["refused"]) == ([], self.adopt("--yes")["refused"])
        assert self.rows() == before
        [refused] = dry["refused"]
        return str(refused["because"])

    def rows(self) -> dict[str, Sequence[Any]]:
        nouns = (models.RawDataPackage, models.RawDataFile, models.ExecutedObsUnit, models.PhysicalCopy)
        tables = [*nouns, models.StatusChange, models.LongTermArchiveTransfer]
        with transaction(self.observatory.engine) as session:
            return {noun.__tablename__: session.execute(sa.select(noun.__table__)).all() for noun in tables}

    def file(self, package: models.RawDataPackage, end: str = ".tar") -> Path:
        return (self.observatory.directory(ARCHIVE) / f"raw/2026-03-31/{package.name}").with_suffix(end)

    def describe(self, package: models.RawDataPackage, change: Callable[[dict[str, Any]], object]) -> None:
        """Have what describes a package say something else."""
        place = self.file(package, ".json")
        told = json.loads(place.read_bytes())
        change(told)
        place.chmod(0o600)
        place.write_text(json.dumps(told))

    def package(self) -> models.RawDataPackage:
        return self.observatory.one(models.RawDataPackage)

    def staged(self, package_id: int) -> dict[str, bytes]:
        self.observatory.request_staging([package_id])
        self.observatory.do_all()
        directory = self.observatory.directory("cologne/ramses/raw") / self.observatory.package(package_id).name
        return {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()}

    def files(self) -> set[tuple[uuid.UUID, str, int, str]]:
        file = models.RawDataFile
        with transaction(self.observatory.engine) as session:
            rows = session.execute(sa.select(file.id, file.relative_path, file.size_bytes, file.checksum))
            return {tuple(row) for row in rows}  # type: ignore[misc]  # of four columns


@pytest.fixture
def lost(observatory: Observatory) -> Lost:
    return Lost(observatory)


def test_what_was_archived_after_the_backup_is_what_it_was_and_counts_once_it_was_read(lost: Lost) -> None:
    kept = lost.archive({"kept.fits": b"k"})
    lost.back_up()
    before = lost.observatory.package(lost.archive())
    scan, files = before.executed_obs_unit_id, lost.files()
    ended = lost.observatory.one(models.ExecutedObsUnit, id=scan)
    lost.restore()

    dry = lost.adopt()
    assert (dry["dry_run"], dry["known"], dry["adopted"], dry["refused"]) == (True, 1, [before.name], [])
    assert lost.package().id == kept, "a dry run changes nothing"
    assert lost.adopt("--yes") == dry | {"dry_run": False}
    assert lost.adopt("--yes") == dry | {"dry_run": False, "known": 2, "adopted": []}

    package = lost.observatory.one(models.RawDataPackage, name=before.name)
    assert (package.state, package.checksum, package.size_bytes) == ("archived", before.checksum, before.size_bytes)
    assert lost.files() == files
    found = lost.observatory.one(models.ExecutedObsUnit, id=scan)
    for fact in ("obs_unit_id", "telescope_id", "started_at", "ended_at", "observing_night", "expected_files"):
        assert getattr(found, fact) == getattr(ended, fact), fact
    [copy] = lost.observatory.copies(package.id).values()
    assert (copy.status, copy.checksum, copy.verified_at) == ("present", before.checksum, None)
    assert lost.observatory.read_again() == 1
    assert lost.observatory.copies(package.id)[ARCHIVE].verified_at is not None
    assert lost.staged(package.id) == FILES


def test_people_are_told_what_would_be_adopted_and_how_and_what_was(lost: Lost) -> None:
    lost.back_up()
    lost.archive()
    lost.restore()
    dry = say(lost.observatory, "package", "adopt", ARCHIVE)
    assert f"{ARCHIVE}: 0 packages known there; 1 package would be adopted." in dry
    assert f"`ccat package adopt {ARCHIVE} --yes`" in dry
    assert "1 package adopted; they count once they were read" in say(
        lost.observatory, "package", "adopt", ARCHIVE, "--yes"
    )


@pytest.mark.usefixtures("s3_archive")
def test_a_bucket_is_looked_through_too(lost: Lost, object_store: ObjectStore) -> None:
    lost.back_up()
    name = lost.observatory.package(lost.archive()).name
    lost.restore()
    object_store.put("fyst/raw/2026-03-31/alien.txt", b"?")
    object_store.put("raw/2026-03-31/of-another.tar", b"?")
    assert lost.adopt("--yes", archive="cologne/s3")["adopted"] == [name]
    package = lost.package()
    assert lost.observatory.read_again() == 1
    [copy] = lost.observatory.copies(package.id).values()
    assert copy.verified_at is not None
    assert lost.staged(package.id) == FILES


def test_what_was_damaged_meanwhile_is_found_so_when_it_is_read(lost: Lost) -> None:
    lost.back_up()
    lost.archive()
    tar = lost.file(lost.package())
    lost.restore()
    tar.chmod(0o600)
    tar.write_bytes(b"x" * tar.stat().st_size)
    lost.adopt("--yes")
    lost.observatory.read_again()
    assert lost.observatory.copies(lost.package().id)[ARCHIVE].status is PhysicalCopyStatus.CORRUPT


def test_several_parts_of_a_scan_come_back_together(lost: Lost) -> None:
    lost.back_up()
    scan = lost.observatory.start_scan()
    for part in range(3):
        lost.observatory.write(scan, {f"{part}.fits": bytes([part])})
        lost.observatory.plan(scan)
        lost.observatory.do_all()
    lost.restore()
    assert len(lost.adopt("--yes")["adopted"]) == 3
    with transaction(lost.observatory.engine) as session:
        assert set(session.scalars(sa.select(models.RawDataPackage.part))) == {1, 2, 3}
        assert session.scalar(sa.select(sa.func.count()).select_from(models.ExecutedObsUnit)) == 1
    lost.observatory.write(scan, {"3.fits": b"later"})
    [later] = lost.observatory.plan(scan)
    assert lost.observatory.package(later).part == 4


def test_more_than_are_taken_up_at_once_are_taken_up(lost: Lost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ccat_data_transfer.verbs.stocktaking._AT_ONCE", 3)
    monkeypatch.setattr("ccat_data_transfer.verbs.stocktaking.FILES_AT_ONCE", 3)
    lost.back_up()
    names = {lost.observatory.package(lost.archive({f"{n}.fits": b"a", f"{n}.txt": b"b"})).name for n in range(7)}
    lost.restore()
    assert set(lost.adopt("--yes")["adopted"]) == names
    assert lost.observatory.read_again() == 7


# What the backup knows of, but not that it is archived


def test_a_package_that_was_not_packed_yet_is_archived_without_its_raw_files(lost: Lost) -> None:
    package_id = lost.observatory.observe(FILES)
    lost.back_up()
    lost.observatory.do_all()
    checksum = lost.observatory.package(package_id).checksum
    lost.restore()
    for name in FILES:
        (lost.observatory.directory("ccat/chai_raw_data") / name).unlink()
    (lost.observatory.directory("ccat/chai_raw_data") / "others.fits").write_bytes(b"")
    lost.observatory.do_all()
    assert lost.package().state is PackageState.FAILED
    assert lost.adopt("--yes")["adopted"] == [lost.package().name]
    package = lost.package()
    assert (package.id, package.state, package.checksum, package.failure) == (package_id, "archived", checksum, None)
    assert [one.status for one in lost.observatory.transfers()] == [Status.CANCELLED]
    lost.observatory.do_all()
    assert lost.staged(package_id) == FILES


def test_what_was_on_its_way_at_the_time_of_the_backup_is_there_and_no_more_on_its_way(lost: Lost) -> None:
    package_id = lost.observatory.observe(FILES)
    lost.observatory.do(Operation.PACKING)
    with transaction(lost.observatory.engine) as session:
        row = {"raw_data_package_id": package_id, "data_location_id": lost.observatory.location_id(ARCHIVE)}
        path = tar_path(session.get_one(models.RawDataPackage, package_id).name, START.date())
        session.add(models.RawDataPackagePhysicalCopy(**row, path=path))
    lost.back_up()
    lost.observatory.do_all()
    lost.restore()
    assert lost.adopt("--yes")["adopted"] == [lost.package().name]
    assert lost.observatory.copies(package_id)[ARCHIVE].status is PhysicalCopyStatus.PRESENT
    assert [one.status for one in lost.observatory.transfers()] == [Status.CANCELLED]
    lost.observatory.do_all()
    lost.observatory.check_that_rows_tell_what_is_there()


def test_what_is_being_archived_there_now_is_left_to_whoever_is_at_it(lost: Lost) -> None:
    package_id = lost.observatory.observe(FILES)
    lost.observatory.do(Operation.PACKING)
    lost.back_up()
    lost.observatory.do_all()
    lost.restore()
    [transfer_id] = lost.observatory.schedule(Operation.ARCHIVING)
    way = models.LongTermArchiveTransfer
    with transaction(lost.observatory.engine) as session:
        advance(session, way, [transfer_id], to=Status.IN_PROGRESS, because="a test", by="worker")
    assert (lost.adopt("--yes")["known"], lost.adopt()["adopted"]) == (1, [])
    assert lost.observatory.package(package_id).state is not PackageState.ARCHIVED


def test_files_that_were_registered_and_in_no_package_yet_are_put_into_theirs(lost: Lost) -> None:
    scan = lost.observatory.start_scan()
    lost.observatory.write(scan, FILES)
    lost.back_up()
    lost.observatory.plan(scan)
    lost.observatory.do_all()
    lost.restore()
    assert lost.adopt("--yes")["adopted"] == [lost.package().name]
    assert lost.observatory.plan(scan) == [], "no file is left that is in no package"
    lost.observatory.read_again()
    lost.observatory.keep("ccat/chai_raw_data", days=0)
    assert lost.observatory.make_room("ccat/chai_raw_data") == 2, "their copies at the source are known, and may go"


@pytest.mark.usefixtures("s3_archive")
def test_a_copy_in_a_second_archive_is_not_made_again(lost: Lost, object_store: ObjectStore) -> None:
    lost.archive()
    package = lost.package()
    lost.back_up()
    with transaction(lost.observatory.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=2))
    tar, beside = (
        lost.observatory.directory(ARCHIVE) / f"raw/2026-03-31/{package.name}{end}" for end in (".tar", ".json")
    )
    assert not tar.exists(), "it is in the preferred archive, which is the bucket"
    tar.parent.mkdir(parents=True)
    tar.write_bytes(object_store.get(f"fyst/raw/2026-03-31/{tar.name}"))
    beside.write_bytes(object_store.get(f"fyst/raw/2026-03-31/{beside.name}"))
    assert lost.adopt("--yes")["adopted"] == [package.name]
    assert {"cologne/s3", ARCHIVE} < set(lost.observatory.copies(package.id))
    assert lost.package().archived_at == package.archived_at


# What is refused


def test_other_bytes_under_the_name_of_a_known_package_change_nothing(lost: Lost) -> None:
    lost.archive()
    package = lost.package()
    with transaction(lost.observatory.engine) as session:
        [copy] = session.scalars(
            sa.select(models.RawDataPackagePhysicalCopy).filter_by(
                path=f"raw/2026-03-31/{package.name}.tar", data_location_id=lost.observatory.location_id(ARCHIVE)
            )
        )
        session.delete(copy)
    lost.describe(package, lambda told: told["tar"].update(checksum=digest(b"else")))
    assert "is known with other bytes" in lost.because()


def test_a_part_that_was_made_of_other_files_meanwhile_changes_nothing(lost: Lost) -> None:
    scan = lost.observatory.start_scan()
    lost.back_up()
    lost.observatory.write(scan, FILES)
    lost.observatory.plan(scan)
    lost.observatory.do_all()
    lost.restore()
    lost.observatory.write(scan, {"else.fits": b"else"})
    lost.observatory.plan(scan)
    assert "is known to hold else.fits too" in lost.because()


def test_a_raw_file_that_is_known_with_other_bytes_changes_nothing(lost: Lost) -> None:
    scan = lost.observatory.start_scan()
    lost.back_up()
    lost.observatory.write(scan, FILES)
    lost.observatory.plan(scan)
    lost.observatory.do_all()
    lost.restore()
    lost.observatory.register(scan, {"2026-04-01/a.fits": b"another"})
    assert "raw file 2026-04-01/a.fits is known with other bytes" in lost.because()


def test_a_scan_that_is_known_with_another_start_changes_nothing(lost: Lost) -> None:
    lost.back_up()
    lost.archive()
    scan = lost.package().executed_obs_unit_id
    lost.restore()
    with transaction(lost.observatory.engine) as session:
        start_scan(session, scan, "M17 map", started_at=START.replace(hour=3))
    assert "start than is described: 2026-04-01 03:15:00, described 2026-04-01 02:15:00" in lost.because()


def _as_version_3(told: dict[str, Any]) -> None:
    told["schema_version"] = 4


DO_NOT_FIT: dict[str, Callable[[dict[str, Any]], object]] = {
    "observation `M42 map` (program `Cal`, source `M17`": lambda told: told["observation"].update(obs_unit="M42 map"),
    "telescope `FYST-2` of observatory": lambda told: told["instrument"].update(telescope="FYST-2"),
    "instrument module `CHAI/UFA` of `FYST` is not known": lambda told: told["instrument"].update(module="UFA"),
    "describes raw/2026-03-31/else.tar": lambda told: told["package"].update(name="else"),
    "describes raw/2026-04-02/": lambda told: told["observation"].update(observing_night="2026-04-02"),
    "ended before it started": lambda told: told["observation"].update(end="2026-03-01T00:00:00Z"),
    "and is described as 1": lambda told: told["tar"].update(size_bytes=1),
    "not described one by one": lambda told: told["files"].append(told["files"][0]),
    "its files are not described": lambda told: told.update(files=[]),
    "cannot be read: 1 validation error": _as_version_3,
    "cannot be read: ": lambda told: told.pop("observation"),
}


def test_what_does_not_fit_is_told_and_not_taken_up(lost: Lost) -> None:
    lost.back_up()
    lost.archive()
    package = lost.package()
    lost.restore()
    sound = lost.file(package, ".json").read_bytes()
    for because, change in DO_NOT_FIT.items():
        lost.describe(package, change)
        assert because in lost.because()
        lost.file(package, ".json").write_bytes(sound)
    assert lost.adopt("--yes")["adopted"] == [package.name]


@pytest.mark.parametrize(
    ("end", "because"), [(".json", "nothing beside it says what it is"), (".tar", "is described, and is not there")]
)
def test_a_tar_needs_its_description_and_the_other_way_round(lost: Lost, end: str, because: str) -> None:
    lost.back_up()
    lost.archive()
    package = lost.package()
    lost.restore()
    lost.file(package, end).unlink()
    assert because in lost.because()


def test_people_are_told_why_once_for_all_that_are_refused_alike(lost: Lost) -> None:
    lost.back_up()
    packages = [lost.observatory.package(lost.archive({f"{number}.fits": b"a"})) for number in range(12)]
    lost.restore()
    for one in packages:
        lost.describe(one, lambda told: told["observation"].update(obs_unit="M42 map"))
    told = say(lost.observatory, "package", "adopt", ARCHIVE)
    [line] = [line for line in told.splitlines() if "not adopted" in line]
    assert "say it first (`ccat apply -f`), then adopt again: raw/2026-03-31/" in line
    assert line.endswith("and 2 more")


def test_what_is_no_archive_or_is_not_seen_is_refused(lost: Lost) -> None:
    assert "is a buffer location" in say(lost.observatory, "package", "adopt", "ccat/buffer", code=1)
    assert "no location `cologne/lto`" in say(lost.observatory, "package", "adopt", "cologne/lto", code=1)
    lost.observatory.directory(ARCHIVE).rmdir()
    refused = say(lost.observatory, "package", "adopt", ARCHIVE, code=1)
    assert "is looked through by this command itself" in refused
    assert "no such directory here" in refused


# Descriptions of before, and what instruments tell again


def test_a_description_of_version_1_is_enough(lost: Lost) -> None:
    lost.back_up()
    lost.archive()
    package = lost.package()
    scan = package.executed_obs_unit_id
    lost.restore()

    def as_it_was(told: dict[str, Any]) -> None:
        told["schema_version"] = 1
        del told["observation"]["expected_files"]
        for file in told["files"]:
            del file["id"]

    lost.describe(package, as_it_was)
    assert lost.adopt("--yes")["adopted"] == [package.name]
    assert {(one, path) for one, path, *_ in lost.files()} == {(uuid.uuid5(scan, path), path) for path in FILES}
    lost.observatory.read_again()
    assert json.loads(lost.file(package, ".json").read_bytes())["schema_version"] == 3


def test_where_raw_files_lie_is_known_again_once_they_are_told_again(lost: Lost) -> None:
    lost.back_up()
    lost.archive()
    scan, files = lost.package().executed_obs_unit_id, lost.files()
    lost.restore()
    lost.adopt("--yes")
    again = [NewFile(*file) for file in files]
    for _ in range(2):
        with transaction(lost.observatory.engine) as session:
            added = add_files(session, scan, again, module="CHAI/LFA", location="ccat/chai_raw_data", by="CHAI")
        assert added.new == 0
    lost.observatory.check_that_rows_tell_what_is_there()
    with transaction(lost.observatory.engine) as session:
        copies = session.scalars(sa.select(models.RawDataFilePhysicalCopy.status)).all()
    assert copies == [PhysicalCopyStatus.PRESENT] * 2


@pytest.mark.usefixtures("s3_archive")
def test_its_other_archive_copies_are_asked_for_as_ever(lost: Lost) -> None:
    with transaction(lost.observatory.engine) as session:
        session.execute(sa.update(models.DataClass).values(min_verified_archive_copies=2))
    lost.back_up()
    lost.archive()
    lost.restore()
    lost.adopt("--yes", archive="cologne/s3")
    with transaction(lost.observatory.engine) as session:
        assert look_through(session, by="manager") == 1
    lost.observatory.do_all()
    assert lost.observatory.copies(lost.package().id)[ARCHIVE].verified_at is not None


# The rule


MODULES = {"CHAI/LFA": 1, "CHAI/HFA": 2}
founds = st.builds(
    lambda scan, module, part, name, paths, checksum, minute: found(
        uuid.UUID(int=scan), module, part=part, name=name, paths=paths, checksum=checksum, minute=minute
    ),
    scan=st.integers(1, 2),
    module=st.sampled_from(["LFA", "HFA"]),
    part=st.integers(1, 2),
    name=st.sampled_from("pqr"),
    paths=st.lists(st.sampled_from("ab"), min_size=1, max_size=2, unique=True),
    checksum=st.sampled_from([digest(b"1"), digest(b"2")]),
    minute=st.integers(0, 1),
)


def found(scan: uuid.UUID, module: str, *, part: int, name: str, paths: list[str], checksum: str, minute: int) -> Found:
    observation = OBSERVATION.model_copy(update={"id": scan, "start": OBSERVATION.start + timedelta(minutes=minute)})
    told = describe(
        observation,
        INSTRUMENT.model_copy(update={"module": module}),
        DescribedPackage(name=name, part=part, metadata={}),
        tar=DescribedTar(name=f"{name}.tar", size_bytes=1, checksum=checksum),
        files=[DescribedFile(path=path, size_bytes=1, checksum=checksum) for path in paths],
    )
    return Found(path=f"raw/2026-04-01/{name}.tar", size_bytes=1, seal=Seal(1, 1), told=told)


@given(st.lists(founds, max_size=8))
def test_what_is_taken_up_agrees_within_itself_whatever_an_archive_tells(several: list[Found]) -> None:
    known = Known(obs_units={"M17 map": 1}, telescopes={"FYST": 1}, modules=MODULES)
    verdicts = judge(several, known)
    assert [verdict.found if isinstance(verdict, Accepted) else verdict.path for verdict in verdicts] == [
        one if isinstance(verdict, Accepted) else one.path for one, verdict in zip(several, verdicts, strict=True)
    ]
    taken = [one for one in verdicts if isinstance(one, Accepted)]
    of_groups = [((one.found.scan_id, one.module_id), one) for one in taken]
    starts = {(one.found.scan_id, one.found.told.observation.start) for one in taken}
    assert len({one.found.name for one in taken}) == len(taken)
    assert len({(group, one.found.told.package.part) for group, one in of_groups}) == len(taken)
    assert len(starts) == len({scan_id for scan_id, _ in starts})
    places = [(group, file.path) for group, one in of_groups for file in one.files.values()]
    assert len(set(places)) == len(places), "no raw file is in two packages"
