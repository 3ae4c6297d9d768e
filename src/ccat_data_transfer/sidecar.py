"""What is known of an archived raw package, in a file beside its tar: the archive explains itself without a database.

`obscore` has the fields of the IVOA's ObsCore data model, in its names and units; the rest says the same and more in
our own terms.
"""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_FILE: Final = Path(__file__).with_name("sidecar.schema.json")
"""The published schema; `schema_text` returns what it must say."""

_CHECKSUM: Final = r"^sha256:[0-9a-f]{64}$"
_MJD_ZERO: Final = datetime(1858, 11, 17, tzinfo=UTC)
_LIGHT_M_GHZ: Final = 0.299792458
"""Speed of light, as wavelength in metres times frequency in GHz."""
_TAR: Final = "application/x-tar"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DescribedFile(_Part):
    """A raw file, as its instrument registered it."""

    id: UUID | None = Field(default=None, description="Identifier that its instrument made; since version 2.")
    path: str = Field(description="Path in the tar.")
    size_bytes: int
    checksum: str = Field(pattern=_CHECKSUM)


class LostFile(DescribedFile):
    """A raw file that was registered, and is not in the tar, as it was lost before."""

    path: str = Field(description="Path that it would have in the tar.")
    lost_at: datetime = Field(description="When a person said so.")
    because: str = Field(description="How it was lost, and who said so.")


class DescribedTar(_Part):
    """The tar beside this file."""

    name: str
    size_bytes: int
    checksum: str = Field(pattern=_CHECKSUM)
    format: Literal["application/x-tar"] = _TAR


class DescribedPackage(_Part):
    """The raw package: the files of one scan and module, or one part of them."""

    name: str
    part: int
    metadata: dict[str, Any]


class DescribedProgram(_Part):
    """Who asked for the observation."""

    short_name: str
    name: str
    part: str | None = Field(description="Name of the part of the program, if it has parts.")


class DescribedTarget(_Part):
    """What was observed; coordinates are null where it has none that are fixed."""

    name: str
    type: str
    frame: Literal["ICRS"] = "ICRS"
    ra_deg: float | None = None
    dec_deg: float | None = None


class DescribedObservation(_Part):
    """The scan: what was executed, how, and when."""

    id: UUID
    obs_unit: str
    program: DescribedProgram
    target: DescribedTarget
    mode: str
    line: str | None = Field(description="Spectral line, if it is for one.")
    start: datetime
    end: datetime | None = Field(description="Null where the instrument had not told when the package was archived.")
    observing_night: date
    expected_files: int | None = Field(
        default=None, description="Number of raw files that belong to it, if the instrument told; since version 2."
    )
    conditions: dict[str, Any] = Field(description="Weather and telescope state.")


class DescribedInstrument(_Part):
    """Where the data come from."""

    observatory: str
    longitude_deg: float
    latitude_deg: float
    altitude_m: float
    telescope: str
    instrument: str
    module: str
    frequency_min_ghz: float | None
    frequency_max_ghz: float | None


class ObsCore(_Part):
    """Fields of the IVOA's ObsCore 1.1, in its units: MJD (UTC), degrees, metres, kB."""

    calib_level: Literal[0] = 0
    obs_collection: str
    obs_id: str
    obs_title: str
    obs_creator_name: str
    access_format: Literal["application/x-tar"] = _TAR
    access_estsize: int
    facility_name: str
    instrument_name: str
    target_name: str
    s_ra: float | None
    s_dec: float | None
    t_min: float
    t_max: float | None
    em_min: float | None
    em_max: float | None


class Sidecar(_Part):
    """Everything that is known of an archived raw package; of versions 1 and 2 it is read as well."""

    schema_version: Literal[1, 2, 3] = 3
    obscore: ObsCore
    creator: str = Field(description="Who had the data taken.")
    license: str | None = Field(description="`license` of the metadata of the package; null where it says nothing.")
    observation: DescribedObservation
    instrument: DescribedInstrument
    package: DescribedPackage
    tar: DescribedTar
    files: tuple[DescribedFile, ...]
    lost_files: tuple[LostFile, ...] = Field(
        default=(), description="Raw files that the package was built without; since version 3."
    )


def describe(
    observation: DescribedObservation,
    instrument: DescribedInstrument,
    package: DescribedPackage,
    *,
    tar: DescribedTar,
    files: Sequence[DescribedFile],
    lost: Sequence[LostFile] = (),
) -> Sidecar:
    """The sidecar of a raw package; its files in the order of their paths."""
    rights = package.metadata.get("license")
    return Sidecar(
        obscore=_obscore(observation, instrument, tar),
        creator=observation.program.name,
        license=None if rights is None else str(rights),
        observation=observation,
        instrument=instrument,
        package=package,
        tar=tar,
        files=tuple(sorted(files, key=lambda file: file.path)),
        lost_files=tuple(sorted(lost, key=lambda file: file.path)),
    )


def render(sidecar: Sidecar) -> bytes:
    """The file: the same bytes whenever the same is known."""
    return (sidecar.model_dump_json(indent=2) + "\n").encode()


def read_sidecar(content: bytes) -> Sidecar:
    """What a file says; raises ValueError where it is none, or of a later version."""
    return Sidecar.model_validate_json(content)


def sidecar_path(tar_path: str) -> str:
    """Path of the sidecar of a tar: beside it, as `<name>.json`."""
    return f"{tar_path.removesuffix('.tar')}.json"


def schema_text() -> str:
    """The JSON Schema of the files that `render` writes."""
    schema = Sidecar.model_json_schema(mode="serialization")
    published = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:ccat:sidecar:3", **schema}
    return json.dumps(published, indent=2) + "\n"


def _obscore(observation: DescribedObservation, instrument: DescribedInstrument, tar: DescribedTar) -> ObsCore:
    target = observation.target
    return ObsCore(
        obs_collection=observation.program.short_name,
        obs_id=str(observation.id),
        obs_title=observation.obs_unit,
        obs_creator_name=observation.program.name,
        access_estsize=-(-tar.size_bytes // 1000),
        facility_name=instrument.telescope,
        instrument_name=f"{instrument.instrument}/{instrument.module}",
        target_name=target.name,
        s_ra=target.ra_deg,
        s_dec=target.dec_deg,
        t_min=_mjd(observation.start),
        t_max=_mjd(observation.end) if observation.end else None,
        em_min=_wavelength_m(instrument.frequency_max_ghz),
        em_max=_wavelength_m(instrument.frequency_min_ghz),
    )


def _mjd(moment: datetime) -> float:
    return (moment - _MJD_ZERO) / timedelta(days=1)


def _wavelength_m(frequency_ghz: float | None) -> float | None:
    return _LIGHT_M_GHZ / frequency_ghz if frequency_ghz else None
