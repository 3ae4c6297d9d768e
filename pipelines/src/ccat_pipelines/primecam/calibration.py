"""The calibration product: what `calibrate-planet` learned of every detector, and for which scans it may be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ccat_pipelines import fits
from ccat_pipelines.arrays import Booleans, Floats
from ccat_pipelines.contract import Card, InputFile
from ccat_pipelines.errors import BadDataError
from ccat_pipelines.primecam.scan import INSTRUMENT, Scan

NAME = "calibration.fits"
COLUMNS = ("DETECTOR", "RESPONSE", "NEFD", "GOOD", "FAULT")
UNITS = {"RESPONSE": "Hz/Jy", "NEFD": "Jy.s^0.5"}
WANTS = {"PRIMARY": (*INSTRUMENT, "NIGHT", "DATE-BEG", "DATE-END", "VALIDHRS"), "DETECTORS": COLUMNS}


class CalibrationTooFarError(BadDataError):
    """A calibration was observed too long before or after a scan: responsivities have changed since."""

    def __init__(self, path: Path, *, night: str, scan: str, age_hours: float, most_hours: float) -> None:
        """Name the calibration, its night, the scan, and how far apart they are."""
        super().__init__(
            f"{path}: the calibration of night {night} is {age_hours:.1f} h away from scan {scan}, more than "
            f"{most_hours:g} h: calibrate on a planet of the scan's night, or raise max_calibration_age_hours"
        )


class OtherInstrumentError(BadDataError):
    """A calibration is of another instrument, module or beam than a scan."""

    def __init__(self, path: Path, *, key: str, scan: str, values: tuple[object, object]) -> None:
        """Name the calibration, the scan, and the keyword in which they differ."""
        super().__init__(
            f"{path}: {key} is {values[0]!r}, and {values[1]!r} in scan {scan}: "
            "take calibrations of the same instrument_module only"
        )


class OtherDetectorsError(BadDataError):
    """A calibration knows other detectors than a scan has."""

    def __init__(self, path: Path, *, scan: str, theirs: Sequence[str], its: Sequence[str]) -> None:
        """Name the calibration, the scan, and the first detector in which they differ."""
        pairs = enumerate(zip_longest(theirs, its, fillvalue="missing"), 1)
        number, (here, there) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
        super().__init__(
            f"{path}: its detectors are not those of scan {scan}: number {number} is {here}, and {there} in the scan: "
            "calibrate on a planet scan that was made after the last tuning"
        )


class NoDetectorsError(BadDataError):
    """Not one detector is left to work with."""

    def __init__(self, path: Path, why: str) -> None:
        """Name the file and say why none is left."""
        super().__init__(f"{path}: no good detector: {why}: look at the sweep and the timestreams, and withdraw it")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Responsivities of the detectors, with faults of those that are not good."""

    header: Mapping[str, Any]
    detectors: tuple[str, ...]
    responsivity: Floats
    """Hz/Jy: how far a resonance moves down in frequency."""
    nefd: Floats
    """Noise equivalent flux density, Jy√s."""
    fault: tuple[str, ...]
    """What is wrong with a detector; empty if it is good."""

    @property
    def good(self) -> Booleans:
        """Which detectors are good."""
        return np.array([not fault for fault in self.fault])

    def age(self, moment: datetime) -> timedelta:
        """Return how long before or after the planet scans a moment was; zero between them."""
        begin, end = (datetime.fromisoformat(self.header[key]).replace(tzinfo=UTC) for key in ("DATE-BEG", "DATE-END"))
        return max(begin - moment, moment - end, timedelta(0))


def write_calibration(path: Path, calibration: Calibration, stamp: list[Card]) -> None:
    """Write the product."""
    columns = {
        "DETECTOR": calibration.detectors,
        "RESPONSE": calibration.responsivity,
        "NEFD": calibration.nefd,
        "GOOD": calibration.good,
        "FAULT": np.array(calibration.fault, dtype="U16"),  # a column of nothing has no width
    }
    fits.write(path, fits.primary(calibration.header, stamp), fits.table("DETECTORS", columns, UNITS))


def read_calibration(file: InputFile) -> Calibration:
    """Read the product."""
    units = fits.read(file, wants=WANTS)
    rows = fits.columns(units["DETECTORS"])
    calibration = Calibration(
        header=units["PRIMARY"].header,
        detectors=tuple(rows["DETECTOR"].tolist()),
        responsivity=rows["RESPONSE"],
        nefd=rows["NEFD"],
        fault=tuple(rows["FAULT"].tolist()),
    )
    if not calibration.good.any():
        raise NoDetectorsError(file.path, "all of them have a fault")
    return calibration


def demand_match(calibration: Calibration, path: Path, scan: Scan, *, most_hours: float | None) -> timedelta:
    """Refuse a calibration that was not made for this scan; return how far apart in time they are.

    Args:
        calibration: read from `path`.
        path: named in the refusal.
        scan: to be calibrated.
        most_hours: how far apart they may be; None for what the calibration says itself.
    """
    name, header = scan.header["SCANID"], calibration.header
    for key in INSTRUMENT:
        if header[key] != scan.header[key]:
            raise OtherInstrumentError(path, key=key, scan=name, values=(header[key], scan.header[key]))
    if calibration.detectors != scan.detectors:
        raise OtherDetectorsError(path, scan=name, theirs=calibration.detectors, its=scan.detectors)
    most = header["VALIDHRS"] if most_hours is None else most_hours
    age = calibration.age(scan.start)
    if age > timedelta(hours=most):
        hours = age / timedelta(hours=1)
        raise CalibrationTooFarError(path, night=header["NIGHT"], scan=name, age_hours=hours, most_hours=most)
    return age
