"""Step `check`: map and sources of simulated scans against the truth that these were made of."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ccat_pipelines import fits
from ccat_pipelines.arrays import Floats
from ccat_pipelines.checks import Check, conclude, truth
from ccat_pipelines.contract import Execution
from ccat_pipelines.primecam.maps import pull
from ccat_pipelines.primecam.simulate import Source
from ccat_pipelines.sky import project

AFTER_FIT = "depend on `primecam map` and `primecam fit`, group all alike, and name the input `statistics`"
WANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "map.fits": {
        "PRIMARY": ("CRVAL1", "CRVAL2", "BMAJ"),
        "DETECTORS": ("DETECTOR", "SCANS", "RESPONSE", "NEFD"),
        "SCANS": ("SCAN",),
    },
    "null.fits": {"PRIMARY": (), "WEIGHT": ()},
    "empty.fits": {"PRIMARY": (), "WEIGHT": ()},
    "sources.fits": {"SOURCES": ("RA", "DEC", "FLUX", "EFLUX")},
}
BRIGHT_JY, FAINT_JY = 1.0, 0.2
TINY_JY = 1e-3  # makes a source that was missed stand far out of its band
NEAR = 0.5  # beams from a true source, within which a fitted one is taken for it


@dataclass(frozen=True)
class Parameters:
    """What the configuration may say.

    Attributes:
        truth_file: path of the `truth.json` that `primecam make-raw` wrote.
        fail_out_of_band: whether a value out of its band makes the step fail, after it wrote its report.
    """

    truth_file: str
    fail_out_of_band: bool = False


@dataclass(frozen=True, kw_only=True)
class Products:
    """What `map` and `fit` made, as far as it is checked."""

    beam_arcsec: float
    scans: set[str]
    detectors: dict[str, Any]
    east: Floats  # arcsec, of the fitted sources
    north: Floats
    flux: Floats  # Jy
    flux_error: Floats
    null_pull: float
    empty_pull: float


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the scans on the map were made of."""

    nefd: float  # Jy√s
    responsivity: dict[str, float]  # Hz/Jy, by detector
    broken: set[str]
    sources: list[Source]


def run(execution: Execution) -> None:
    """Read products and truth; write `qa/metrics.json` and `qa/report.json`."""
    parameters = execution.parameters(Parameters)
    products = read_products(execution)
    checks = compare(products, read_truth(parameters.truth_file, products.scans))
    conclude(execution, checks, scans=products.scans, fail_out_of_band=parameters.fail_out_of_band)


def read_products(execution: Execution) -> Products:
    """Read the products, which are found by their names."""
    units = {
        name: fits.read(execution.only("upstream", name, remedy=AFTER_FIT), wants=wants)
        for name, wants in WANTS.items()
    }
    header = units["map.fits"]["PRIMARY"].header
    sources = fits.columns(units["sources.fits"]["SOURCES"])
    east, north = project(sources["RA"], sources["DEC"], center=(header["CRVAL1"], header["CRVAL2"]))
    pulls = {
        name: pull(fits.native(units[f"{name}.fits"]["PRIMARY"]), fits.native(units[f"{name}.fits"]["WEIGHT"]))
        for name in ("null", "empty")
    }
    return Products(
        beam_arcsec=header["BMAJ"] * 3600,
        scans=set(fits.columns(units["map.fits"]["SCANS"])["SCAN"].tolist()),
        detectors=fits.columns(units["map.fits"]["DETECTORS"]),
        east=east,
        north=north,
        flux=sources["FLUX"],
        flux_error=sources["EFLUX"],
        null_pull=pulls["null"],
        empty_pull=pulls["empty"],
    )


def read_truth(path: str, scans: set[str]) -> Truth:
    """Return the truth about these scans, which are all of one night."""
    with truth(path, maker="primecam make-raw") as known:
        (night,) = {known["scans"][scan] for scan in scans}
        return Truth(
            nefd=known["nefd_jy_sqrt_s"],
            responsivity=known["responsivity_hz_per_jy"][night],
            broken=set(known["broken_detectors"]),
            sources=[Source(**source) for source in known["sources"]],
        )


def compare(products: Products, known: Truth) -> list[Check]:
    """Return every figure with its band."""
    return [*detector_checks(products.detectors, known), *source_checks(products, known), *pull_checks(products)]


def detector_checks(detectors: dict[str, Any], known: Truth) -> list[Check]:
    """Compare noise and responsivities of the detectors on the map, and which ones are on it."""
    on_map = detectors["SCANS"] > 0
    names = detectors["DETECTOR"][on_map].tolist()
    dropped = set(detectors["DETECTOR"][~on_map].tolist())
    ratio = detectors["RESPONSE"][on_map] / np.array([known.responsivity[name] for name in names])
    return [
        Check("nefd_ratio", float(np.median(detectors["NEFD"][on_map]) / known.nefd), 0.95, 1.05),
        Check("responsivity_ratio", float(np.median(ratio)), 0.99, 1.01),
        Check("responsivity_scatter", float(np.std(ratio)), 0, 0.05),
        Check("broken_detectors_dropped", len(dropped & known.broken), len(known.broken), len(known.broken)),
        Check("good_detectors_dropped", len(dropped - known.broken), 0, 0),
    ]


def source_checks(products: Products, known: Truth) -> list[Check]:
    """Compare the fitted sources with the true ones."""
    matches = [(source, match(products, source)) for source in known.sources]
    (bright,) = (flux for source, (flux, _) in matches if source.flux_jy == BRIGHT_JY)
    faint = [abs(flux - FAINT_JY) / error for source, (flux, error) in matches if source.flux_jy == FAINT_JY]
    found = sum(flux > 0 for _, (flux, _) in matches)
    return [
        Check("bright_flux_ratio", bright / BRIGHT_JY, 0.94, 1.05),
        Check("faint_flux_pull", max(faint), 0, 3.5),
        Check("sources_found", found, len(known.sources), len(known.sources)),
        Check("sources_too_many", products.flux.size - found, 0, 0),
    ]


def match(products: Products, source: Source) -> tuple[float, float]:
    """Return flux and error, Jy, of what was fitted at a source; 0 and a tiny error if nothing was."""
    distance = np.hypot(products.east - source.east_arcsec, products.north - source.north_arcsec)
    if not distance.size or distance.min() > NEAR * products.beam_arcsec:
        return 0.0, TINY_JY
    nearest = np.argmin(distance)
    return float(products.flux[nearest]), float(products.flux_error[nearest])


def pull_checks(products: Products) -> list[Check]:
    """Compare what is left on the maps with their predicted noise; much less would be as wrong as more."""
    return [Check("null_pull", products.null_pull, 0.92, 1.08), Check("empty_pull", products.empty_pull, 0.92, 1.08)]
