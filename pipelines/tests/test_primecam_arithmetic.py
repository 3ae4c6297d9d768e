"""The numerical functions of the camera by themselves."""

import numpy as np
import pytest

from ccat_pipelines.primecam.maps import MapSums, Timestream, make_map, pixels, pull
from ccat_pipelines.primecam.resonators import fit_circles, fit_resonators, frequency_shift, without_delay
from ccat_pipelines.primecam.sources import Template, find_sources, matched_filter
from ccat_pipelines.primecam.timestreams import amplitude, beam, common_mode, without_mean
from ccat_pipelines.sky import MapGrid

RESONANCE, QUALITY, DELAY = np.array([500e6, 600e6]), np.array([15e3, 25e3]), 3e-8


def transmission(frequency: np.ndarray, resonance: np.ndarray) -> np.ndarray:
    """Return what comes out of the cables, (detector, step)."""
    x = frequency / resonance - 1
    s21 = 1 - 0.6 * np.exp(0.2j) / (1 + 2j * QUALITY[:, None] * x)
    return np.asarray(1e5 * np.exp(1.3j) * s21 * np.exp(-2j * np.pi * frequency * DELAY))


def sweep_frequencies() -> np.ndarray:
    """Return a sweep over eight widths of the resonances, which are not in its middle."""
    return RESONANCE[:, None] * (1 + np.linspace(-3.8, 4.2, 201) / QUALITY[:, None])


def test_a_circle_is_found_from_half_of_it() -> None:
    arc = np.exp(1j * np.linspace(0, np.pi, 50))
    center, radius = fit_circles(np.stack([3 - 4j + 5 * arc, 1e6 + 2e3 * arc]))
    assert center[:, 0] == pytest.approx([3 - 4j, 1e6])
    assert radius[:, 0] == pytest.approx([5, 2e3])


def test_a_resonance_is_found_with_its_quality_behind_a_cable() -> None:
    frequency = sweep_frequencies()
    sweep = without_delay(transmission(frequency, RESONANCE[:, None]), frequency, delay_s=DELAY)
    found = fit_resonators(frequency, sweep)
    assert found.frequency == pytest.approx(RESONANCE, abs=0.1)
    assert found.quality == pytest.approx(QUALITY, rel=1e-6)
    assert found.misfit.max() < 1e-6


def test_noise_is_no_resonance() -> None:
    rng = np.random.default_rng(1)
    noise = 1e5 + rng.normal(0, 100, (2, 201)) + 1j * rng.normal(0, 100, (2, 201))
    assert fit_resonators(sweep_frequencies(), noise).misfit.min() > 0.5


def test_a_resonance_that_moves_by_a_fifth_of_its_width_is_followed_exactly() -> None:
    frequency = sweep_frequencies()
    sweep = without_delay(transmission(frequency, RESONANCE[:, None]), frequency, delay_s=DELAY)
    tone = RESONANCE * (1 + 0.1 / QUALITY)
    moved = np.multiply.outer(RESONANCE / QUALITY, np.linspace(-0.2, 0.2, 41))
    counts = transmission(np.broadcast_to(tone[:, None], moved.shape), RESONANCE[:, None] - moved)
    shift = frequency_shift((counts.real, counts.imag), tone, fit_resonators(frequency, sweep), delay_s=DELAY)
    assert shift == pytest.approx(moved, abs=0.5)


def test_the_common_mode_is_told_from_noise_and_couplings() -> None:
    rng = np.random.default_rng(2)
    coupling, noise = rng.normal(1, 0.05, 40), np.linspace(0.3, 3, 40)
    mode = 5 * np.sin(np.linspace(0, 20, 20_000))
    mode -= mode.mean()
    found = common_mode(without_mean(np.outer(coupling, mode) + noise[:, None] * rng.normal(0, 1, (40, 20_000))))
    assert found.coupling == pytest.approx(coupling / np.median(coupling), abs=0.02)
    assert found.mode == pytest.approx(mode * np.median(coupling), abs=0.6)
    assert found.noise[10:] == pytest.approx(noise[10:], rel=0.03), "of those that do not make up the mode themselves"


def test_an_amplitude_is_found_beside_the_atmosphere_and_is_0_where_nothing_can_be_fitted() -> None:
    time = np.linspace(0, 1, 500)
    mode = np.sin(9 * time) - np.sin(9 * time).mean()
    template = without_mean(np.stack([beam(time - 0.4, 0 * time, fwhm=0.1), 0 * time]))
    signal = np.outer([1.1, 0.9], mode) + 7 * template
    assert amplitude(signal, mode, template).tolist() == pytest.approx([7, 0])


def test_samples_fall_into_the_pixel_around_them() -> None:
    grid = MapGrid(center=(0.0, 0.0), pixel=10.0, size=3)
    east = np.array([0.0, 14.9, -14.9, 4.9, 15.1, 0.0])
    north = np.array([0.0, 14.9, -14.9, 5.1, 0.0, -15.1])
    assert pixels(grid, east, north).tolist() == [4, 6, 2, 7, 9, 9], "9 is off the map"


def test_the_weights_predict_the_noise_of_map_and_null_map() -> None:
    rng = np.random.default_rng(3)
    grid, noise = MapGrid(center=(0.0, 0.0), pixel=10.0, size=60), np.linspace(0.5, 2, 8)
    where = Timestream(signal=np.empty(0), pixel=rng.integers(0, 3601, (8, 40_000)), half=np.arange(8) % 2)
    sums = MapSums(grid=grid)
    sums.add(1 + noise[:, None] * rng.normal(0, 1, (8, 40_000)), noise, where)
    assert pull(sums.mean() - 1, sums.weight()) == pytest.approx(1, abs=0.05)
    assert pull(*sums.null()) == pytest.approx(1, abs=0.05)
    assert sums.hits().sum() == np.count_nonzero(where.pixel < 3600)


def test_map_pixels_with_few_samples_are_blank() -> None:
    where = Timestream(signal=np.empty(0), pixel=np.array([9 * [0] + 10 * [1], 19 * [4]]), half=np.array([0, 1]))
    sums = MapSums(grid=MapGrid(center=(0.0, 0.0), pixel=10.0, size=2))
    sums.add(np.ones((2, 19)), np.ones(2), where)
    assert np.isnan(sums.mean()).tolist() == [[True, False], [True, True]]
    assert np.isnan(sums.null()[0]).all(), "no pixel was seen by both halves"


def test_the_sky_is_told_from_the_atmosphere_within_a_few_iterations() -> None:
    rng = np.random.default_rng(4)
    grid = MapGrid(center=(0.0, 0.0), pixel=12.0, size=31)
    east, north = rng.uniform(-180, 180, (2, 20, 20_000))
    atmosphere = np.cumsum(rng.normal(0, 0.1, 20_000))
    sky = 3 * beam(east, north, fwhm=47)
    stream = Timestream(
        signal=sky + atmosphere + rng.normal(0, 0.3, sky.shape), pixel=pixels(grid, east, north), half=np.arange(20) % 2
    )
    peaks = [np.nanmax(make_map(grid, [stream], iterations=count, threshold=4).sky) for count in (1, 2, 4)]
    assert peaks[0] < peaks[1] < peaks[2] == pytest.approx(3 * 0.97, rel=0.02)


def test_a_template_is_the_beam_averaged_over_a_pixel() -> None:
    fine = np.arange(-7.5, 7.5, 0.1) + 0.05
    east, north = np.meshgrid(20 + fine, 5 + fine)
    window = Template(fwhm=47, pixel=15).at(np.array([20.0]), np.array([5.0]))
    assert window[0] == pytest.approx(beam(east, north, fwhm=47).mean(), rel=1e-4)
    point = Template(fwhm=47, pixel=15, window=False).at(np.array([20.0]), np.array([5.0]))
    assert point[0] == pytest.approx(beam(np.array(20.0), np.array(5.0), fwhm=47))


def test_sources_are_found_with_flux_and_place_and_nothing_else_is() -> None:
    rng = np.random.default_rng(5)
    grid, template = MapGrid(center=(0.0, 0.0), pixel=12.0, size=60), Template(fwhm=47, pixel=12)
    east, north = grid.offsets()
    sky = template.at(east - 33, north + 71) + 0.3 * template.at(east + 200, north - 100)
    weight = np.full(sky.shape, 0.02**-2)
    sky = sky + rng.normal(0, 0.02, sky.shape)
    sky[:, :3] = np.nan
    found = find_sources(sky, weight, grid, template=template, threshold=6)
    assert [source.flux for source in found.sources] == pytest.approx([1, 0.3], abs=4 * found.sources[0].flux_error)
    place = [(source.east, source.north) for source in found.sources]
    assert place == [pytest.approx((33, -71), abs=1.5), pytest.approx((-200, 100), abs=4)]
    assert pull(found.rest, weight) == pytest.approx(1, abs=0.05)


def test_what_the_matched_filter_makes_of_noise_has_a_standard_deviation_of_1() -> None:
    rng = np.random.default_rng(6)
    weight = rng.uniform(1, 4, (80, 80))
    significance = matched_filter(rng.normal(0, 1, (80, 80)) / np.sqrt(weight), weight, Template(fwhm=47, pixel=12))
    assert significance.std() == pytest.approx(1, abs=0.15)
    assert significance.mean() == pytest.approx(0, abs=0.15)
