import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from ccat_ops_db import models
from ccat_ops_db.lookup import UnknownName
from ccat_ops_db.models import PhysicalCopyStatus
from ccat_ops_db.session import transaction
from ccat_ops_db.verbs.initialization import initialize, reference_data
from ccat_ops_db.verbs.scans import (
    Added,
    Contradiction,
    EndsBeforeStart,
    NameReserved,
    NewFile,
    NotASource,
    PathTaken,
    RegisteredOtherwise,
    TelescopeNotSaid,
    UnknownScan,
    add_files,
    finish_scan,
    start_scan,
)
from tests.ops_db.rows import START, an_obs_unit

SCAN = uuid.UUID("5ca00000-0000-4000-8000-000000000001")
END = START + timedelta(minutes=5)
CONDITIONS = {"pwv_mm": 0.6, "elevation_deg": [55, 57]}


def a_new_file(number: int) -> NewFile:
    return NewFile(
        id=uuid.UUID(int=number), relative_path=f"chai/{number}.fits", size_bytes=10, checksum=f"sha256:{number:064x}"
    )


FILES = [a_new_file(number) for number in range(3)]


@pytest.fixture(scope="module", autouse=True)
def planned(shared_engine: sa.Engine) -> None:
    with transaction(shared_engine) as session:
        initialize(session, reference_data(), storage_root=Path("/storage"))
        an_obs_unit(session, "map of M17")
        an_obs_unit(session, "map of Orion")


@pytest.fixture
def session(shared_engine: sa.Engine) -> Iterator[Session]:
    """A session whose work is undone."""
    with Session(shared_engine) as session:
        yield session


@pytest.fixture
def scan(session: Session) -> models.ExecutedObsUnit:
    return start_scan(session, SCAN, "map of M17", started_at=START, conditions=CONDITIONS)


def register(session: Session, files: list[NewFile], *, module: str = "CHAI/LFA", scan: uuid.UUID = SCAN) -> int:
    where = "ccat/chai_raw_data"
    return add_files(session, scan, files, module=module, location=where, by="chai-control").new


def count(session: Session, noun: type[models.Base]) -> int | None:
    return session.scalar(sa.select(sa.func.count()).select_from(noun))


def test_a_scan_belongs_to_the_night_of_its_start_at_the_telescope(scan: models.ExecutedObsUnit) -> None:
    assert (scan.obs_unit.name, scan.telescope.name, scan.started_at) == ("map of M17", "FYST", START)
    assert scan.observing_night == date(2026, 4, 4)
    assert (scan.conditions, scan.ended_at, scan.expected_files) == (CONDITIONS, None, None)


@pytest.mark.usefixtures("scan")
def test_a_scan_that_is_started_again_is_the_same_scan(session: Session) -> None:
    start_scan(session, SCAN, "map of M17", started_at=START, telescope="FYST", conditions=CONDITIONS)
    again = start_scan(session, SCAN, "map of M17", started_at=START)
    assert again.conditions == CONDITIONS
    assert count(session, models.ExecutedObsUnit) == 1


def test_conditions_may_be_told_later(session: Session) -> None:
    start_scan(session, SCAN, "map of M17", started_at=START)
    assert start_scan(session, SCAN, "map of M17", started_at=START, conditions=CONDITIONS).conditions == CONDITIONS


@pytest.mark.usefixtures("scan")
@pytest.mark.parametrize(
    ("obs_unit", "started_at", "conditions", "contradiction"),
    [
        ("map of Orion", START, None, "observation map of M17, now told map of Orion"),
        ("map of M17", END, None, "start 2026-04-05 01:00:00+00:00, now told 2026-04-05 01:05:00+00:00"),
        ("map of M17", START, {"pwv_mm": 3}, "conditions {'pwv_mm': 0.6, "),
    ],
)
def test_a_used_identifier_is_not_used_for_another_scan(
    session: Session, obs_unit: str, started_at: datetime, conditions: dict[str, float] | None, contradiction: str
) -> None:
    with pytest.raises(Contradiction) as refused:
        start_scan(session, SCAN, obs_unit, started_at=started_at, conditions=conditions)
    assert str(refused.value).startswith(f"Scan {SCAN} is recorded with {contradiction}")
    assert str(refused.value).endswith("Use a new identifier for something new; nothing was changed.")


@pytest.mark.usefixtures("scan")
def test_a_scan_of_another_telescope_has_another_identifier(session: Session) -> None:
    session.add(models.Telescope(name="NANTEN2", observatory_id=1))
    with pytest.raises(Contradiction, match="telescope FYST, now told NANTEN2"):
        start_scan(session, SCAN, "map of M17", started_at=START, telescope="NANTEN2")


def test_an_observation_that_nobody_planned_is_refused_with_the_nearest_name(session: Session) -> None:
    with pytest.raises(UnknownName) as refused:
        start_scan(session, SCAN, "map of M71", started_at=START)
    assert str(refused.value) == "There is no observation `map of M71`. Did you mean `map of M17`?"


def test_the_telescope_must_be_said_where_there_are_several(session: Session) -> None:
    session.add(models.Telescope(name="NANTEN2", observatory_id=1))
    with pytest.raises(TelescopeNotSaid) as refused:
        start_scan(session, SCAN, "map of M17", started_at=START)
    assert str(refused.value) == ("Several telescopes are known, say which one executes the scan: `FYST`, `NANTEN2`.")
    assert start_scan(session, SCAN, "map of M17", started_at=START, telescope="FYST").telescope.name == "FYST"
    with pytest.raises(UnknownName, match=r"^There is no telescope `NANTEN`\. Did you mean `NANTEN2`\?$"):
        start_scan(session, SCAN, "map of M17", started_at=START, telescope="NANTEN")


def test_without_any_telescope_the_command_that_brings_it_is_named() -> None:
    assert str(TelescopeNotSaid([])) == "There is no telescope yet; `opsdb_init` records those of the observatory."


@pytest.mark.usefixtures("scan")
def test_raw_files_are_recorded_and_present_at_their_source(session: Session) -> None:
    assert register(session, FILES) == 3
    copies = session.scalars(sa.select(models.PhysicalCopy).order_by(models.PhysicalCopy.path)).all()
    assert [copy.path for copy in copies] == [file.relative_path for file in FILES]
    assert {(copy.status, copy.location.name, copy.size_bytes) for copy in copies} == {
        (PhysicalCopyStatus.PRESENT, "chai_raw_data", 10)
    }


@pytest.mark.usefixtures("scan")
def test_only_new_files_count_and_telling_them_again_changes_nothing(session: Session) -> None:
    assert register(session, FILES[:2]) == 2
    assert register(session, FILES) == 1
    assert register(session, FILES) == 0
    assert register(session, [FILES[0], FILES[0]]) == 0
    assert count(session, models.RawDataFile) == count(session, models.PhysicalCopy) == 3


@pytest.mark.usefixtures("scan")
def test_a_file_told_twice_in_one_message_is_recorded_once(session: Session) -> None:
    assert register(session, [FILES[0], FILES[0]]) == 1
    assert count(session, models.PhysicalCopy) == 1


@pytest.mark.usefixtures("scan")
def test_a_message_without_files_is_no_mistake(session: Session) -> None:
    assert register(session, []) == 0


@pytest.mark.usefixtures("scan")
def test_a_file_does_not_change_its_path_under_its_identifier(session: Session) -> None:
    register(session, FILES)
    told = replace(FILES[0], relative_path="chai/9.fits")
    for message in ([told], [FILES[0], told]):
        with pytest.raises(Contradiction) as refused:
            register(session, message)
        assert f"Raw file {told.id} is recorded with path chai/0.fits, now told chai/9.fits" in str(refused.value)


GROWN = replace(FILES[0], size_bytes=11, checksum=FILES[1].checksum)


@pytest.mark.usefixtures("scan")
def test_a_file_with_other_content_is_refused_and_it_is_said_how_to_correct_it(session: Session) -> None:
    register(session, FILES)
    for message in ([GROWN], [FILES[0], GROWN]):
        with pytest.raises(RegisteredOtherwise) as refused:
            register(session, message)
        assert str(refused.value) == (
            f"Raw file chai/0.fits is registered with 10 bytes, {FILES[0].checksum}, "
            f"now told 11 bytes, {FILES[1].checksum}; if it was registered before it was complete, "
            "`ccat scan add --replace` corrects that. Nothing was changed."
        )


def correct(session: Session) -> Added:
    module, location = "CHAI/LFA", "ccat/chai_raw_data"
    return add_files(session, SCAN, [GROWN], module=module, location=location, replace=True, by="chai-control")


@pytest.mark.usefixtures("scan")
def test_a_file_that_is_not_packed_yet_can_be_corrected_which_the_audit_remembers(session: Session) -> None:
    register(session, FILES)
    assert correct(session) == Added(new=0, replaced=1)
    assert correct(session) == Added(new=0, replaced=0)
    file = session.get_one(models.RawDataFile, GROWN.id)
    assert (file.size_bytes, file.checksum) == (GROWN.size_bytes, GROWN.checksum)
    [entry] = session.scalars(sa.select(models.AuditEntry)).all()
    assert (entry.action, entry.resource_id) == ("replace", str(GROWN.id))
    assert entry.detail == {
        "before": f"10 bytes, {FILES[0].checksum}",
        "after": f"11 bytes, {FILES[1].checksum}",
        "by": "chai-control",
    }


@pytest.mark.usefixtures("scan")
def test_a_file_that_is_packed_is_not_corrected(session: Session) -> None:
    register(session, FILES)
    file = session.get_one(models.RawDataFile, GROWN.id)
    package = models.RawDataPackage(
        executed_obs_unit_id=SCAN,
        instrument_module_id=file.instrument_module_id,
        name="packed",
        checksum=FILES[2].checksum,
    )
    session.add(package)
    session.flush()
    file.raw_data_package_id = package.id
    with pytest.raises(RegisteredOtherwise, match="it is packed already: register what is right as a file of another"):
        correct(session)


@pytest.mark.usefixtures("scan")
def test_a_file_does_not_change_its_module_or_scan(session: Session) -> None:
    register(session, FILES)
    with pytest.raises(Contradiction, match="is recorded with module"):
        register(session, FILES, module="CHAI/HFA")
    other = uuid.uuid4()
    start_scan(session, other, "map of M17", started_at=START)
    with pytest.raises(Contradiction, match=f"is recorded with scan {SCAN}, now told {other}"):
        register(session, FILES, scan=other)


@pytest.mark.usefixtures("scan")
def test_a_path_is_not_taken_by_a_second_file(session: Session) -> None:
    register(session, FILES)
    other = replace(FILES[0], id=uuid.UUID(int=99))
    with pytest.raises(PathTaken) as refused:
        register(session, [other])
    assert str(refused.value) == (
        f"Raw file {other.id} cannot have the path chai/0.fits: another raw file of the same scan and module has it. "
        "Register a file again under the identifier that it got first; nothing was changed."
    )


@pytest.mark.usefixtures("scan")
@pytest.mark.parametrize(
    ("module", "location", "message"),
    [
        (
            "CHAI/LFB",
            "ccat/chai_raw_data",
            "There is no instrument module `CHAI/LFB`. Did you mean `CHAI/LFA`?",
        ),
        (
            "CHAI/LFA",
            "ccat/chai_raw_date",
            "There is no source location `ccat/chai_raw_date`. Did you mean `ccat/chai_raw_data`?",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(
    session: Session, module: str, location: str, message: str
) -> None:
    with pytest.raises(UnknownName) as refused:
        add_files(session, SCAN, FILES, module=module, location=location, by="chai-control")
    assert str(refused.value) == message


@pytest.mark.usefixtures("scan")
def test_raw_files_are_registered_only_where_instruments_write(session: Session) -> None:
    with pytest.raises(NotASource) as refused:
        add_files(session, SCAN, FILES, module="CHAI/LFA", location="cologne/lta", by="chai-control")
    assert str(refused.value) == (
        "`cologne/lta` is a long_term_archive location; raw files are registered at the source location that their "
        "instrument wrote them to."
    )


@pytest.mark.parametrize(
    "tell", [lambda session: register(session, FILES), lambda session: finish_scan(session, SCAN, ended_at=END)]
)
def test_a_scan_that_was_never_started_is_refused(session: Session, tell: object) -> None:
    assert callable(tell)
    with pytest.raises(UnknownScan, match=f"There is no scan {SCAN}; record its start first"):
        tell(session)


def test_a_finished_scan_has_its_end_and_its_number_of_files(session: Session, scan: models.ExecutedObsUnit) -> None:
    finish_scan(session, SCAN, ended_at=END, expected_files=3)
    finish_scan(session, SCAN, ended_at=END, expected_files=3)
    finish_scan(session, SCAN, ended_at=END)
    session.flush()
    session.expire(scan)
    assert (scan.ended_at, scan.expected_files) == (END, 3)


def test_the_number_of_files_may_be_told_later_than_the_end(session: Session, scan: models.ExecutedObsUnit) -> None:
    finish_scan(session, SCAN, ended_at=END)
    finish_scan(session, SCAN, ended_at=END, expected_files=0)
    assert scan.expected_files == 0
    with pytest.raises(Contradiction, match="number of files 0, now told 1"):
        finish_scan(session, SCAN, ended_at=END, expected_files=1)


@pytest.mark.usefixtures("scan")
def test_a_scan_does_not_end_twice(session: Session) -> None:
    finish_scan(session, SCAN, ended_at=END)
    with pytest.raises(Contradiction, match=r"end 2026-04-05 01:05:00\+00:00, now told 2026-04-05 01:05:01\+00:00"):
        finish_scan(session, SCAN, ended_at=END + timedelta(seconds=1))


@pytest.mark.usefixtures("scan")
def test_a_scan_does_not_end_before_it_starts(session: Session) -> None:
    with pytest.raises(EndsBeforeStart) as refused:
        finish_scan(session, SCAN, ended_at=START - timedelta(seconds=1))
    assert str(refused.value) == (
        f"Scan {SCAN} cannot end at 2026-04-05 00:59:59+00:00: it started at 2026-04-05 01:00:00+00:00. "
        "Check the clock of the instrument."
    )


@pytest.mark.parametrize("path", ["chai/0.fits.partial-7-0a1b2c3d", "night.removed-1-0/0.fits"])
def test_a_name_that_data_transfer_gives_to_what_it_removes_is_refused(session: Session, path: str) -> None:
    start_scan(session, SCAN, "map of M17", started_at=START)
    with pytest.raises(NameReserved, match=f"A raw file cannot have the path {path}: what is called so is removed"):
        add_files(
            session,
            SCAN,
            [replace(FILES[0], relative_path=path)],
            module="CHAI/LFA",
            location="ccat/chai_raw_data",
            by="CHAI",
        )
    assert session.scalars(sa.select(models.RawDataFile)).all() == []


@pytest.mark.parametrize(
    "path", ["chai/0.fits.partial-1", "0.fits.removed-outliers", "0.removed-20260401", "a.partial-1-0.fits"]
)
def test_names_that_are_only_alike_are_taken(session: Session, path: str) -> None:
    start_scan(session, SCAN, "map of M17", started_at=START)
    file = replace(FILES[0], relative_path=path)
    assert add_files(session, SCAN, [file], module="CHAI/LFA", location="ccat/chai_raw_data", by="CHAI").new == 1
