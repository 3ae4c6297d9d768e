"""From spectra at positions to a map: Gaussian convolution, accumulators. Angles in arcsec."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ccat_pipelines.arrays import Floats
from ccat_pipelines.sky import MapGrid

KERNEL_REACH = 3.0  # standard deviations: farther samples count for less than 1 %
MIN_COVERAGE = 1.0  # samples, counted by their kernel, below which a map pixel is blank


def gaussian_kernel(grid: MapGrid, east: Floats, north: Floats, *, fwhm: float) -> sparse.csr_array:
    """Return the kernel's value, 1 at its center, for every (map pixel, sample) near each other."""
    sigma = fwhm / np.sqrt(8 * np.log(2))
    reach = int(np.ceil(KERNEL_REACH * sigma / grid.pixel))
    column = -east / grid.pixel + (grid.size - 1) / 2
    row = north / grid.pixel + (grid.size - 1) / 2
    window = np.arange(-reach, reach + 1)
    columns = np.rint(column)[:, None, None] + window
    rows = np.rint(row)[:, None, None] + window[:, None]
    square = ((columns - column[:, None, None]) ** 2 + (rows - row[:, None, None]) ** 2) * (grid.pixel / sigma) ** 2
    inside = (columns >= 0) & (columns < grid.size) & (rows >= 0) & (rows < grid.size)
    used = inside & (square < KERNEL_REACH**2)
    cell = (rows * grid.size + columns)[used].astype(np.intp)
    sample = np.broadcast_to(np.arange(east.size)[:, None, None], used.shape)[used]
    values = np.exp(-square[used] / 2).astype(np.float32)
    return sparse.csr_array((values, (cell, sample)), shape=(grid.size**2, east.size))


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Spectra (sample, channel) at offsets from the map's center, with their weights 1/σ².

    Samples with the same number in `off` share their OFF, and with it the part `off_share` of their variance.
    """

    east: Floats
    north: Floats
    spectra: Floats
    weight: Floats
    off: NDArray[np.integer]
    off_share: Floats


@dataclass(kw_only=True)
class MapAccumulator:
    """Sums over samples from which cube and weight map follow; scans can be added one by one."""

    grid: MapGrid
    kernel_fwhm: float
    n_channels: int
    _signal: Floats = field(init=False)
    _weight: Floats = field(init=False)
    _variance: Floats = field(init=False)
    _coverage: Floats = field(init=False)

    def __post_init__(self) -> None:
        cells = self.grid.size**2
        self._signal = np.zeros((cells, self.n_channels), dtype=np.float32)
        self._weight, self._variance, self._coverage = np.zeros((3, cells))

    def add(self, samples: Samples) -> None:
        """Add samples that share no OFF with those added before."""
        kernel = gaussian_kernel(self.grid, samples.east, samples.north, fwhm=self.kernel_fwhm)
        weighted = kernel.multiply(samples.weight.astype(np.float32)).tocsr()
        self._signal += weighted @ samples.spectra
        self._weight += weighted.sum(axis=1)
        self._coverage += kernel.sum(axis=1)
        self._variance += _variance(weighted, samples)

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Which map pixels, in one row, have enough samples near them."""
        return self._coverage >= MIN_COVERAGE

    def cube(self) -> Floats:
        """Return the map, (channel, row, column), NaN where the sky was not covered."""
        mean = np.divide(self._signal, self._where_covered(self._weight)[:, None], dtype=np.float32)
        return mean.T.reshape(self.n_channels, self.grid.size, self.grid.size)

    def weight_map(self) -> Floats:
        """Return 1/σ² of a channel of the cube as it follows from the samples' noise, (row, column)."""
        return (self._weight**2 / self._where_covered(self._variance)).reshape(self.grid.size, self.grid.size)

    def _where_covered(self, values: Floats) -> Floats:
        return np.where(self.covered, values, np.nan)


def _variance(weighted: sparse.csr_array, samples: Samples) -> Floats:
    """Return the variance of every weighted sum: the ONs' noise adds in squares, that of a shared OFF adds up first."""
    variance = 1 / samples.weight
    own = weighted.power(2) @ ((1 - samples.off_share) * variance)
    n_offs = int(samples.off.max(initial=0)) + 1
    shared = np.sqrt(samples.off_share * variance)
    by_off = sparse.csr_array((shared, (np.arange(shared.size), samples.off)), shape=(shared.size, n_offs))
    return np.asarray(own + (weighted @ by_off).power(2).sum(axis=1))
