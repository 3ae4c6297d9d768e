import json
import uuid
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy.orm import Session

from ccat_data_transfer.sidecar import (
    SCHEMA_FILE,
    DescribedFile,
    DescribedInstrument,
    DescribedObservation,
    DescribedPackage,
    DescribedProgram,
    DescribedTar,
    DescribedTarget,
    Sidecar,
    describe,
    render,
    schema_text,
    sidecar_path,
)
from ccat_ops_db import models
from ccat_ops_db.session import transaction
from tests.transfer.support import START, Observatory, digest

FILES = {"2026-04-01/b.fits": b"b" * 1000, "2026-04-01/a.fits": b"a" * 2000}
OBSERVATION = DescribedObservation(
    id=uuid.UUID(int=7),
    obs_unit="M17 map",
    program=DescribedProgram(short_name="GEco", name="Galactic ecology", part=None),
    target=DescribedTarget(name="M17", type="fixed_source", ra_deg=275.2, dec_deg=-16.2),
    mode="OTF",
    line="CO43",
    start=datetime(2026, 4, 1, 12, tzinfo=UTC),
    end=datetime(2026, 4, 1, 18, tzinfo=UTC),
    observing_night=date(2026, 4, 1),
    conditions={"pwv_mm": 0.4},
)
INSTRUMENT = DescribedInstrument(
    observatory="CCAT",
    longitude_deg=-67.7,
    latitude_deg=-23.0,
    altitude_m=5600,
    telescope="FYST",
    instrument="CHAI",
    module="LFA",
    frequency_min_ghz=455,
    frequency_max_ghz=495,
)
TAR = DescribedTar(name="p.tar", size_bytes=10_241, checksum=digest(b"tar"))


def file(path: str) -> DescribedFile:
    return DescribedFile(path=path, size_bytes=1, checksum=digest(path.encode()))


def described(*files: DescribedFile, **metadata: Any) -> Sidecar:
    package = DescribedPackage(name="p", part=1, metadata=metadata)
    return describe(OBSERVATION, INSTRUMENT, package, tar=TAR, files=files)


def test_the_fields_of_obscore_have_its_units() -> None:
    core = described().obscore
    assert (core.t_min, core.t_max) == (61131.5, 61131.75)
    assert (core.s_ra, core.s_dec, core.target_name) == (275.2, -16.2, "M17")
    assert core.access_estsize == 11
    assert [core.em_min, core.em_max] == pytest.approx([6.056e-4, 6.589e-4], rel=1e-3)
    assert (core.facility_name, core.instrument_name, core.obs_collection) == ("FYST", "CHAI/LFA", "GEco")


def test_a_license_is_what_the_package_says_and_null_where_it_says_nothing() -> None:
    assert described().license is None
    assert described(license="CC-BY-4.0").license == "CC-BY-4.0"


def test_the_same_knowledge_makes_the_same_bytes_whatever_the_order_of_the_files() -> None:
    assert render(described(file("a"), file("b"))) == render(described(file("b"), file("a")))


def test_what_is_written_has_the_published_form_and_reads_back() -> None:
    written = render(described(file("a")))
    assert Sidecar.model_validate_json(written) == described(file("a"))
    fields = set(json.loads(SCHEMA_FILE.read_text())["properties"])
    assert set(json.loads(written)) == fields
    with pytest.raises(ValidationError, match="checksum"):
        DescribedFile(path="a", size_bytes=1, checksum="md5:1")


def test_the_published_schema_is_current() -> None:
    assert SCHEMA_FILE.read_text() == schema_text(), "write schema_text() to SCHEMA_FILE, and raise the version"


def test_a_sidecar_lies_beside_its_tar() -> None:
    assert sidecar_path("raw/2026-03-31/CHAI-LFA-p1.tar") == "raw/2026-03-31/CHAI-LFA-p1.json"


def archived(observatory: Observatory) -> tuple[models.RawDataPackage, Sidecar]:
    package_id = observatory.observe(FILES)
    observatory.do_all()
    package = observatory.package(package_id)
    tar = observatory.directory("cologne/lta") / observatory.copies(package_id)["cologne/lta"].path
    return package, Sidecar.model_validate_json(tar.with_suffix(".json").read_bytes())


def test_an_archived_tar_has_a_sidecar_that_says_who_what_when_and_where(observatory: Observatory) -> None:
    package, sidecar = archived(observatory)
    assert sidecar.observation.id == package.executed_obs_unit_id
    assert (sidecar.observation.program.name, sidecar.creator) == ("Calibration", "Calibration")
    assert sidecar.observation.target == DescribedTarget(name="M17", type="fixed_source", ra_deg=275.2, dec_deg=-16.2)
    assert (sidecar.observation.mode, sidecar.observation.start) == ("OTF", START)
    assert sidecar.observation.end is not None
    assert (sidecar.instrument.telescope, sidecar.instrument.instrument, sidecar.instrument.module) == (
        "FYST",
        "CHAI",
        "LFA",
    )
    assert sidecar.tar == DescribedTar(
        name=f"{package.name}.tar", size_bytes=package.size_bytes or 0, checksum=package.checksum or ""
    )
    assert [(one.path, one.size_bytes, one.checksum) for one in sidecar.files] == [
        (path, len(data), digest(data)) for path, data in sorted(FILES.items())
    ]


def test_a_target_that_moves_has_no_coordinates(observatory: Observatory) -> None:
    with transaction(observatory.engine) as session:
        planet = models.SolarSystemObject(name="Uranus", naif_id=799)
        session.add(planet)
        session.flush()
        was = point_at(session, planet.id)
    _, sidecar = archived(observatory)
    assert (sidecar.observation.target.type, sidecar.obscore.target_name) == ("solar_system_object", "Uranus")
    assert (sidecar.obscore.s_ra, sidecar.obscore.s_dec) == (None, None)
    with transaction(observatory.engine) as session:
        point_at(session, was)
        session.delete(session.get_one(models.Source, planet.id))


def point_at(session: Session, source_id: int) -> int:
    """Have the planned observation observe something else; what it was."""
    unit = session.query(models.ObsUnit).one()
    was, unit.source_id = unit.source_id, source_id
    return was
