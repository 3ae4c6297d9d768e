"""From calibrated timestreams to a map: binning with inverse-variance weights, by halves of the detectors."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ccat_pipelines.arrays import Booleans, Floats
from ccat_pipelines.primecam.timestreams import CommonMode, common_mode, without_mean
from ccat_pipelines.sky import MapGrid

Integers = NDArray[np.integer]

MIN_HITS = 10  # samples below which a map pixel is blank
HALVES = 2


@dataclass(frozen=True, kw_only=True)
class Timestream:
    """Calibrated signals of one scan, Jy, (detector, sample), with the map pixel that each sample falls into."""

    signal: Floats
    pixel: Integers
    half: Integers
    """Which half of the detectors, 0 or 1, each is of."""


def pixels(grid: MapGrid, east: Floats, north: Floats) -> Integers:
    """Return the number of the map pixel, row by row, that offsets fall into; `grid.size`² is off the map."""
    column = np.rint((grid.size - 1) / 2 - east / grid.pixel).astype(np.int32)
    row = np.rint((grid.size - 1) / 2 + north / grid.pixel).astype(np.int32)
    inside = (column >= 0) & (column < grid.size) & (row >= 0) & (row < grid.size)
    return np.where(inside, row * grid.size + column, np.int32(grid.size**2))


@dataclass(kw_only=True)
class MapSums:
    """Sums over samples, by half of the detectors, from which all maps follow. One cell more takes what is off."""

    grid: MapGrid
    _signal: Floats = field(init=False)
    _weight: Floats = field(init=False)
    _hits: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._signal, self._weight, self._hits = np.zeros((3, HALVES, self.grid.size**2 + 1))

    def add(self, signal: Floats, noise: Floats, where: Timestream) -> None:
        """Add signals, Jy, of a timestream's detectors with the noise of a sample of each."""
        for half in range(HALVES):
            chosen = where.half == half
            cells, weight = where.pixel[chosen], noise[chosen, None] ** -2.0
            for sums, values in (
                (self._signal, signal[chosen] * weight),
                (self._weight, np.broadcast_to(weight, cells.shape)),
                (self._hits, None),
            ):
                flat = None if values is None else values.ravel()
                sums[half] += np.bincount(cells.ravel(), flat, minlength=sums.shape[1])

    @property
    def covered(self) -> Booleans:
        """Which map pixels, (row, column), have enough samples."""
        return self.hits() >= MIN_HITS

    def hits(self) -> Floats:
        """Return the number of samples by map pixel."""
        return self._square(self._hits.sum(axis=0))

    def weight(self) -> Floats:
        """Return 1/σ² of the mean, Jy⁻², as it follows from the samples' noise; NaN where not covered."""
        return np.where(self.covered, self._square(self._weight.sum(axis=0)), np.nan)

    def mean(self) -> Floats:
        """Return the weighted mean signal, Jy, NaN where not covered."""
        return self._square(self._signal.sum(axis=0)) / self.weight()

    def null(self) -> tuple[Floats, Floats]:
        """Return half the difference of the two halves' means, in which no sky is left, and its weight 1/σ²."""
        blank = np.where(self.covered & (self._square(self._weight.min(axis=0)) > 0), 1.0, np.nan)
        first, second = (blank * self._square(half) for half in self._weight)
        difference = self._square(self._signal[0]) / first - self._square(self._signal[1]) / second
        return difference / 2, 4 / (1 / first + 1 / second)

    def _square(self, cells: Floats) -> Floats:
        return cells[:-1].reshape(self.grid.size, self.grid.size)


@dataclass(frozen=True, kw_only=True)
class SkyMap:
    """The sky, Jy per beam, with all that is needed to judge it; maps have the axes (row, column)."""

    sky: Floats
    weight: Floats
    hits: Floats
    null: Floats
    null_weight: Floats
    atmospheres: list[CommonMode]
    """What was taken off each scan."""


def make_map(grid: MapGrid, streams: list[Timestream], *, iterations: int, threshold: float) -> SkyMap:
    """Separate sky and atmosphere by turns.

    A source is in the common mode by its share of the detectors, which would make it fainter, and holes around it.
    So what stands out of the noise by `threshold` standard deviations is taken off before the next common mode.
    """
    model = np.zeros(grid.size**2 + 1)
    for _ in range(iterations):
        sums, atmospheres = MapSums(grid=grid), []
        for stream in streams:
            known = model[stream.pixel]
            rest = without_mean(stream.signal - known)
            atmospheres.append(common_mode(rest))
            rest = atmospheres[-1].taken_from(rest)
            sums.add(rest + known, atmospheres[-1].noise, stream)
        sky, weight = sums.mean(), sums.weight()
        with np.errstate(invalid="ignore"):  # blank pixels stand out of nothing
            model[:-1] = np.where(sky * np.sqrt(weight) > threshold, sky, 0).ravel()
    null, null_weight = sums.null()
    return SkyMap(sky=sky, weight=weight, hits=sums.hits(), null=null, null_weight=null_weight, atmospheres=atmospheres)


def pull(data: Floats, weight: Floats) -> float:
    """Return the rms of a map over its predicted noise: 1 if there is nothing but that noise."""
    return float(np.sqrt(np.nanmean(data**2 * weight)))
