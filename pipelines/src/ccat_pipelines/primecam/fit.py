"""Step `fit`: point sources of a map, and whether what is left beside them is the noise that the weights predict."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from ccat_pipelines import fits
from ccat_pipelines.arrays import Floats
from ccat_pipelines.contract import Card, Execution
from ccat_pipelines.parameters import Range
from ccat_pipelines.preview import write_preview
from ccat_pipelines.primecam.maps import pull
from ccat_pipelines.primecam.sources import Finding, Template, find_sources
from ccat_pipelines.sky import MapGrid, deproject

AFTER_MAP = "make the step depend on one `primecam map` step and group both alike"
KEPT = ("TELESCOP", "INSTRUME", "MODULE", "OBJECT", "NIGHT", "DATE-BEG", "DATE-END", "BMAJ")
WANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "map.fits": {"PRIMARY": (*KEPT, "CRVAL1", "CRVAL2", "CDELT2"), "WEIGHT": ()},
    "null.fits": {"PRIMARY": (), "WEIGHT": ()},
}
UNITS = {"RA": "deg", "DEC": "deg", "EPOS": "arcsec", "FLUX": "Jy", "EFLUX": "Jy"}


@dataclass(frozen=True)
class Parameters:
    """What the configuration may say.

    Attributes:
        detection_threshold: standard deviations above which something is a source.
        pixel_window: whether the template is averaged over the map's pixels, as the map is; without it fluxes are low.
    """

    detection_threshold: Annotated[float, Range(3, 1000)] = 6.0
    pixel_window: bool = True


def run(execution: Execution) -> None:
    """Read map and null map; write `statistics/sources.fits`, the map without sources, its preview and metrics."""
    parameters = execution.parameters(Parameters)
    units, null_units = (
        fits.read(execution.only("upstream", name, remedy=AFTER_MAP), wants=wants) for name, wants in WANTS.items()
    )
    header, weight = units["PRIMARY"].header, fits.native(units["WEIGHT"])
    grid = MapGrid.of(header)
    template = Template(fwhm=header["BMAJ"] * 3600, pixel=grid.pixel, window=parameters.pixel_window)
    threshold = parameters.detection_threshold
    found = find_sources(fits.native(units["PRIMARY"]), weight, grid, template=template, threshold=threshold)
    stamp = execution.stamp(parameters)
    cards = {key: header[key] for key in KEPT}
    table = source_table(found, grid)
    fits.write(execution.product("statistics", "sources.fits"), fits.primary(cards, stamp), table)
    write_rest(execution, found, weight, stamp=stamp, cards={**cards, **grid.cards(), "BUNIT": "Jy/beam"})
    pulls = {
        "null_pull": pull(fits.native(null_units["PRIMARY"]), fits.native(null_units["WEIGHT"])),
        "empty_pull": pull(found.rest, weight),
    }
    execution.write_json("metrics.json", {**metrics(found), **pulls})


def source_table(found: Finding, grid: MapGrid) -> Any:
    """Return the sources, brightest first."""
    ranked = sorted(found.sources, key=lambda source: -source.flux)
    east, north = (np.array([getattr(source, axis) for source in ranked], dtype=float) for axis in ("east", "north"))
    ra, dec = deproject(east, north, center=grid.center)
    errors = {"EPOS": "position_error", "FLUX": "flux", "EFLUX": "flux_error"}
    fitted = {key: np.array([getattr(source, name) for source in ranked], dtype=float) for key, name in errors.items()}
    return fits.table("SOURCES", {"RA": ra, "DEC": dec, **fitted}, UNITS)


def write_rest(
    execution: Execution, found: Finding, weight: Floats, *, stamp: list[Card], cards: dict[str, Any]
) -> None:
    """Write what is left of the map, for programs and for people."""
    rest = fits.primary(cards, stamp, found.rest)
    fits.write(execution.product("science", "empty.fits"), rest, fits.image("WEIGHT", weight, {"BUNIT": "Jy-2"}))
    title = f"{cards['OBJECT']} without {len(found.sources)} sources"
    write_preview(execution.product("plots", "empty.png"), found.rest, title=title, legend="Jy/beam")


def metrics(found: Finding) -> dict[str, float]:
    """Return how many sources there are, and the brightest."""
    brightest = max((source.flux for source in found.sources), default=0.0)
    return {"sources": len(found.sources), "brightest_jy": brightest}
