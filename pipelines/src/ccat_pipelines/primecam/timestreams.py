"""The arithmetic of timestreams: what all detectors see at once, and what one of them sees of a point source.

Signals have the axes (detector, sample), and a mean of zero in every detector.
"""

from dataclasses import dataclass

import numpy as np

from ccat_pipelines.arrays import Floats

ROUNDS = 3  # of alternating least squares; the coupling is then settled far below the noise
FITTED_TERMS = 2  # of every detector: offset and coupling


@dataclass(frozen=True, kw_only=True)
class CommonMode:
    """What the detectors see in common: the atmosphere."""

    mode: Floats
    """By sample, in the unit of the signals."""
    coupling: Floats
    """Of every detector to it; 1 for the median one."""
    noise: Floats
    """Rms of a sample of every detector beside it, in the unit of the signals."""

    def taken_from(self, signal: Floats) -> Floats:
        """Return the signals without it."""
        return signal - np.multiply.outer(self.coupling, self.mode)


def without_mean(signal: Floats) -> Floats:
    """Return the signals less the mean of each detector."""
    return signal - signal.mean(axis=1, keepdims=True)


def common_mode(signal: Floats) -> CommonMode:
    """Find the common mode and every detector's coupling to it, each weighted by 1/noise²."""
    n_detectors, n_samples = signal.shape
    power = np.einsum("ds,ds->d", signal, signal)
    coupling, weight = np.ones(n_detectors), 1 / power
    for _ in range(ROUNDS):
        mode = (weight * coupling) @ signal / (weight @ coupling**2)
        coupling = signal @ mode / (mode @ mode)
        scale = np.median(coupling)
        mode, coupling = mode * scale, coupling / scale
        variance = (power - coupling**2 * (mode @ mode)) / (n_samples - FITTED_TERMS)
        weight = 1 / variance
    return CommonMode(mode=mode, coupling=coupling, noise=np.sqrt(variance))


def amplitude(signal: Floats, mode: Floats, template: Floats) -> Floats:
    """Return how strong its template is in every detector's signal beside the common mode, by least squares.

    It is 0 where the template has nothing to fit.
    """
    mm, mt, tt = mode @ mode, template @ mode, np.einsum("ds,ds->d", template, template)
    sm, st = signal @ mode, np.einsum("ds,ds->d", signal, template)
    determinant = tt * mm - mt**2
    return np.divide(st * mm - sm * mt, determinant, out=np.zeros_like(st), where=determinant > 0)


def beam(east: Floats, north: Floats, *, fwhm: float) -> Floats:
    """Return the response, 1 at its peak, to a point source at these offsets; all in the same unit."""
    return np.exp(-4 * np.log(2) * (east**2 + north**2) / fwhm**2)
