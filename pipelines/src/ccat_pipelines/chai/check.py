"""Step `check`: a map of simulated scans against the truth that they were made of."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import curve_fit

from ccat_pipelines import fits
from ccat_pipelines.arrays import Floats
from ccat_pipelines.chai.scan import spectral_axis, velocity_kms
from ccat_pipelines.chai.simulate import Source
from ccat_pipelines.chai.spectra import line_free
from ccat_pipelines.checks import Check, conclude, truth
from ccat_pipelines.contract import Execution
from ccat_pipelines.errors import BadDataError
from ccat_pipelines.sky import MapGrid

AFTER_GRID = "make the step depend on one `chai grid` step and group both alike"
WANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "cube.fits": {"PRIMARY": ("KERNFWHM", "VLSR", "CDELT3"), "FLAGS": ("SCAN", "PIXEL", "FLAGGED")},
    "moment0.fits": {"PRIMARY": ("LINEHALF",)},
    "weight.fits": {"PRIMARY": ()},
}
GAUSSIAN_AREA = float(np.sqrt(np.pi / (4 * np.log(2))))  # of a Gaussian with unit peak and FWHM
APERTURE = 1.5  # radius in which flux is summed, in FWHM of the source on the map


@dataclass(frozen=True)
class Parameters:
    """What the configuration may say.

    Attributes:
        truth_file: path of the `truth.json` that `chai make-raw` wrote.
        fail_out_of_band: whether a value out of its band makes the step fail, after it wrote its report.
    """

    truth_file: str
    fail_out_of_band: bool = False


class NoSourceError(BadDataError):
    """The map shows nothing that a Gaussian can be fitted to."""

    def __init__(self, why: str) -> None:
        """Say what the fit ran into."""
        super().__init__(f"moment0.fits: no source to fit ({why}): look at the map and its scans")


@dataclass(frozen=True, kw_only=True)
class Products:
    """What `grid` made, as far as it is checked."""

    grid: MapGrid
    kernel_fwhm: float
    cube: Floats
    moment0: Floats
    weight: Floats
    line_free: Any
    flagged: set[tuple[str, int]]
    scans: set[str]


def run(execution: Execution) -> None:
    """Read the map and the truth; write `qa/metrics.json` and `qa/report.json`."""
    parameters = execution.parameters(Parameters)
    products = read_products(execution)
    source, broken = read_truth(parameters.truth_file, products.scans)
    checks = compare(products, source, broken)
    conclude(execution, checks, scans=products.scans, fail_out_of_band=parameters.fail_out_of_band)


def read_products(execution: Execution) -> Products:
    """Read the map's products, which are found by their names."""
    cube_units, moment0_units, weight_units = (
        fits.read(execution.only("upstream", name, remedy=AFTER_GRID), wants=wants) for name, wants in WANTS.items()
    )
    header, cube = cube_units["PRIMARY"].header, fits.native(cube_units["PRIMARY"])
    flags = fits.columns(cube_units["FLAGS"])
    pixels = zip(flags["SCAN"].tolist(), flags["PIXEL"].tolist(), flags["FLAGGED"].tolist(), strict=True)
    return Products(
        grid=MapGrid.of(header),
        kernel_fwhm=header["KERNFWHM"],
        cube=cube,
        moment0=fits.native(moment0_units["PRIMARY"]),
        weight=fits.native(weight_units["PRIMARY"]),
        line_free=line_free(
            velocity_kms(spectral_axis(header, 3), len(cube)),
            center_kms=header["VLSR"],
            half_width_kms=moment0_units["PRIMARY"].header["LINEHALF"],
        ),
        flagged={(scan, pixel) for scan, pixel, is_flagged in pixels if is_flagged},
        scans=set(flags["SCAN"].tolist()),
    )


def read_truth(path: str, scans: set[str]) -> tuple[Source, set[tuple[str, int]]]:
    """Return the true source, and which pixels are broken in which of these scans."""
    with truth(path, maker="chai make-raw") as known:
        source, broken = Source(**known["source"]), known["broken_pixels"]
        return source, {(scan, pixel) for scan in scans for pixel in broken[scan]}


def compare(products: Products, source: Source, broken: set[tuple[str, int]]) -> list[Check]:
    """Return every figure with its band."""
    east, north = products.grid.offsets()
    fwhm = float(np.hypot(source.fwhm_arcsec, products.kernel_fwhm))
    peak = source.peak_k * source.line_fwhm_kms * GAUSSIAN_AREA * (source.fwhm_arcsec / fwhm) ** 2
    square = (east - source.east_arcsec) ** 2 + (north - source.north_arcsec) ** 2
    expected = np.where(np.isfinite(products.moment0), peak * gaussian(square, fwhm), np.nan)
    aperture = square < (APERTURE * fwhm) ** 2
    flux_ratio = np.nansum(products.moment0[aperture]) / np.nansum(expected[aperture])
    fitted_east, fitted_north, fitted_fwhm = fit_source(products)
    distance = np.hypot(fitted_east - source.east_arcsec, fitted_north - source.north_arcsec)
    found, wrong = products.flagged & broken, products.flagged - broken
    return [
        Check("peak_ratio", float(np.nanmax(products.moment0) / np.nanmax(expected)), 0.96, 1.05),
        Check("flux_ratio", float(flux_ratio), 0.93, 1.07),
        Check("position_error_arcsec", float(distance), 0, 1.5),
        Check("width_arcsec", fitted_fwhm, 0.97 * fwhm, 1.03 * fwhm),
        Check("rms_ratio", rms_ratio(products), 0.96, 1.04),
        Check("broken_pixels_found", len(found), len(broken), len(broken)),
        Check("good_pixels_flagged", len(wrong), 0, 0),
    ]


def gaussian(square: Floats, fwhm: float) -> Floats:
    """Return a Gaussian with unit peak at these squared distances."""
    return np.exp(-4 * np.log(2) * square / fwhm**2)


def fit_source(products: Products) -> tuple[float, float, float]:
    """Return offsets east and north and FWHM, arcsec, of a circular Gaussian fitted around the map's peak."""
    east, north = products.grid.offsets()
    peak = np.nanargmax(products.moment0)
    start = (np.nanmax(products.moment0), east.flat[peak], north.flat[peak], 3 * products.kernel_fwhm)
    near = np.hypot(east - start[1], north - start[2]) < APERTURE * start[3]
    near &= np.isfinite(products.moment0)

    def model(where: Floats, *shape: float) -> Floats:
        height, x, y, fwhm = shape
        return height * gaussian((where[0] - x) ** 2 + (where[1] - y) ** 2, fwhm)

    try:
        _, x, y, fwhm = curve_fit(model, (east[near], north[near]), products.moment0[near], start)[0].tolist()
    except (RuntimeError, TypeError) as error:  # no convergence; fewer pixels than parameters
        raise NoSourceError(str(error)) from error
    return x, y, abs(fwhm)


def rms_ratio(products: Products) -> float:
    """Return the cube's noise off the line over that predicted by the weight map, root mean square over the map."""
    pull = products.cube[products.line_free] ** 2 * products.weight
    return float(np.sqrt(np.nanmean(pull)))
