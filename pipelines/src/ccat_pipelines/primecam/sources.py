"""Point sources on a map: found by a matched filter, fitted one by one, brightest first. Angles in arcsec."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import convolve
from scipy.optimize import least_squares
from scipy.special import erf

from ccat_pipelines.arrays import Floats
from ccat_pipelines.sky import MapGrid

REACH = 1.5  # radius of what is fitted, in FWHM
MOST = 1000  # sources; a map with more of them is not one of point sources


@dataclass(frozen=True, kw_only=True)
class PointSource:
    """A source with the statistical errors of the fit."""

    east: float
    north: float
    position_error: float
    flux: float
    flux_error: float


@dataclass(frozen=True, kw_only=True)
class Template:
    """How a point source of 1 Jy looks on the map: the beam, averaged over the area of each map pixel or not."""

    fwhm: float
    pixel: float
    window: bool = True

    def at(self, east: Floats, north: Floats) -> Floats:
        """Return the map value at these offsets of pixel centers from the source."""
        return self._along(east) * self._along(north)

    def _along(self, offset: Floats) -> Floats:
        if not self.window:
            return np.exp(-4 * np.log(2) * (offset / self.fwhm) ** 2)
        scale = 2 * np.sqrt(np.log(2)) / self.fwhm
        low, high = scale * (offset - self.pixel / 2), scale * (offset + self.pixel / 2)
        return np.sqrt(np.pi) / 2 * (erf(high) - erf(low)) / (high - low)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is on a map: sources, and what is left without them."""

    sources: list[PointSource]
    rest: Floats


def find_sources(sky: Floats, weight: Floats, grid: MapGrid, *, template: Template, threshold: float) -> Finding:
    """Find and fit what stands out by `threshold` standard deviations, and take it off, until nothing does.

    Args:
        sky: the map, Jy per beam, NaN where not covered.
        weight: its 1/σ², Jy⁻².
        grid: of the map.
        template: of a point source.
        threshold: standard deviations of a point source's flux.
    """
    east, north = grid.offsets()
    rest = sky.astype(np.float64)
    sources: list[PointSource] = []
    while len(sources) < MOST:
        significance = matched_filter(rest, weight, template)
        peak = np.unravel_index(np.argmax(significance), sky.shape)
        if significance[peak] < threshold:
            break
        source = fit_source(rest, weight, grid, template=template, start=(east[peak], north[peak]))
        sources.append(source)
        rest = rest - source.flux * template.at(east - source.east, north - source.north)
    return Finding(sources=sources, rest=rest)


def matched_filter(sky: Floats, weight: Floats, template: Template) -> Floats:
    """Return flux over its error of a point source in each map pixel; 0 where the map is blank."""
    used = np.isfinite(sky) & np.isfinite(weight)
    reach = int(np.ceil(REACH * template.fwhm / template.pixel)) * template.pixel
    axis = np.arange(-reach, reach + template.pixel / 2, template.pixel)
    kernel = template.at(*np.meshgrid(axis, axis))
    seen = convolve(np.where(used, sky * weight, 0), kernel, mode="constant")
    information = convolve(np.where(used, weight, 0), kernel**2, mode="constant")
    used &= information > 0
    return np.where(used, seen / np.sqrt(np.where(used, information, 1)), 0)


def fit_source(
    sky: Floats, weight: Floats, grid: MapGrid, *, template: Template, start: tuple[float, float]
) -> PointSource:
    """Fit flux and position, which stays within a pixel and a half of where it starts."""
    east, north = grid.offsets()
    near = np.hypot(east - start[0], north - start[1]) < REACH * template.fwhm
    near &= np.isfinite(sky) & np.isfinite(weight)
    x, y, values, root = east[near], north[near], sky[near], np.sqrt(weight[near])

    def residual(shape: Floats) -> Floats:
        flux, dx, dy = shape
        return (flux * template.at(x - start[0] - dx, y - start[1] - dy) - values) * root

    reach, first = 1.5 * grid.pixel, float(values[np.argmin(np.hypot(x - start[0], y - start[1]))])
    bounds = ([-np.inf, -reach, -reach], [np.inf, reach, reach])
    fitted = least_squares(residual, [first, 0, 0], bounds=bounds, x_scale=[abs(first) or 1, grid.pixel, grid.pixel])
    errors = np.sqrt(np.diag(np.linalg.pinv(fitted.jac.T @ fitted.jac)))
    flux, dx, dy = fitted.x.tolist()
    return PointSource(
        east=float(start[0]) + dx,
        north=float(start[1]) + dy,
        position_error=float(np.hypot(errors[1], errors[2]) / np.sqrt(2)),
        flux=flux,
        flux_error=float(errors[0]),
    )
