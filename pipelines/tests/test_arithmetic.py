"""The numerical functions by themselves."""

import numpy as np
import pytest
from astropy.wcs import WCS

from ccat_pipelines.chai import spectra
from ccat_pipelines.chai.maps import MapAccumulator, Samples
from ccat_pipelines.sky import MapGrid, deproject, project


def test_the_y_factor_gives_back_receiver_temperature_and_gain() -> None:
    hot, cold = (np.array([50.0 * (120 + load)]) for load in (293, 77))
    assert spectra.receiver_temperature(hot, cold, t_hot=293, t_cold=77) == pytest.approx(120)
    assert spectra.counts_per_kelvin(hot, cold, t_hot=293, t_cold=77) == pytest.approx(50)


def test_an_atmosphere_at_thirty_degrees_is_twice_as_deep() -> None:
    assert spectra.transmission(0.4, np.array([30.0])) == pytest.approx(np.exp(-0.8))


def test_the_standing_wave_is_found_beside_noise_and_a_slope() -> None:
    rng = np.random.default_rng(1)
    free = np.ones(1024, dtype=bool)
    free[412:612] = False
    wave = rng.normal(0, 1, (50, 4)) @ spectra.waves(1024, cycles=9.37, pairs=2).T
    noisy = wave + np.linspace(0, 5, 1024) + rng.normal(0, 0.5, (50, 1024))
    assert spectra.find_wave(noisy, free, order=3, pairs=2) == pytest.approx(9.37, abs=0.011)


def test_a_baseline_leaves_the_line_and_takes_the_rest() -> None:
    free = np.ones(1024, dtype=bool)
    free[412:612] = False
    line = np.where(free, 0.0, 1.0)
    flat = spectra.subtract_baseline((line + np.linspace(0, 5, 1024))[None], spectra.polynomials(1024, order=3), free)
    assert flat == pytest.approx(line[None], abs=1e-9)


def test_noise_is_corrected_for_the_fitted_terms() -> None:
    rng = np.random.default_rng(2)
    free = np.ones(64, dtype=bool)
    basis = spectra.polynomials(64, order=7)
    flat = spectra.subtract_baseline(rng.normal(0, 2, (4000, 64)), basis, free)
    assert spectra.noise(flat, free, fitted_terms=8).mean() == pytest.approx(2, rel=0.01)


def test_the_projection_agrees_with_astropy_and_with_its_inverse() -> None:
    grid = MapGrid(center=(187.5, -23.0), pixel=6.5, size=60)
    east, north = grid.offsets()
    ra, dec = deproject(east, north, center=grid.center)
    theirs = WCS(grid.cards()).pixel_to_world_values(*np.meshgrid(np.arange(60), np.arange(60)))
    assert np.abs(np.stack([ra, dec]) - np.stack(theirs)).max() * 3600 < 1e-6
    assert np.stack(project(ra, dec, center=grid.center)) == pytest.approx(np.stack([east, north]), abs=1e-6)


def test_the_weight_map_predicts_the_noise_of_samples_that_share_an_off() -> None:
    rng = np.random.default_rng(3)
    grid = MapGrid(center=(0.0, 0.0), pixel=6.5, size=9)
    east, north = (offsets.ravel() for offsets in np.meshgrid(np.arange(-40, 41, 5.0), np.arange(-40, 41, 5.0)))
    off, share = np.arange(east.size) // 20, np.full(east.size, 0.2)
    own = rng.normal(0, np.sqrt(0.8), (east.size, 20_000))
    shared = rng.normal(0, np.sqrt(0.2), (off.max() + 1, 20_000))[off]
    sums = MapAccumulator(grid=grid, kernel_fwhm=13, n_channels=20_000)
    weight = np.ones(east.size)
    sums.add(Samples(east=east, north=north, spectra=own + shared, weight=weight, off=off, off_share=share))
    assert sums.cube().var(axis=0) * sums.weight_map() == pytest.approx(np.ones((9, 9)), rel=0.05)


def test_map_pixels_without_samples_are_blank() -> None:
    grid = MapGrid(center=(0.0, 0.0), pixel=6.5, size=9)
    sums = MapAccumulator(grid=grid, kernel_fwhm=13, n_channels=2)
    one = np.ones(1)
    at = {"east": -26 * one, "north": 0 * one}
    sums.add(Samples(**at, spectra=np.ones((1, 2)), weight=one, off=np.zeros(1, dtype=int), off_share=0 * one))
    assert np.argwhere(np.isfinite(sums.weight_map())).tolist() == [[4, 8]]
