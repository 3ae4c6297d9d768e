"""Step `map`: science scans of one source, with the calibration of their night → map, hit map and null map."""

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from typing import Annotated, Any

import numpy as np

from ccat_pipelines import fits
from ccat_pipelines.arrays import Booleans, Floats
from ccat_pipelines.contract import Card, Execution, InputFile
from ccat_pipelines.errors import BadConfigurationError, BadDataError
from ccat_pipelines.parameters import Range
from ccat_pipelines.preview import write_preview
from ccat_pipelines.primecam.calibration import NAME, Calibration, NoDetectorsError, demand_match, read_calibration
from ccat_pipelines.primecam.maps import SkyMap, Timestream, make_map, pixels
from ccat_pipelines.primecam.scan import LEAST, OBSERVATION, RepeatedScanError, Scan, read_scan
from ccat_pipelines.sky import MapGrid, project

SCANS = "group science scans by source, observing_night and instrument_module"
ONE_CALIBRATION = (
    "give the step one auxiliary rule that takes the nearest product of `primecam calibrate-planet`, and group it by "
    "observing_night and instrument_module"
)
UNITS = {"RESPONSE": "Hz/Jy", "NEFD": "Jy.s^0.5"}


@dataclass(frozen=True)
class Parameters:
    """What the configuration may say.

    Attributes:
        pixel_arcsec: side of a map pixel.
        size_arcsec: side of the map.
        iterations: of taking off the atmosphere and finding the sky.
        sky_threshold: standard deviations above which a map pixel is taken for sky in the next iteration.
        max_calibration_age_hours: how far in time the calibration may be from a scan; null means: as it says itself.
    """

    pixel_arcsec: Annotated[float, Range(0.1, 600)] = 12.0
    size_arcsec: Annotated[float, Range(1, 36000)] = 1560.0
    iterations: Annotated[int, Range(1, 50)] = 3
    sky_threshold: Annotated[float, Range(0, 1000)] = 4.0
    max_calibration_age_hours: Annotated[float, Range(0, 1e5)] | None = None


class MixedScansError(BadConfigurationError):
    """The inputs do not belong on one map."""

    def __init__(self, key: str, first: object, other: object) -> None:
        """Name what two scans differ in."""
        super().__init__(f"the scans differ in {key}: {first!r} and {other!r}: {SCANS}")


class NothingToMapError(BadDataError):
    """No map pixel has enough samples."""

    def __init__(self, scans: list[str]) -> None:
        """Name the scans that were read."""
        super().__init__(f"nothing of {', '.join(scans)} is on the map: look at the pointing, or widen size_arcsec")


@dataclass(kw_only=True)
class Gathered:
    """Calibrated scans on their way to one map."""

    header: Any
    grid: MapGrid
    streams: list[Timestream] = field(default_factory=list)
    used: list[Booleans] = field(default_factory=list)
    """Which detectors of the calibration each scan has in the map."""
    begins: dict[str, str] = field(default_factory=dict)  # by scan
    ends: list[str] = field(default_factory=list)
    farthest: timedelta = timedelta(0)
    """Of the scans from the calibration."""


def run(execution: Execution) -> None:
    """Read scans and calibration; write map, hit map, null map, preview and metrics."""
    parameters = execution.parameters(Parameters)
    file = execution.only("auxiliary", NAME, remedy=ONE_CALIBRATION)
    scans = execution.all("raw", "*.h5", remedy=SCANS)
    calibration = read_calibration(file)
    gathered = gather(scans, (file, calibration), parameters)
    sky = make_map(
        gathered.grid, gathered.streams, iterations=parameters.iterations, threshold=parameters.sky_threshold
    )
    if np.isnan(sky.weight).all():
        raise NothingToMapError(list(gathered.begins))
    detectors = detector_table(gathered, sky, calibration)
    write_products(execution, gathered, sky, detectors=detectors, stamp=execution.stamp(parameters))
    execution.write_json("metrics.json", metrics(gathered, sky, detectors))


def gather(files: list[InputFile], calibrated: tuple[InputFile, Calibration], parameters: Parameters) -> Gathered:
    """Read and calibrate every scan, one at a time, with the content of a calibration file."""
    first = read_scan(files[0])
    gathered = Gathered(header=first.header, grid=grid_of(first, parameters))
    for scan in chain([first], map(read_scan, files[1:])):
        add_scan(gathered, scan, calibrated, most_hours=parameters.max_calibration_age_hours)
    return gathered


def add_scan(
    gathered: Gathered, scan: Scan, calibrated: tuple[InputFile, Calibration], *, most_hours: float | None
) -> None:
    """Add a scan, once and only if it belongs on this map and under this calibration."""
    demand_alike(scan, gathered)
    source, calibration = calibrated
    age = demand_match(calibration, source.path, scan, most_hours=most_hours)
    gathered.farthest = max(gathered.farthest, age)
    gathered.begins[scan.header["SCANID"]] = scan.header["DATE-BEG"]
    gathered.ends.append(scan.header["DATE-END"])
    gathered.used.append(used := scan.alive & calibration.good)
    gathered.streams.append(calibrate(scan, calibration.responsivity, used, grid=gathered.grid))


def grid_of(scan: Scan, parameters: Parameters) -> MapGrid:
    """Return the grid of a map around the center of a scan."""
    size = max(1, round(parameters.size_arcsec / parameters.pixel_arcsec))
    return MapGrid(center=(scan.header["RA"], scan.header["DEC"]), pixel=parameters.pixel_arcsec, size=size)


def demand_alike(scan: Scan, gathered: Gathered) -> None:
    """Refuse a scan that is on the map already, or does not belong there."""
    if scan.header["SCANID"] in gathered.begins:
        raise RepeatedScanError(scan.path, scan.header["SCANID"])
    for key in (*OBSERVATION, "RATE"):
        if scan.header[key] != gathered.header[key]:
            raise MixedScansError(key, gathered.header[key], scan.header[key])


def calibrate(scan: Scan, responsivity: Floats, used: Booleans, *, grid: MapGrid) -> Timestream:
    """Return the signals, Jy, of the detectors that are used, and where on the map they fall."""
    if np.count_nonzero(used) < LEAST["detectors"]:
        raise NoDetectorsError(scan.path, f"{np.count_nonzero(used)} of {used.size} are calibrated and have a signal")
    east, north = project(scan.ra, scan.dec, center=grid.center)
    offsets = zip(scan.dx[used], scan.dy[used], strict=True)
    return Timestream(
        signal=scan.shift[used] / responsivity[used, None],
        pixel=np.stack([pixels(grid, east + dx, north + dy) for dx, dy in offsets]),
        half=np.arange(np.count_nonzero(used)) % 2,
    )


def detector_table(gathered: Gathered, sky: SkyMap, calibration: Calibration) -> dict[str, Any]:
    """Return what is known of every detector; coupling and NEFD are medians over the scans, NaN if it is in none."""
    coupling, noise = np.full((2, len(gathered.used), len(calibration.detectors)), np.nan)
    for scan, (used, atmosphere) in enumerate(zip(gathered.used, sky.atmospheres, strict=True)):
        coupling[scan, used], noise[scan, used] = atmosphere.coupling, atmosphere.noise
    scans = np.sum(gathered.used, axis=0)
    seen = scans > 0
    median = {name: np.full(seen.size, np.nan) for name in ("COUPLING", "NEFD")}
    median["COUPLING"][seen] = np.nanmedian(coupling[:, seen], axis=0)
    median["NEFD"][seen] = np.nanmedian(noise[:, seen], axis=0) / np.sqrt(gathered.header["RATE"])
    return {"DETECTOR": calibration.detectors, "SCANS": scans, "RESPONSE": calibration.responsivity, **median}


def write_products(
    execution: Execution, gathered: Gathered, sky: SkyMap, *, detectors: dict[str, Any], stamp: list[Card]
) -> None:
    """Write map, hit map, null map and preview."""
    cards = map_cards(gathered)

    def write(name: str, data: Floats, unit: str, *more: Any) -> None:
        fits.write(execution.product("science", name), fits.primary({**cards, "BUNIT": unit}, stamp, data), *more)

    def weight(data: Floats) -> Any:
        return fits.image("WEIGHT", data, {**gathered.grid.cards(), "BUNIT": "Jy-2"})

    scans = {"SCAN": list(gathered.begins), "DATEBEG": list(gathered.begins.values())}
    tables = (fits.table("DETECTORS", detectors, UNITS), fits.table("SCANS", scans))
    write("map.fits", sky.sky, "Jy/beam", weight(sky.weight), *tables)
    write("null.fits", sky.null, "Jy/beam", weight(sky.null_weight))
    write("hits.fits", sky.hits, "count")
    title = f"{gathered.header['OBJECT']}, {len(gathered.begins)} scans"
    write_preview(execution.product("plots", "map.png"), sky.sky, title=title, legend="Jy/beam")


def map_cards(gathered: Gathered) -> dict[str, Any]:
    """Return what the headers of all maps have in common."""
    header, beam = gathered.header, gathered.header["BMAJ"]
    return {
        **{key: header[key] for key in OBSERVATION},
        "NIGHT": (header["NIGHT"], "observing night of the first scan"),
        "DATE-BEG": min(gathered.begins.values()),
        "DATE-END": max(gathered.ends),
        "NSCANS": (len(gathered.begins), "their names are in SCANS of the map"),
        "CALAGE": (gathered.farthest / timedelta(hours=1), "[h] of the calibration, at most"),
        "BMAJ": beam,
        "BMIN": beam,
        "BPA": 0.0,
        **gathered.grid.cards(),
    }


def metrics(gathered: Gathered, sky: SkyMap, detectors: dict[str, Any]) -> dict[str, float]:
    """Return figures that tell a good map from a bad one at a glance."""
    return {
        "scans": len(gathered.begins),
        "detectors": int(np.count_nonzero(detectors["SCANS"])),
        "calibration_age_hours": gathered.farthest / timedelta(hours=1),
        "median_nefd_mjy_sqrt_s": float(1000 * np.nanmedian(detectors["NEFD"])),
        "median_map_rms_mjy": float(1000 * np.nanmedian(sky.weight**-0.5)),
        "map_peak_jy": float(np.nanmax(sky.sky)),
        "covered_fraction": float(np.mean(np.isfinite(sky.weight))),
    }
