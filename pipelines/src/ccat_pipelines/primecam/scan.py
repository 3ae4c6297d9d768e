"""A raw scan: HDF5 with I and Q of every detector, the target sweep that was made before it, and the pointing.

| data set | axes | unit | content |
|---|---|---|---|
| DETECTOR | detector | | name |
| DX, DY | detector | arcsec | offset from the boresight, east and north |
| TONE | detector | Hz | readout tone |
| FSWEEP | detector, step | Hz | frequencies of the target sweep |
| ISWEEP, QSWEEP | detector, step | count | the sweep |
| I, Q | detector, sample | count | the timestreams |
| TIME | sample | s | since DATE-BEG |
| RA, DEC | sample | deg | boresight, ICRS |

Attributes have the names and units of FITS keywords; CABLE is the delay of the cables, s, RATE the number of samples
in a second, and FLUX, where KIND is `planet`, the flux density of the planet by its ephemeris, Jy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ccat_pipelines import hdf5
from ccat_pipelines.arrays import Booleans, Floats
from ccat_pipelines.contract import InputFile
from ccat_pipelines.errors import BadDataError, DamagedFileError
from ccat_pipelines.primecam.resonators import fit_resonators, frequency_shift, without_delay
from ccat_pipelines.sky import project

DATA = {
    "DETECTOR": ("detector",),
    **dict.fromkeys(("DX", "DY", "TONE"), ("detector",)),
    **dict.fromkeys(("FSWEEP", "ISWEEP", "QSWEEP"), ("detector", "step")),
    **dict.fromkeys(("I", "Q"), ("detector", "sample")),
    **dict.fromkeys(("TIME", "RA", "DEC"), ("sample",)),
}
INSTRUMENT = ("TELESCOP", "INSTRUME", "MODULE", "BMAJ")
OBSERVATION = (*INSTRUMENT, "OBJECT", "RA", "DEC")
ATTRIBUTES = {
    **dict.fromkeys((*OBSERVATION, "SCANID", "DATE-BEG", "DATE-END", "NIGHT", "KIND"), str),
    **dict.fromkeys(("BMAJ", "RA", "DEC", "RATE", "CABLE"), float),
}
LEAST = {"detectors": 4, "steps of the sweep": 10, "samples": 100}
MAX_MISFIT = 0.2  # radii: sweeps of real resonances stay below a few hundredths, noise is at 1


class ShortScanError(BadDataError):
    """A scan is too short for anything to be made of it."""

    def __init__(self, path: Path, what: str, found: int) -> None:
        """Name the file and what it has too little of."""
        super().__init__(f"{path}: has {found} {what}, fewer than {LEAST[what]}: withdraw the scan")


class RepeatedScanError(BadDataError):
    """A scan is there twice, and would count twice."""

    def __init__(self, path: Path, scan_id: str) -> None:
        """Name the second file and its scan."""
        super().__init__(f"{path}: scan {scan_id} is already among the inputs: withdraw one of the two")


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a scan saw, before its detectors are calibrated."""

    path: Path
    header: Mapping[str, Any]
    detectors: tuple[str, ...]
    shift: Floats
    """How far every resonance is below its place in the sweep, Hz, (detector, sample)."""
    alive: Booleans
    """Which detectors have a resonance and a signal; of the others `shift` means nothing."""
    dx: Floats
    dy: Floats
    ra: Floats
    dec: Floats

    @property
    def start(self) -> datetime:
        """When the scan started."""
        return datetime.fromisoformat(self.header["DATE-BEG"]).replace(tzinfo=UTC)

    def offsets(self, center: tuple[float, float]) -> tuple[Floats, Floats]:
        """Return where every sample of every detector was, arcsec east and north of a center (ra, dec in deg)."""
        east, north = project(self.ra, self.dec, center=center)
        return east + self.dx[:, None], north + self.dy[:, None]


def read_scan(file: InputFile) -> Scan:
    """Read a raw scan, fit its sweep and turn its timestreams into frequency shifts."""
    tree = hdf5.read(file, wants=DATA, attributes=ATTRIBUTES)
    data, header = tree.data, tree.attributes
    sizes = dict(zip(LEAST, (*data["FSWEEP"].shape, data["TIME"].size), strict=True))
    for what, size in sizes.items():
        if size < LEAST[what]:
            raise ShortScanError(file.path, what, size)
    _demand_time(file.path, header)
    shift, alive = _shifts(data, delay_s=header["CABLE"])
    return Scan(
        path=file.path,
        header=header,
        detectors=tuple(data["DETECTOR"].astype(str).tolist()),
        shift=shift,
        alive=alive,
        **{name.lower(): data[name] for name in ("DX", "DY", "RA", "DEC")},
    )


def _demand_time(path: Path, header: Mapping[str, Any]) -> None:
    """Refuse a scan that does not say when it was made: a calibration would be chosen by chance."""
    for key in ("DATE-BEG", "DATE-END"):
        try:
            datetime.fromisoformat(header[key])
        except ValueError as error:
            raise DamagedFileError(path, part=f"attribute {key}", problem=str(error)) from error


def _shifts(data: Mapping[str, np.ndarray], *, delay_s: float) -> tuple[Floats, Booleans]:
    tone, steps = data["TONE"], data["FSWEEP"]
    with np.errstate(divide="ignore", invalid="ignore"):  # what is dead has no circle
        sweep = without_delay(data["ISWEEP"] + 1j * data["QSWEEP"], steps, delay_s=delay_s)
        resonators = fit_resonators(steps, sweep)
        shift = frequency_shift((data["I"], data["Q"]), tone, resonators, delay_s=delay_s)
    varies = np.ptp(data["I"], axis=1) + np.ptp(data["Q"], axis=1) > 0
    return shift, (resonators.misfit < MAX_MISFIT) & varies & np.isfinite(shift).all(axis=1)
