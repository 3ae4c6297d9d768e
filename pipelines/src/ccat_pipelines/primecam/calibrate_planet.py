"""Step `calibrate-planet`: planet scans of one night → responsivity of every detector, and which ones are good."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from ccat_pipelines.arrays import Floats
from ccat_pipelines.contract import Execution
from ccat_pipelines.errors import BadConfigurationError, DamagedFileError
from ccat_pipelines.parameters import Positive, Range
from ccat_pipelines.primecam.calibration import NAME, Calibration, NoDetectorsError, write_calibration
from ccat_pipelines.primecam.scan import INSTRUMENT, LEAST, RepeatedScanError, Scan, read_scan
from ccat_pipelines.primecam.timestreams import amplitude, beam, common_mode, without_mean

PLANET_SCANS = "group planet scans by observing_night and instrument_module"
ALIKE = (*INSTRUMENT, "NIGHT")
ITERATIONS = 3  # each leaves 1/detectors of the planet in the common mode that the one before left


@dataclass(frozen=True)
class Parameters:
    """What the configuration may say.

    Attributes:
        planet_flux_jy: flux density of the planet; null means: as its ephemeris says, from the raw file.
        valid_hours: how far in time from the planet scans the calibration may be used.
        response_factor: a detector this many times more or less responsive than the median one is not good.
        noise_factor: nor is one whose NEFD is this many times that of the median one.
    """

    planet_flux_jy: Positive | None = None
    valid_hours: Annotated[float, Range(0, 1e5)] = 12.0
    response_factor: Annotated[float, Range(1, 1e3)] = 3.0
    noise_factor: Annotated[float, Range(1, 1e3)] = 2.0


class NotPlanetError(BadConfigurationError):
    """A scan is not of a planet: nothing is known of its flux."""

    def __init__(self, path: Path, kind: object) -> None:
        """Name the file and the kind of its scan."""
        super().__init__(f"{path}: is a scan of kind {kind!r}, not of a planet: {PLANET_SCANS}")


class MixedPlanetScansError(BadConfigurationError):
    """The scans do not belong into one calibration."""

    def __init__(self, key: str, first: object, other: object) -> None:
        """Name what two scans differ in."""
        super().__init__(f"the scans differ in {key}: {first!r} and {other!r}: {PLANET_SCANS}")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one planet scan tells of every detector; NaN of those without a resonance."""

    responsivity: Floats  # Hz/Jy
    noise: Floats  # Hz√s


def run(execution: Execution) -> None:
    """Read the planet scans; write `science/calibration.fits` and `qa/metrics.json`."""
    parameters = execution.parameters(Parameters)
    files = execution.all("raw", "*.h5", remedy=PLANET_SCANS)
    scans: list[Scan] = []
    measurements = []
    for file in files:
        scan = read_scan(file)
        demand_alike(scan, scans)
        measurements.append(measure(scan, flux_jy=planet_flux(scan, parameters)))
        scans.append(scan)
    calibration = combine(scans, measurements, parameters)
    if not calibration.good.any():
        raise NoDetectorsError(scans[0].path, "not one saw the planet")
    write_calibration(execution.product("science", NAME), calibration, execution.stamp(parameters))
    execution.write_json("metrics.json", metrics(calibration, len(scans)))


def demand_alike(scan: Scan, others: list[Scan]) -> None:
    """Refuse a scan that is among the others, or does not belong to them."""
    for other in others:
        if scan.header["SCANID"] == other.header["SCANID"]:
            raise RepeatedScanError(scan.path, scan.header["SCANID"])
        for key in ALIKE:
            if scan.header[key] != other.header[key]:
                raise MixedPlanetScansError(key, other.header[key], scan.header[key])
        if scan.detectors != other.detectors:
            raise MixedPlanetScansError("their detectors", len(other.detectors), len(scan.detectors))


def planet_flux(scan: Scan, parameters: Parameters) -> float:
    """Return the planet's flux density, Jy."""
    if scan.header["KIND"] != "planet":
        raise NotPlanetError(scan.path, scan.header["KIND"])
    if parameters.planet_flux_jy is not None:
        return parameters.planet_flux_jy
    if "FLUX" not in scan.header:
        raise DamagedFileError(scan.path, part="attribute FLUX", problem="is missing")
    return float(scan.header["FLUX"])


def measure(scan: Scan, *, flux_jy: float) -> Measurement:
    """Fit the planet and the atmosphere to every detector that has a resonance."""
    east, north = scan.offsets((scan.header["RA"], scan.header["DEC"]))
    alive, n_detectors = scan.alive, len(scan.detectors)
    if np.count_nonzero(alive) < LEAST["detectors"]:
        raise NoDetectorsError(scan.path, f"{np.count_nonzero(alive)} of {n_detectors} have a resonance and a signal")
    planet = flux_jy * beam(east[alive], north[alive], fwhm=scan.header["BMAJ"] * 3600)
    signal, planet = without_mean(scan.shift[alive]), without_mean(planet)
    fitted: Floats = np.zeros(len(signal))
    responsivity, noise = np.full((2, n_detectors), np.nan)
    for _ in range(ITERATIONS):
        atmosphere = common_mode(signal - fitted[:, None] * planet)
        fitted = amplitude(signal, atmosphere.mode, planet)
    responsivity[alive], noise[alive] = fitted, atmosphere.noise / np.sqrt(scan.header["RATE"])
    return Measurement(responsivity=responsivity, noise=noise)


def combine(scans: list[Scan], measurements: list[Measurement], parameters: Parameters) -> Calibration:
    """Return the mean over the scans; a detector has to be good in all of them."""
    responsivity = np.mean([one.responsivity for one in measurements], axis=0)
    noise = np.sqrt(np.mean([one.noise**2 for one in measurements], axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):  # of a detector that does not see the planet
        nefd = np.where(responsivity > 0, noise / responsivity, np.inf)
    first = scans[0].header
    header = {
        **{key: first[key] for key in INSTRUMENT},
        "OBJECT": first["OBJECT"],
        "NIGHT": (first["NIGHT"], "observing night of the planet scans"),
        "DATE-BEG": min(scan.header["DATE-BEG"] for scan in scans),
        "DATE-END": max(scan.header["DATE-END"] for scan in scans),
        "VALIDHRS": (parameters.valid_hours, "[h] before DATE-BEG, after DATE-END"),
        "NSCANS": len(scans),
    }
    return Calibration(
        header=header,
        detectors=scans[0].detectors,
        responsivity=responsivity,
        nefd=nefd,
        fault=tuple(faults(responsivity, nefd, parameters)),
    )


def faults(responsivity: Floats, nefd: Floats, parameters: Parameters) -> list[str]:
    """Return what is wrong with every detector; nothing if it is good."""
    usual, quiet = np.nanmedian(responsivity), np.nanmedian(nefd)
    low, high = usual / parameters.response_factor, usual * parameters.response_factor
    odd = (responsivity < low) | (responsivity > high)
    cases = [np.isnan(responsivity), odd, nefd > parameters.noise_factor * quiet]
    found: list[str] = np.select(cases, ["no resonance", "response", "noise"], "").tolist()
    return found


def metrics(calibration: Calibration, scans: int) -> dict[str, Any]:
    """Return figures that tell a good calibration from a bad one at a glance."""
    good = calibration.good
    return {
        "scans": scans,
        "good_detectors": int(good.sum()),
        "dropped_detectors": int((~good).sum()),
        "median_responsivity_hz_per_jy": float(np.median(calibration.responsivity[good])),
        "median_nefd_mjy_sqrt_s": float(1000 * np.median(calibration.nefd[good])),
    }
