"""Step `grid`: baselined scans of one source → cube, moment 0 and weight map. Memory holds one scan at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np

from ccat_pipelines import fits
from ccat_pipelines.arrays import Floats
from ccat_pipelines.chai.maps import MapAccumulator, Samples
from ccat_pipelines.chai.scan import OBSERVATION, Columns, Scan, read_scan, velocity_kms
from ccat_pipelines.chai.spectra import line_free, off_share
from ccat_pipelines.contract import Execution, InputFile
from ccat_pipelines.errors import BadConfigurationError, BadDataError
from ccat_pipelines.parameters import Positive, Range
from ccat_pipelines.preview import write_preview
from ccat_pipelines.sky import MapGrid, project

AFTER_BASELINE = "make the step depend on a `chai baseline` step"
FLAGS = ("SCAN", "PIXEL", "RMS", "FLAGGED")


@dataclass(frozen=True)
class Parameters:
    """What the configuration may say.

    Attributes:
        pixel_arcsec: side of a map pixel.
        size_arcsec: side of the map.
        kernel_fwhm_arcsec: of the convolution; half the beam loses little resolution.
        line_half_width_kms: moment 0 sums the channels this near to the source's velocity.
    """

    pixel_arcsec: Annotated[float, Range(0.1, 600)] = 6.5
    size_arcsec: Annotated[float, Range(1, 36000)] = 390.0
    kernel_fwhm_arcsec: Annotated[float, Range(0.1, 600)] = 13.0
    line_half_width_kms: Positive = 100.0


class MixedScansError(BadConfigurationError):
    """The inputs do not belong on one map."""

    def __init__(self, key: str, first: object, other: object) -> None:
        """Name the header keyword in which two scans differ."""
        super().__init__(f"the scans differ in {key}: {first!r} and {other!r}: group the step by source and module")


class RepeatedScanError(BadDataError):
    """A scan is there twice, and would count twice."""

    def __init__(self, file: InputFile, scan_id: str) -> None:
        """Name the second file and its scan."""
        super().__init__(f"{file.path}: scan {scan_id} is already on the map: withdraw one of the two")


class NoLineError(BadConfigurationError):
    """No channel of the band is in the line window."""

    def __init__(self, center_kms: float, half_width_kms: float) -> None:
        """Name the window that was asked for."""
        super().__init__(f"no channel within {half_width_kms:g} km/s of {center_kms:g} km/s: widen line_half_width_kms")


class NothingToGridError(BadDataError):
    """No sample is left for the map."""

    def __init__(self, scans: list[str]) -> None:
        """Name the scans that were read."""
        super().__init__(f"every pixel of {', '.join(scans)} is flagged or off the map: look at the baselined scans")


@dataclass(kw_only=True)
class SkyMap:
    """A map that grows scan by scan, and what is known about the scans on it."""

    header: Any
    axis: Mapping[str, Any]
    sums: MapAccumulator
    flags: dict[str, Columns] = field(default_factory=dict)  # by scan
    begins: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)


def run(execution: Execution) -> None:
    """Read every `baselined.fits`; write cube, moment 0, weight map, preview and metrics."""
    parameters = execution.parameters(Parameters)
    files = execution.all("upstream", "baselined.fits", remedy=AFTER_BASELINE)
    sky = start_map(files[0], parameters)
    for file in files[1:]:
        add_scan(sky, read_scan(file, weighted=True), file)
    if not np.any(sky.sums.covered):
        raise NothingToGridError(list(sky.flags))
    write_products(execution, sky, parameters)


def start_map(file: InputFile, parameters: Parameters) -> SkyMap:
    """Return a map around the source of a scan, with that scan on it."""
    scan = read_scan(file, weighted=True)
    grid = MapGrid(
        center=(scan.header["RA"], scan.header["DEC"]),
        pixel=parameters.pixel_arcsec,
        size=max(1, round(parameters.size_arcsec / parameters.pixel_arcsec)),
    )
    n_channels = scan.spectra.shape[-1]
    sums = MapAccumulator(grid=grid, kernel_fwhm=parameters.kernel_fwhm_arcsec, n_channels=n_channels)
    sky = SkyMap(header=scan.header, axis=scan.axis, sums=sums)
    add_scan(sky, scan, file)
    return sky


def add_scan(sky: SkyMap, scan: Scan, file: InputFile) -> None:
    """Add a scan to the map, once and only if it belongs there."""
    scan_id = scan.header["SCANID"]
    if scan_id in sky.flags:
        raise RepeatedScanError(file, scan_id)
    for key in OBSERVATION:
        if scan.header[key] != sky.header[key]:
            raise MixedScansError(key, sky.header[key], scan.header[key])
    axes = [{**one.axis, "NAXIS1": size} for one, size in ((sky, sky.sums.n_channels), (scan, scan.spectra.shape[-1]))]
    if axes[0] != axes[1]:
        raise MixedScansError("the spectral axis", *axes)
    sky.sums.add(samples_of(scan, sky.sums.grid))
    n_pixels = scan.spectra.shape[1]
    by_pixel = (np.full(n_pixels, scan_id), np.arange(n_pixels), scan.pixels["RMS"], scan.pixels["FLAGGED"])
    sky.flags[scan_id] = dict(zip(FLAGS, by_pixel, strict=True))
    sky.begins.append(scan.header["DATE-BEG"])
    sky.ends.append(scan.header["DATE-END"])


def samples_of(scan: Scan, grid: MapGrid) -> Samples:
    """Return the unflagged spectra of a scan at their offsets from the map's center."""
    weight = np.asarray(scan.weight)
    integration, pixel = np.nonzero(weight > 0)
    pointing, n_pixels = scan.pointing, weight.shape[1]
    east, north = project(pointing["RA"], pointing["DEC"], center=grid.center)
    return Samples(
        east=east[integration] + scan.pixels["DX"][pixel],
        north=north[integration] + scan.pixels["DY"][pixel],
        spectra=scan.spectra[integration, pixel],
        weight=weight[integration, pixel],
        off=pointing["OFF"][integration] * n_pixels + pixel,
        off_share=off_share(pointing["EXPOSURE"], pointing["OFFEXPO"])[integration],
    )


def write_products(execution: Execution, sky: SkyMap, parameters: Parameters) -> None:
    """Write what the map's sums amount to."""
    cube, weight = sky.sums.cube(), sky.sums.weight_map()
    center, half_width = sky.header["VLSR"], parameters.line_half_width_kms
    window = ~line_free(velocity_kms(sky.axis, len(cube)), center_kms=center, half_width_kms=half_width)
    if not window.any():
        raise NoLineError(center, half_width)
    moment0 = cube[window].sum(axis=0) * abs(sky.axis["CDELT1"]) / 1000
    cards, stamp = map_cards(sky), execution.stamp(parameters)
    spectral = {f"{key[:-1]}3": value for key, value in sky.axis.items()}

    def write(name: str, data: Floats, extra: dict[str, Any], *tables: Any) -> None:
        fits.write(execution.product("science", name), fits.primary({**cards, **extra}, stamp, data), *tables)

    flags = {key: np.concatenate([rows[key] for rows in sky.flags.values()]) for key in FLAGS}
    write("cube.fits", cube, {**spectral, "SPECSYS": "LSRK", "BUNIT": "K"}, fits.table("FLAGS", flags, {"RMS": "K"}))
    write("moment0.fits", moment0, {"BUNIT": "K.km/s", "LINEHALF": half_width})
    write("weight.fits", weight, {"BUNIT": "K-2"})
    title = f"{sky.header['OBJECT']}, {len(sky.flags)} scans: moment 0"
    write_preview(execution.product("plots", "moment0.png"), moment0, title=title, legend="K km/s")
    execution.write_json("metrics.json", metrics(flags, moment0, weight))


def map_cards(sky: SkyMap) -> dict[str, Any]:
    """Return what the headers of all maps have in common."""
    kernel = sky.sums.kernel_fwhm
    beam = float(np.hypot(sky.header["BMAJ"], kernel / 3600))
    return {
        **{key: sky.header[key] for key in OBSERVATION},
        "DATE-BEG": min(sky.begins),
        "DATE-END": max(sky.ends),
        "NSCANS": (len(sky.flags), "their names are in FLAGS of the cube"),
        "KERNFWHM": (kernel, "[arcsec] Gaussian convolution kernel"),
        "BMAJ": beam,
        "BMIN": beam,
        "BPA": 0.0,
        **sky.sums.grid.cards(),
    }


def metrics(flags: Columns, moment0: Floats, weight: Floats) -> dict[str, float]:
    """Return figures that tell a good map from a bad one at a glance."""
    return {
        "scans": len(set(flags["SCAN"])),
        "flagged_pixels": int(np.count_nonzero(flags["FLAGGED"])),
        "median_pixel_rms_k": float(np.nanmedian(flags["RMS"])),
        "moment0_peak_k_kms": float(np.nanmax(moment0)),
        "median_map_rms_k": float(np.nanmedian(weight**-0.5)),
        "covered_fraction": float(np.mean(np.isfinite(weight))),
    }
