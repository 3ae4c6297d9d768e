"""The arithmetic of spectra: pure functions, temperatures in kelvin, velocities in km/s.

Arrays of spectra have the axes (integration, pixel, channel) unless said otherwise.
"""

import numpy as np
from numpy.typing import NDArray

from ccat_pipelines.arrays import Booleans, Floats

SPEED_OF_LIGHT_KMS = 299_792.458


def receiver_temperature(hot: Floats, cold: Floats, *, t_hot: float, t_cold: float) -> Floats:
    """Return the receiver temperature, K, from the counts on the hot and the cold load (the Y-factor method)."""
    y = hot / cold
    return (t_hot - y * t_cold) / (y - 1)


def counts_per_kelvin(hot: Floats, cold: Floats, *, t_hot: float, t_cold: float) -> Floats:
    """Return the gain, counts/K, from the counts on the hot and the cold load."""
    return (hot - cold) / (t_hot - t_cold)


def transmission(opacity: float, elevation_deg: Floats) -> Floats:
    """Return what fraction of a source's signal passes a plane-parallel atmosphere of this zenith opacity, neper."""
    return np.exp(-opacity / np.sin(np.radians(elevation_deg)))


def nearest_in_time(time_s: Floats, reference_s: Floats) -> NDArray[np.intp]:
    """Return for every time the index of the nearest reference."""
    return np.argmin(np.abs(time_s[:, None] - reference_s[None, :]), axis=1)


def bandwidth_hz(channel_kms: float, rest_frequency_hz: float) -> float:
    """Return the width of a channel in frequency, radio convention."""
    return abs(channel_kms) / SPEED_OF_LIGHT_KMS * rest_frequency_hz


def off_share(exposure_on: Floats, exposure_off: Floats) -> Floats:
    """Return which fraction of the variance of ON - OFF comes from OFF, by the radiometer equation."""
    return exposure_on / (exposure_on + exposure_off)


def line_free(velocity_kms: Floats, *, center_kms: float, half_width_kms: float) -> Booleans:
    """Return a mask of the channels outside the line window."""
    return np.abs(velocity_kms - center_kms) > half_width_kms


def waves(n_channels: int, *, cycles: float, pairs: int) -> Floats:
    """Return cosine and sine over the band, (channel, 2·pairs), for the fundamental and its harmonics.

    A standing wave between two surfaces repeats `cycles` times over the band; it is not a pure sinusoid.
    """
    phase = 2 * np.pi * cycles * np.arange(n_channels) / n_channels
    harmonics = phase[:, None] * np.arange(1, pairs + 1)
    return np.hstack([np.cos(harmonics), np.sin(harmonics)])


def polynomials(n_channels: int, *, order: int) -> Floats:
    """Return the Legendre polynomials up to this order over the band, (channel, order + 1)."""
    return np.polynomial.legendre.legvander(np.linspace(-1, 1, n_channels), order)


def find_wave(spectra: Floats, free: Booleans, *, order: int, pairs: int) -> float:
    """Return the standing wave's cycles over the band: those that explain most of these spectra (spectrum, channel)."""
    smooth, used = polynomials(free.size, order=order), spectra[:, free]

    def explained(cycles: float) -> float:
        basis = np.hstack([smooth, waves(free.size, cycles=cycles, pairs=pairs)])[free]
        return float(np.sum((used @ np.linalg.qr(basis)[0].astype(used.dtype)) ** 2))

    coarse = max(np.arange(4.0, 24.0, 0.25), key=explained)
    return float(max(np.arange(coarse - 0.25, coarse + 0.25, 0.01), key=explained))


def subtract_baseline(spectra: Floats, basis: Floats, free: Booleans) -> Floats:
    """Return the spectra less the combination of the basis (channel, term) that fits their line-free channels best."""
    coefficients = spectra[..., free] @ np.linalg.pinv(basis[free]).T.astype(spectra.dtype)
    return spectra - coefficients @ basis.T.astype(spectra.dtype)


def noise(spectra: Floats, free: Booleans, *, fitted_terms: int) -> Floats:
    """Return the rms of every spectrum's line-free channels, corrected for the terms that were fitted to them."""
    used = spectra[..., free]
    square = np.einsum("...c,...c->...", used, used, dtype=np.float64)
    return np.sqrt(square / (np.count_nonzero(free) - fitted_terms))


def broken(pixel_rms: Floats, *, threshold: float) -> Booleans:
    """Return which pixels are noisier than `threshold` times the median one, or dead: without finite noise."""
    return ~(pixel_rms <= threshold * np.nanmedian(pixel_rms))
